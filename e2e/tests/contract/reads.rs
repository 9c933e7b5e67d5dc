//! Reads of aggregates: body, headers, and reads of at least one's own submission.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::response::RecordAddress;
use e2e::system::System;
use e2e::wait::eventually;
use serde_json::{Value, json};

use crate::{on_both, unique};

on_both!(
    an_aggregate_has_the_documented_members,
    averages_and_medians_are_computed_over_the_counted_people,
    a_distribution_counts_each_person_once_per_category,
    the_etag_is_strong_contains_the_version_and_avoids_the_body,
    a_second_read_is_answered_from_memory,
    versions_only_increase_and_only_with_the_totals,
    the_default_budgets_aggregate_is_served_at_aggregate_with_a_slash,
    several_budgets_are_read_together_in_request_order,
    a_read_with_a_receipt_includes_that_submission,
    a_submission_that_is_not_counted_yet_is_412_after_the_wait,
    an_invalid_consistency_token_is_malformed,
);

fn route(budget: &str) -> String {
    format!("/v1/budgets/{budget}/aggregate")
}

async fn at_least(
    system: &System,
    path: &str,
    receipt: &RecordAddress,
) -> Result<e2e::response::HttpResponse> {
    let wait = [("consistency-token", &*receipt.token), ("prefer", "wait=10")];
    // As clients do: a busy machine's store may not answer in time once.
    eventually("the read with a receipt is answered", Duration::from_secs(30), async || {
        system.get_with(path, &wait).await?.expect(200)
    })
    .await
}

async fn an_aggregate_has_the_documented_members(system: &System) -> Result<()> {
    let budget = unique("form");
    system.define(&budget, 3).await?;
    let receipt = system.submit(&budget, "a", &[5_000, 2_500, 2_500]).await?;
    let answer = at_least(system, &route(&budget), &receipt).await?;
    ensure!(answer.header("content-type") == "application/json");
    let body = answer.json()?;
    ensure!(body["budget"] == *budget && body["name"].is_string() && body["people"] == 1, "{body}");
    ensure!(body["generation"] == 1 && body["version"].is_string(), "{body}");
    let updated_at = body["updated_at"].as_str().context("no updated_at")?;
    ensure!(
        updated_at.starts_with("20") && updated_at.ends_with('Z') && updated_at.len() == 24,
        "{updated_at}"
    );
    let expected = json!({
        "id": "c0", "name": "Category 0", "total_basis_points": 5_000, "average_percent": 50.0, "median_percent": 50.0
    });
    let first = &body["categories"][0];
    for (member, value) in expected.as_object().into_iter().flatten() {
        let same = first[member] == *value
            || first[member].as_f64().is_some_and(|number| value.as_f64() == Some(number));
        ensure!(same, "{member} of {first} is not {value}");
    }
    let ids: Vec<_> = body["categories"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|category| category["id"].clone())
        .collect();
    ensure!(ids == ["c0", "c1", "c2"], "{ids:?}");
    ensure!(first.get("distribution").is_none(), "{first}");
    Ok(())
}

async fn averages_and_medians_are_computed_over_the_counted_people(system: &System) -> Result<()> {
    let budget = unique("average");
    system.define(&budget, 2).await?;
    let mut receipts = Vec::new();
    for (person, share) in [("a", 1_000), ("b", 2_000), ("c", 9_001)] {
        receipts.push(system.submit(&budget, person, &[share, 10_000 - share]).await?);
    }
    let shown = eventually("all three are counted", Duration::from_secs(30), async || {
        let shown = system.get(&route(&budget)).await?.expect(200)?.json()?;
        ensure!(shown["people"] == 3, "{shown}");
        Ok(shown)
    })
    .await?;
    let first = &shown["categories"][0];
    // 12,001 / 3 / 100, rounded to four decimals.
    ensure!(first["average_percent"].as_f64() == Some(40.0033), "{first}");
    ensure!(
        first["median_percent"].as_f64().is_some_and(|median| (20.0..21.0).contains(&median)),
        "{first}"
    );
    Ok(())
}

