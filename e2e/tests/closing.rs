//! A budget closes while people submit, on services whose clocks differ by many minutes, one of which is stalled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::audit;
use e2e::chaos::clock::Clocks;
use e2e::chaos::fault::Kind;
use e2e::process::Signal;
use e2e::response::send;
use e2e::scenario::scenario_within;
use e2e::stack::{Stack, StackBuilder};
use e2e::system::System;
use e2e::wait::eventually;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

const BUDGET: &str = "closing";
const CATEGORIES: usize = 2;
const SUBMITTERS_PER_INGEST: usize = 4;
const FINAL_TIMEOUT: Duration = Duration::from_secs(90);

fn definition(closes_at: Option<Timestamp>) -> Value {
    let mut definition = e2e::system::definition(CATEGORIES);
    definition["results"] = "live".into();
    if let Some(closes_at) = closes_at {
        definition["results"] = "after_close".into();
        definition["closes_at"] = closes_at.to_string().into();
    }
    definition
}

/// What became of a person's submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Refused,
    /// The answer says that it is unknown whether the submission counts.
    Unknown,
}

async fn submit(system: &System, ingest: usize, person: &str) -> Result<Outcome> {
    let url = format!("{}/v1/budgets/{BUDGET}/submissions", system.write_to(ingest));
    let body = json!({"person": person, "allocation": e2e::system::allocation(&[2_500, 7_500])});
    let response = send(system.request(Method::POST, url).json(&body)).await;
    // A stalled ingest: the client gives up, and never hears of the outcome.
    let Ok(response) = response else { return Ok(Outcome::Unknown) };
    match response.status {
        202 => Ok(Outcome::Accepted),
        409 | 503 if response.text().contains("unknown") => Ok(Outcome::Unknown),
        409 | 503 => Ok(Outcome::Refused),
        status => bail!("status {status}: {}", response.text()),
    }
}

/// Submits for ever new people through one ingest, until stopped, and for a while longer.
async fn submit_until(
    system: Arc<System>,
    ingest: usize,
    name: String,
    stop: Arc<AtomicBool>,
) -> Result<Vec<(String, Outcome)>> {
    let (mut outcomes, mut after) = (Vec::new(), 0);
    while after < 5 {
        after += u32::from(stop.load(Ordering::Relaxed));
        let person = format!("{name}-{}", outcomes.len());
        outcomes.push((person.clone(), submit(&system, ingest, &person).await?));
    }
    Ok(outcomes)
}

async fn aggregate(system: &System, api: usize) -> Result<Value> {
    let url = format!("{}/v1/budgets/{BUDGET}/aggregate", system.read_from(api));
    send(system.request(Method::GET, url)).await?.expect(200)?.json()
}

/// Waits until an api shows results, and checks that it shows none before they are final.
async fn wait_until_final(system: &System, api: usize) -> Result<Value> {
    let started = Instant::now();
    loop {
        let found = aggregate(system, api).await?;
        let is_shown = found.get("people").is_some();
        ensure!(is_shown == (found["final"] == true), "shown before it is final: {found}");
        if is_shown {
            return Ok(found);
        }
        ensure!(started.elapsed() < FINAL_TIMEOUT, "not final: {found}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn whatever_clocks_say_the_final_result_is_what_was_accepted_in_time() {
    scenario_within(Duration::from_secs(300), async || {
        let clocks = Clocks::new()?;
        let builder = StackBuilder {
            ingests: 2,
            processors: 2,
            apis: 2,
            overrides: clocks.overrides(),
            ..Stack::builder()
        };
        let stack = builder.start().await?;
        // The second ingest believes that the budget is open for long, the second api that it has closed already. The clock of
        // whoever owns partition 0 decides when the budget closes, so those of the processors are right.
        clocks.set(Kind::Ingest, &stack.ingests[1], -600).await?;
        clocks.set(Kind::Api, &stack.apis[1], 600).await?;
        let closes_at = Timestamp::now() + SignedDuration::from_secs(12);
        stack.system.define_with(BUDGET, &definition(Some(closes_at))).await?;

        let system = Arc::new(System::new(
            stack.ingests.iter().map(|it| it.url.clone()).collect(),
            stack.apis.iter().map(|it| it.url.clone()).collect(),
        )?);
        let stop = Arc::new(AtomicBool::new(false));
        let submitters: Vec<_> = (0..2 * SUBMITTERS_PER_INGEST)
            .map(|number| {
                let (system, stop) = (Arc::clone(&system), Arc::clone(&stop));
                tokio::spawn(submit_until(system, number % 2, format!("p{number}"), stop))
            })
            .collect();
        // The first ingest has requests under way, is stalled, and continues once the result is final.
        tokio::time::sleep(Duration::from_secs(4)).await;
        stack.ingests[0].process.signal(Signal::Stop)?;
        let (first, second) =
            tokio::try_join!(wait_until_final(&system, 0), wait_until_final(&system, 1))?;
        stack.ingests[0].process.signal(Signal::Continue)?;
        stop.store(true, Ordering::Relaxed);
        let mut outcomes = Vec::new();
        for submitter in submitters {
            outcomes.extend(submitter.await??);
        }

        let accepted: Vec<_> =
            outcomes.iter().filter(|(_, it)| *it == Outcome::Accepted).map(|(it, _)| it).collect();
        let unknown = outcomes.iter().filter(|(_, it)| *it == Outcome::Unknown).count();
        let people = first["people"].as_u64().context("no people")? as usize;
        ensure!(second["people"] == first["people"], "{first} {second}");
        ensure!(!accepted.is_empty() && outcomes.iter().any(|(_, it)| *it == Outcome::Refused));
        ensure!(
            (accepted.len()..=accepted.len() + unknown).contains(&people),
            "{} accepted, {unknown} unknown, {people} counted",
            accepted.len()
        );
        for person in &accepted {
            let path = format!("/v1/budgets/{BUDGET}/submissions/{person}");
            stack.system.get(&path).await?.expect(200)?;
        }
        audit::exact(&stack, BUDGET, CATEGORIES).await?;
        for api in [0, 1] {
            let now = aggregate(&system, api).await?;
            ensure!(
                now["people"] == first["people"] && now["version"] == first["version"],
                "{now}"
            );
        }

        // Reopened: what is accepted from now on counts, and the result is not final any more.
        stack.system.define_with(BUDGET, &definition(None)).await?;
        eventually("the budget is open again", FINAL_TIMEOUT, async || {
            // By the ingest with the right clock: with one that is behind, `libfaketime` keeps librdkafka busy.
            let outcome = submit(&system, 0, "again").await?;
            ensure!(outcome == Outcome::Accepted, "{outcome:?}");
            Ok(())
        })
        .await?;
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(totals.people as usize == people + 1, "{} people", totals.people);
        for api in [0, 1] {
            ensure!(aggregate(&system, api).await?.get("final").is_none(), "still final");
        }
        Ok(())
    });
}
