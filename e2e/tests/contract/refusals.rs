//! Refused requests: each gets a problem with every fault at once, and nothing of it is counted.

use anyhow::{Result, ensure};
use e2e::response::send;
use e2e::system::System;
use reqwest::Method;
use serde_json::json;

use crate::{on_both, unique};

on_both!(
    every_fault_of_an_allocation_is_reported_at_once,
    no_invalid_allocation_is_accepted,
    a_body_that_is_not_json_or_has_wrong_types_is_malformed,
    a_missing_person_is_reported_where_persons_are_required,
    a_body_of_another_media_type_is_refused,
    a_body_that_is_too_large_is_refused,
    a_batch_of_more_than_a_thousand_items_is_refused_as_a_whole,
    unknown_budgets_routes_and_methods_are_problems,
    a_budget_accepts_submissions_only_while_it_is_open,
);

fn path(budget: &str) -> String {
    format!("/v1/budgets/{budget}/submissions")
}

async fn every_fault_of_an_allocation_is_reported_at_once(system: &System) -> Result<()> {
    let budget = unique("faults");
    system.define(&budget, 3).await?;
    let body =
        json!({"person": "a", "allocation": {"c0": 33.335, "c1": -5, "healht": 10, "c/2~": 1}});
    let problem = system.post(&path(&budget), &body).await?.problem(422, "invalid-allocation")?;
    let pointers: Vec<&str> = problem["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|fault| fault["pointer"].as_str())
        .collect();
    for expected in ["/allocation/c0", "/allocation/c1", "/allocation/healht", "/allocation/c~12~0"]
    {
        ensure!(pointers.contains(&expected), "{expected} is missing in {problem}");
    }
    ensure!(
        problem["errors"].as_array().into_iter().flatten().all(|fault| fault["detail"].is_string())
    );
    system.verify_counts_only(&budget, 3, &[]).await
}

async fn no_invalid_allocation_is_accepted(system: &System) -> Result<()> {
    let budget = unique("wrong");
    system.define(&budget, 3).await?;
    let allocations = [
        r#"{"c0": 99.99}"#,
        r#"{"c0": 100.01}"#,
        r#"{"c0": 100, "c0": 100}"#,
        r#"{"c0": 50, "c0": 50}"#,
        r#"{"c0": 200, "c1": -100}"#,
        r#"{"c0": 33.335, "c1": 66.665}"#,
        r#"{"c0": 1e400}"#,
        r#"{"c0": 100.000000000000000000001}"#,
        r#"{"c0": 1e-400, "c1": 100}"#,
        r#"{"other": 100}"#,
        r#"{}"#,
    ];
    for allocation in allocations {
        let body = format!(r#"{{"person": "a", "allocation": {allocation}}}"#);
        let answer = system.post_text(&path(&budget), "application/json", body).await?;
        let problem = answer.problem(422, "invalid-allocation")?;
        ensure!(
            problem["errors"].as_array().is_some_and(|faults| !faults.is_empty()),
            "{allocation}: {problem}"
        );
    }
    system.verify_counts_only(&budget, 3, &[]).await
}

async fn a_body_that_is_not_json_or_has_wrong_types_is_malformed(system: &System) -> Result<()> {
    let budget = unique("malformed");
    system.define(&budget, 3).await?;
    let deep = "[".repeat(100_000);
    let bodies = [
        "",
        "{",
        "null",
        "[]",
        "17",
        r#"{"person": "a", "allocation": {"c0": NaN}}"#,
        r#"{"person": "a", "allocation": {"c0": "100"}}"#,
        r#"{"person": "a", "allocation": {"c0": null}}"#,
        r#"{"person": "a", "allocation": [100]}"#,
        r#"{"person": 5, "allocation": {"c0": 100}}"#,
        r#"{"person": "\ud800", "allocation": {"c0": 100}}"#,
        r#"{"person": "a", "submission_id": "not-a-uuid", "allocation": {"c0": 100}}"#,
        r#"{"person": "a", "allocation": {"c0": 100}} and more"#,
        deep.as_str(),
    ];
    for body in bodies {
        let answer = system.post_text(&path(&budget), "application/json", body).await?;
        answer
            .problem(400, "malformed")
            .map_err(|error| error.context(body.chars().take(80).collect::<String>()))?;
    }
    let request = system.request(Method::POST, format!("{}{}", system.write_to(0), path(&budget)));
    let bytes = b"{\"person\": \"\xff\xfe\", \"allocation\": {\"c0\": 100}}".to_vec();
    send(request.header("content-type", "application/json").body(bytes))
        .await?
        .problem(400, "malformed")?;
    system.verify_counts_only(&budget, 3, &[]).await
}

async fn a_missing_person_is_reported_where_persons_are_required(system: &System) -> Result<()> {
    let budget = unique("no-person");
    system.define(&budget, 2).await?;
    let problem = system
        .post(&path(&budget), &json!({"allocation": {"c0": 100}}))
        .await?
        .problem(400, "malformed")?;
    ensure!(problem["errors"][0]["pointer"] == "/person", "{problem}");
    Ok(())
}

async fn a_body_of_another_media_type_is_refused(system: &System) -> Result<()> {
    let budget = unique("media");
    system.define(&budget, 2).await?;
    let good = r#"{"person": "a", "allocation": {"c0": 100}}"#;
    for (route, media_type) in [
        (path(&budget), "text/plain"),
        (path(&budget), "application/x-ndjson"),
        (format!("{}/batch", path(&budget)), "text/csv"),
    ] {
        system.post_text(&route, media_type, good).await?.problem(415, "unsupported-media-type")?;
    }
    Ok(())
}

async fn a_body_that_is_too_large_is_refused(system: &System) -> Result<()> {
    let budget = unique("large");
    system.define(&budget, 2).await?;
    let body = format!(r#"{{"person": "{}"}}"#, "x".repeat(3 << 20));
    system
        .post_text(&path(&budget), "application/json", body)
        .await?
        .problem(413, "content-too-large")?;
    Ok(())
}

async fn a_batch_of_more_than_a_thousand_items_is_refused_as_a_whole(
    system: &System,
) -> Result<()> {
    let budget = unique("too-many");
    system.define(&budget, 2).await?;
    let items: Vec<_> = (0..1_001)
        .map(|person| json!({"person": format!("p-{person}"), "allocation": {"c0": 100}}))
        .collect();
    system
        .post(&format!("{}/batch", path(&budget)), &json!(items))
        .await?
        .problem(413, "content-too-large")?;
    system.verify_counts_only(&budget, 2, &[]).await
}

async fn unknown_budgets_routes_and_methods_are_problems(system: &System) -> Result<()> {
    let body = json!({"person": "a", "allocation": {"health": 100}});
    system
        .post("/v1/budgets/no-such-budget/submissions", &body)
        .await?
        .problem(404, "not-found")?;
    system.get("/v1/budgets/no-such-budget").await?.problem(404, "not-found")?;
    system.get("/v1/budgets/no-such-budget/aggregate").await?.problem(404, "not-found")?;
    system.get("/v1/budgets/taxes/submissions/unknown-person").await?.problem(404, "not-found")?;
    system.get("/no/such/route").await?.problem(404, "not-found")?;
    system.post("/no/such/route", &body).await?.problem(404, "not-found")?;
    for (base, route, method) in [
        (system.write_to(0), "/v1/budgets/taxes/submissions", Method::PATCH),
        (system.read_from(0), "/v1/budgets/taxes/aggregate", Method::POST),
    ] {
        let answer = send(system.request(method, format!("{base}{route}"))).await?;
        answer.problem(405, "method-not-allowed")?;
        ensure!(!answer.header("allow").is_empty(), "no Allow on {route}");
    }
    Ok(())
}

async fn a_budget_accepts_submissions_only_while_it_is_open(system: &System) -> Result<()> {
    let body = json!({"person": "a", "allocation": {"c0": 100}});
    for (rule, when) in
        [("opens_at", "2999-01-01T00:00:00Z"), ("closes_at", "2001-01-01T00:00:00Z")]
    {
        let budget = unique("closed");
        let mut definition = e2e::system::definition(2);
        definition[rule] = json!(when);
        system.define_with(&budget, &definition).await?;
        system.post(&path(&budget), &body).await?.problem(409, "budget-closed")?;
        system
            .post(&format!("{}/batch", path(&budget)), &json!([body]))
            .await?
            .problem(409, "budget-closed")?;
        // Opened, so that the check below can submit and verify that nothing else is counted.
        system.define_with(&budget, &e2e::system::definition(2)).await?;
        system.verify_counts_only(&budget, 2, &[]).await?;
    }
    Ok(())
}
