//! Budgets: the default budget, new budgets, and which changes are allowed after the first submission.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::response::send;
use e2e::system::{System, definition};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{on_both, unique};

on_both!(
    the_default_budget_has_the_ten_divisions_of_cofog,
    every_process_knows_a_new_budget_within_seconds,
    definitions_are_listed_and_read_individually,
    a_presentation_is_served_by_every_process_and_shown_on_the_page,
    an_invalid_definition_is_refused_with_every_fault,
    the_first_submission_freezes_categories_and_identity_but_not_names,
    results_are_withheld_below_the_minimum_of_people,
    a_budget_without_submissions_is_deleted_and_defined_anew,
);

async fn put(
    system: &System,
    budget: &str,
    definition: &Value,
) -> Result<e2e::response::HttpResponse> {
    send(
        system
            .request(Method::PUT, format!("{}/v1/budgets/{budget}", system.write_to(0)))
            .json(definition),
    )
    .await
}

async fn the_default_budget_has_the_ten_divisions_of_cofog(system: &System) -> Result<()> {
    let budget = system.get("/v1/budgets/taxes").await?.expect(200)?.json()?;
    let ids: Vec<&str> = budget["categories"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|category| category["id"].as_str())
        .collect();
    let cofog = [
        "general-public-services",
        "defence",
        "public-order-and-safety",
        "economic-affairs",
        "environmental-protection",
        "housing-and-community-amenities",
        "health",
        "recreation-culture-and-religion",
        "education",
        "social-protection",
    ];
    ensure!(ids == cofog, "{ids:?}");
    Ok(())
}

async fn a_presentation_is_served_by_every_process_and_shown_on_the_page(
    system: &System,
) -> Result<()> {
    let budget = unique("presented");
    let mut wanted = definition(2);
    let presentation = json!({
        "description": "One.\nTwo.", "language": "en", "time_zone": "Europe/Berlin", "contact": "us@example.org",
        "reference": {"name": "The town, 2025", "source": "Its accounts", "percent": {"c0": 33.35, "c1": 66.65}},
        "translations": {"de": {"name": "Unsere Parks", "categories": {"c0": {"name": "Bäume"}}}},
    });
    for (member, value) in presentation.as_object().into_iter().flatten() {
        wanted[member] = value.clone();
    }
    let created = put(system, &budget, &wanted).await?.expect(201)?;
    system.wait_until_known(&budget, Duration::from_secs(5)).await?;
    let read = system.get(&format!("/v1/budgets/{budget}")).await?.expect(200)?;
    let (etag, same) = (created.header("etag"), read.header("etag"));
    ensure!(etag == same, "{etag} and {same}");
    let read = read.json()?;
    for (member, value) in presentation.as_object().into_iter().flatten() {
        ensure!(read[member] == *value, "{member}: {}", read[member]);
    }
    let page = system.get(&format!("/budgets/{budget}?lang=de")).await?.expect(200)?.text();
    for shown in
        ["<bdi>Unsere Parks</bdi>", "<bdi>Bäume</bdi>", "<bdi lang=\"en\">One.", "us@example.org"]
    {
        ensure!(page.contains(shown), "{shown} is missing in {page}");
    }
    Ok(())
}

async fn every_process_knows_a_new_budget_within_seconds(system: &System) -> Result<()> {
    let budget = unique("new");
    let answer = put(system, &budget, &definition(2)).await?;
    ensure!(answer.status == 201, "{}: {}", answer.status, answer.text());
    system.wait_until_known(&budget, Duration::from_secs(5)).await
}

async fn definitions_are_listed_and_read_individually(system: &System) -> Result<()> {
    let budget = unique("listed");
    let mut wanted = definition(3);
    wanted["categories"][1]["description"] = json!("Described.");
    wanted["categories"][1]["color"] = json!("#a0b1c2");
    system.define_with(&budget, &wanted).await?;
    let answer = system.get(&format!("/v1/budgets/{budget}")).await?.expect(200)?;
    let one = answer.json()?;
    ensure!(
        one["id"] == *budget
            && one["name"] == wanted["name"]
            && one["categories"] == wanted["categories"],
        "{one}"
    );
    let all = system.get("/v1/budgets").await?.expect(200)?.json()?;
    let listed = all["budgets"].as_array().into_iter().flatten();
    ensure!(listed.clone().any(|listed| *listed == one), "{all}");
    ensure!(listed.clone().any(|listed| listed["id"] == "taxes"), "{all}");
    let tag = [("if-none-match", answer.header("etag"))];
    system.get_with(&format!("/v1/budgets/{budget}"), &tag).await?.expect(304)?;
    Ok(())
}

