//! A budget's history.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::system::System;
use e2e::wait::eventually;
use serde_json::json;

use crate::{on_both, unique};

on_both!(
    the_next_full_minute_has_everyone_who_submitted_before_it,
    every_fault_of_a_history_query_is_named,
);

/// A minute, the delay after it, and time to spare.
const MINUTE_TIMEOUT: Duration = Duration::from_secs(150);

async fn the_next_full_minute_has_everyone_who_submitted_before_it(system: &System) -> Result<()> {
    let budget = unique("history");
    system.define(&budget, 2).await?;
    let path = format!("/v1/budgets/{budget}/history?step=minute");
    eventually("the history is empty", Duration::from_secs(30), async || {
        let found = system.get(&path).await?.expect(200)?.json()?;
        let empty = json!({"budget": budget, "step": "minute", "points": [], "next": null});
        ensure!(found == empty, "{found}");
        Ok(())
    })
    .await?;
    for (person, share) in [("a", 2_500), ("b", 5_000), ("c", 10_000)] {
        system.submit(&budget, person, &[share, 10_000 - share]).await?;
    }
    eventually("a full minute has all three", MINUTE_TIMEOUT, async || {
        let body = system.get(&path).await?.expect(200)?.json()?;
        let points = body["points"].as_array().context("no points")?;
        let point =
            points.iter().find(|point| point["people"] == 3).context("not all three yet")?;
        ensure!(point["average_percent"] == json!({"c0": 58.3333, "c1": 41.6667}), "{point}");
        let at = point["at"].as_str().context("no time")?;
        ensure!(at.ends_with(":00Z"), "{at}");
        let csv = system.get(&format!("{path}&format=csv&from={at}&to={at}")).await?.expect(200)?;
        let expected = format!("at,people,c0,c1\r\n{at},3,58.3333,41.6667\r\n");
        ensure!(csv.text() == expected, "{}", csv.text());
        Ok(())
    })
    .await
}

async fn every_fault_of_a_history_query_is_named(system: &System) -> Result<()> {
    let path = "/v1/budgets/taxes/history?from=x&to=y&step=week&limit=0&format=pdf";
    let problem = system.get(path).await?.problem(400, "malformed")?;
    ensure!(problem["errors"].as_array().map(Vec::len) == Some(5), "{problem}");
    system.get("/v1/budgets/nowhere/history").await?.problem(404, "not-found")?;
    Ok(())
}
