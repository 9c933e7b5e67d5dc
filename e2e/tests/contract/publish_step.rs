//! Results that move in steps.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::response::send;
use e2e::system::{System, definition};
use e2e::wait::eventually;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::Value;

use crate::{on_both, unique};

on_both!(
    results_move_only_when_as_many_people_of_a_partition_as_the_step_have_changed,
    a_publish_step_is_frozen_by_the_first_submission,
);

const STEP: u64 = 3;
const PEOPLE: u64 = 14;
const FINAL_TIMEOUT: Duration = Duration::from_secs(60);
const JOB_TIMEOUT: Duration = Duration::from_secs(60);

fn stepped(closes_at: Option<Timestamp>) -> Value {
    let mut definition = definition(2);
    definition["publish_step"] = STEP.into();
    if let Some(closes_at) = closes_at {
        definition["closes_at"] = closes_at.to_string().into();
    }
    definition
}

async fn put(
    system: &System,
    budget: &str,
    definition: &Value,
) -> Result<e2e::response::HttpResponse> {
    let url = format!("{}/v1/budgets/{budget}", system.write_to(0));
    send(system.request(Method::PUT, url).json(definition)).await
}

async fn results_move_only_when_as_many_people_of_a_partition_as_the_step_have_changed(
    system: &System,
) -> Result<()> {
    let budget = unique("steps");
    let path = format!("/v1/budgets/{budget}/aggregate");
    system.define_with(&budget, &stepped(None)).await?;
    // Each person changes once: a partition shows every third.
    let mut by_partition = BTreeMap::<u32, u64>::new();
    for number in 0..PEOPLE {
        let person = format!("p-{number}");
        let receipt = system.submit(&budget, &person, &[2_500, 7_500]).await?;
        *by_partition.entry(receipt.partition).or_default() += 1;
        let shown: u64 = by_partition.values().map(|people| people - people % STEP).sum();
        let wait = [("consistency-token", &*receipt.token), ("prefer", "wait=10")];
        let found = system.get_with(&path, &wait).await?.expect(200)?.json()?;
        ensure!(found["people"] == shown, "{shown} people are to be shown: {found}");
        // The person's own answer is counted all the same.
        let own = format!("/v1/budgets/{budget}/submissions/{person}");
        let own = system.get_with(&own, &wait).await?.expect(200)?.json()?;
        ensure!(own["submission"] == "counted", "{own}");
    }
    ensure!(by_partition.values().any(|people| people % STEP > 0), "{by_partition:?}");
    let page = system.get(&format!("/budgets/{budget}/results")).await?.expect(200)?.text();
    ensure!(page.contains("id=\"steps\""), "{page}");
    audit_is_clean(system).await?;

    let closes_at = Timestamp::now() + SignedDuration::from_secs(1);
    put(system, &budget, &stepped(Some(closes_at))).await?.expect(200)?;
    eventually("the closing shows everything", FINAL_TIMEOUT, async || {
        let found = system.get(&path).await?.expect(200)?.json()?;
        ensure!(found["final"] == true && found["people"] == PEOPLE, "{found}");
        Ok(())
    })
    .await?;
    audit_is_clean(system).await
}

/// Runs an audit as a job, which compares what is stored and cached of all budgets with the log.
async fn audit_is_clean(system: &System) -> Result<()> {
    let url = format!("{}/v1/admin/audits", system.read_from(0));
    let job = send(system.request(Method::POST, url)).await?.expect(202)?.json()?;
    let path = format!("/v1/admin/jobs/{}", job["id"].as_str().context("no id")?);
    eventually("the audit is clean", JOB_TIMEOUT, async || {
        let job = system.get(&path).await?.expect(200)?.json()?;
        ensure!(job["verdict"] == "clean", "{job}");
        Ok(())
    })
    .await
}

async fn a_publish_step_is_frozen_by_the_first_submission(system: &System) -> Result<()> {
    let budget = unique("frozen-step");
    system.define_with(&budget, &stepped(None)).await?;
    let read = system.get(&format!("/v1/budgets/{budget}")).await?.expect(200)?.json()?;
    ensure!(read["publish_step"] == STEP, "{read}");
    // Until then it may change, and 1 is not a member of the answer.
    put(system, &budget, &definition(2)).await?.expect(200)?;
    let changed = put(system, &budget, &stepped(None)).await?.expect(200)?.json()?;
    ensure!(changed["publish_step"] == STEP, "{changed}");
    system.wait_until_known(&budget, Duration::from_secs(5)).await?;
    system.submit(&budget, "p", &[2_500, 7_500]).await?;
    put(system, &budget, &definition(2)).await?.problem(409, "budget-frozen")?;
    let mut wanted = stepped(None);
    wanted["publish_step"] = 1_001.into();
    let problem = put(system, &budget, &wanted).await?.problem(422, "invalid-budget")?;
    ensure!(problem["errors"][0]["pointer"] == "/publish_step", "{problem}");
    Ok(())
}