async fn an_invalid_definition_is_refused_with_every_fault(system: &System) -> Result<()> {
    let wrong = json!({
        "name": "",
        "categories": [{"id": "a", "name": "A"}, {"id": "a", "name": "Again"}, {"id": "No Slug", "name": "B"}],
        "minimum_people": 0,
        "opens_at": "2030-01-01T00:00:00Z", "closes_at": "2020-01-01T00:00:00Z",
    });
    let problem = put(system, &unique("wrong"), &wrong).await?.problem(422, "invalid-budget")?;
    let faults = problem["errors"].as_array().map_or(0, Vec::len);
    ensure!(faults >= 4, "only {faults} faults in {problem}");
    put(system, &unique("one"), &definition(1)).await?.problem(422, "invalid-budget")?;
    put(system, &unique("many"), &definition(65)).await?.problem(422, "invalid-budget")?;
    put(system, "Not%20a%20slug", &definition(2)).await?.problem(400, "malformed")?;
    Ok(())
}

async fn the_first_submission_freezes_categories_and_identity_but_not_names(
    system: &System,
) -> Result<()> {
    let budget = unique("frozen");
    system.define(&budget, 2).await?;
    // Before the first submission, everything may change.
    put(system, &budget, &definition(3)).await?.expect(200)?;
    system.submit(&budget, "a", &[10_000]).await?;
    put(system, &budget, &definition(4)).await?.problem(409, "budget-frozen")?;
    let mut optional = definition(3);
    optional["identity"] = json!("optional");
    put(system, &budget, &optional).await?.problem(409, "budget-frozen")?;

    let mut renamed = definition(3);
    renamed["name"] = json!("A better name");
    renamed["categories"][0]["name"] = json!("A better category");
    put(system, &budget, &renamed).await?.expect(200)?;
    e2e::wait::eventually("the aggregate has the new names", Duration::from_secs(30), async || {
        let shown =
            system.get(&format!("/v1/budgets/{budget}/aggregate")).await?.expect(200)?.json()?;
        ensure!(
            shown["name"] == "A better name"
                && shown["categories"][0]["name"] == "A better category",
            "{shown}"
        );
        ensure!(shown["people"] == 1, "{shown}");
        Ok(())
    })
    .await
}

async fn a_budget_without_submissions_is_deleted_and_defined_anew(system: &System) -> Result<()> {
    let budget = unique("deleted");
    let delete = async |from: usize| {
        let url = format!("{}/v1/budgets/{budget}", system.write_to(from));
        send(system.request(Method::DELETE, url)).await
    };
    system.define(&budget, 2).await?;
    // Neither the withdrawal of nobody nor a refused submission keeps it.
    let submissions = format!("/v1/budgets/{budget}/submissions");
    let nobody = format!("{}{submissions}/nobody", system.write_to(0));
    send(system.request(Method::DELETE, nobody)).await?.expect(202)?;
    let wrong = json!({"person": "a", "allocation": {"c0": 99}});
    system.post(&submissions, &wrong).await?.problem(422, "invalid-allocation")?;
    delete(0).await?.expect(204)?;
    for path in ["", "/aggregate", "/submissions/a"] {
        let path = format!("/v1/budgets/{budget}{path}");
        e2e::wait::eventually("every api knows it", Duration::from_secs(5), async || {
            for api in 0..2 {
                let url = format!("{}{path}", system.read_from(api));
                send(system.request(Method::GET, url)).await?.problem(404, "not-found")?;
            }
            Ok(())
        })
        .await?;
    }
    let good = json!({"person": "a", "allocation": {"c0": 100}});
    system.post(&submissions, &good).await?.problem(404, "not-found")?;
    e2e::wait::eventually("every ingest knows it", Duration::from_secs(5), async || {
        delete(1).await?.problem(404, "not-found").map(drop)
    })
    .await?;
    system.define(&budget, 3).await?;
    system.submit(&budget, "a", &[1, 2, 9_997]).await?;
    delete(0).await?.problem(409, "budget-frozen")?;
    Ok(())
}

async fn results_are_withheld_below_the_minimum_of_people(system: &System) -> Result<()> {
    let budget = unique("few");
    let mut definition = definition(2);
    definition["minimum_people"] = json!(2);
    system.define_with(&budget, &definition).await?;
    let route = format!("/v1/budgets/{budget}/aggregate");
    let at_least = async |person: &str| -> Result<Value> {
        let receipt = system.submit(&budget, person, &[10_000]).await?;
        let wait = [("consistency-token", &*receipt.token), ("prefer", "wait=10")];
        system.get_with(&route, &wait).await?.expect(200)?.json()
    };
    let withheld = at_least("a").await?;
    ensure!(!withheld.to_string().contains("total_basis_points"), "{withheld}");
    let shown = at_least("b").await?;
    ensure!(
        shown["people"] == 2 && shown["categories"][0]["total_basis_points"] == 20_000,
        "{shown}"
    );
    Ok(())
}