async fn a_distribution_counts_each_person_once_per_category(system: &System) -> Result<()> {
    let budget = unique("bins");
    system.define(&budget, 2).await?;
    let a = system.submit(&budget, "a", &[10_000, 0]).await?;
    at_least(system, &route(&budget), &a).await?;
    let b = system.submit(&budget, "b", &[4_099, 5_901]).await?;
    let shown =
        at_least(system, &format!("{}?include=distribution", route(&budget)), &b).await?.json()?;
    let counts = |category: usize| -> Vec<u64> {
        shown["categories"][category]["distribution"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect()
    };
    let expected =
        |whole: &[usize]| (0..101).map(|bin| u64::from(whole.contains(&bin))).collect::<Vec<_>>();
    ensure!(counts(0) == expected(&[100, 40]) && counts(1) == expected(&[0, 59]), "{shown}");
    Ok(())
}

async fn the_etag_is_strong_contains_the_version_and_avoids_the_body(
    system: &System,
) -> Result<()> {
    let budget = unique("etag");
    system.define(&budget, 2).await?;
    let receipt = system.submit(&budget, "a", &[10_000]).await?;
    let answer = at_least(system, &route(&budget), &receipt).await?;
    let etag = answer.header("etag").to_owned();
    let version = answer.json()?["version"].as_str().unwrap_or_default().to_owned();
    ensure!(etag.starts_with('"') && etag.contains(&version), "{etag} of version {version}");
    ensure!(!answer.header("cache-control").is_empty() && !answer.header("age").is_empty());

    let same = system.get_with(&route(&budget), &[("if-none-match", &etag)]).await?.expect(304)?;
    ensure!(
        same.body.is_empty() && same.header("etag") == etag,
        "a 304 with {} bytes",
        same.body.len()
    );
    let receipt = system.submit(&budget, "b", &[10_000]).await?;
    at_least(system, &route(&budget), &receipt).await?;
    let newer = system.get_with(&route(&budget), &[("if-none-match", &etag)]).await?.expect(200)?;
    ensure!(newer.header("etag") != etag);
    Ok(())
}

async fn a_second_read_is_answered_from_memory(system: &System) -> Result<()> {
    let budget = unique("memory");
    system.define(&budget, 2).await?;
    let receipt = system.submit(&budget, "a", &[10_000]).await?;
    at_least(system, &route(&budget), &receipt).await?;
    eventually("a read is a hit in memory", Duration::from_secs(30), async || {
        let status =
            system.get(&route(&budget)).await?.expect(200)?.header("cache-status").to_owned();
        ensure!(status == "allocator-memory; hit", "Cache-Status: {status}");
        Ok(())
    })
    .await
}

async fn versions_only_increase_and_only_with_the_totals(system: &System) -> Result<()> {
    let budget = unique("versions");
    system.define(&budget, 2).await?;
    let mut newest = String::new();
    for person in 0..20 {
        let receipt =
            system.submit(&budget, &format!("p-{person}"), &[person, 10_000 - person]).await?;
        let shown = at_least(system, &route(&budget), &receipt).await?.json()?;
        let version = shown["version"].as_str().context("no version")?;
        ensure!(*version > *newest, "{version} after {newest}");
        ensure!(shown["people"] == person + 1, "{shown}");
        let again = system.get(&route(&budget)).await?.json()?;
        ensure!(again == shown, "{again} at the version of {shown}");
        newest = version.to_owned();
    }
    Ok(())
}

async fn the_default_budgets_aggregate_is_served_at_aggregate_with_a_slash(
    system: &System,
) -> Result<()> {
    let body = json!({"person": unique("person"), "allocation": {"health": 40, "education": 35.5, "defence": 24.5}});
    let receipt =
        e2e::response::receipt(&system.post("/v1/budgets/taxes/submissions", &body).await?)?;
    let long = at_least(system, &route("taxes"), &receipt).await?;
    let short = system.get("/aggregate/").await?.expect(200)?;
    ensure!(short.json()? == long.json()?, "{} is not {}", short.text(), long.text());
    ensure!(short.header("etag") == long.header("etag"));
    Ok(())
}

async fn several_budgets_are_read_together_in_request_order(system: &System) -> Result<()> {
    let (a, b) = (unique("several"), unique("several"));
    for budget in [&a, &b] {
        system.define(budget, 2).await?;
        let receipt = system.submit(budget, budget, &[10_000]).await?;
        at_least(system, &route(budget), &receipt).await?;
    }
    let both = system.get(&format!("/v1/aggregates?budget={b}&budget={a}")).await?.expect(200)?;
    let together = both.json()?;
    for (index, budget) in [&b, &a].into_iter().enumerate() {
        let alone = system.get(&route(budget)).await?.json()?;
        ensure!(together["aggregates"][index] == alone, "{together} has not {alone} at {index}");
    }
    let tag = [("if-none-match", both.header("etag"))];
    system.get_with(&format!("/v1/aggregates?budget={b}&budget={a}"), &tag).await?.expect(304)?;
    system.get("/v1/aggregates").await?.problem(400, "malformed")?;
    system
        .get(&format!("/v1/aggregates?budget={a}&budget=no-such-budget"))
        .await?
        .problem(404, "not-found")?;
    Ok(())
}

async fn a_read_with_a_receipt_includes_that_submission(system: &System) -> Result<()> {
    let budget = unique("own");
    system.define(&budget, 2).await?;
    for (person, share) in (0..30).map(|person| (format!("p-{person}"), 100 * person)) {
        let receipt = system.submit(&budget, &person, &[share, 10_000 - share]).await?;
        let shown = at_least(system, &route(&budget), &receipt).await?.json()?;
        ensure!(
            shown["people"].as_u64() > Some(u64::from(share) / 100),
            "{person} is not counted in {shown}"
        );
        let own = at_least(system, &format!("/v1/budgets/{budget}/submissions/{person}"), &receipt)
            .await?
            .json()?;
        ensure!(own["allocation"]["c0"].as_f64() == Some(f64::from(share) / 100.0), "{own}");
    }
    let receipt = system.submit(&budget, "p-1", &[1, 9_999]).await?;
    let by_query = format!("{}?at_least={}", route(&budget), receipt.token);
    system.get_with(&by_query, &[("prefer", "wait=10")]).await?.expect(200)?;
    Ok(())
}

async fn a_submission_that_is_not_counted_yet_is_412_after_the_wait(system: &System) -> Result<()> {
    let budget = unique("future");
    system.define(&budget, 2).await?;
    let receipt = system.submit(&budget, "a", &[10_000]).await?;
    at_least(system, &route(&budget), &receipt).await?;
    // The receipt of a submission that does not exist yet.
    let future = format!("{}.{}", receipt.partition, receipt.offset + 1_000_000);
    let token = ("consistency-token", &*future);
    let began = std::time::Instant::now();
    system
        .get_with(&route(&budget), &[token, ("prefer", "wait=1")])
        .await?
        .problem(412, "not-yet-visible")?;
    let waited = began.elapsed();
    ensure!(
        (Duration::from_millis(900)..Duration::from_secs(8)).contains(&waited),
        "waited {waited:?} instead of 1 s"
    );
    system.get_with(&route(&budget), &[token]).await?.problem(412, "not-yet-visible")?;
    system
        .get_with(&format!("/v1/budgets/{budget}/submissions/a"), &[token])
        .await?
        .problem(412, "not-yet-visible")?;
    Ok(())
}

async fn an_invalid_consistency_token_is_malformed(system: &System) -> Result<()> {
    for headers in [
        [("consistency-token", "nonsense"), ("prefer", "wait=1")],
        [("consistency-token", "0.0"), ("prefer", "wait=11")],
        [("consistency-token", "999999.0"), ("prefer", "wait=1")],
    ] {
        system.get_with(&route("taxes"), &headers).await?.problem(400, "malformed")?;
    }
    Ok(())
}
