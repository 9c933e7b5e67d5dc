//! Rolling a loaded stack from the previous release to the current one, back, and forward again.
//!
//! | module | owns |
//! |---|---|
//! | [`step`] | the steps, in their order: a change that needs another step is one more line there |
//! | [`drill`] | carrying the steps out |
//!
//! Meanwhile people submit, definitions change, and every answer is checked. What one of the releases writes must be
//! folded, served and left unharmed by the other one.

pub mod drill;
pub mod step;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::audit;
use crate::gateway::Gateway;
use crate::load::Crowd;
use crate::operator::Operator;
use crate::patient::PatientClient;
use crate::stack::{Stack, StackBuilder};
use crate::system::System;
use crate::watch::{Tolerance, Watch};
use drill::{Drill, Releases};
use step::STEPS;

/// Timeout of the drill without the servers' start. Long, so that a busy machine does not decide the verdict.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(2_400);
const AUDIT_TIMEOUT: Duration = Duration::from_secs(120);
/// The budget of the load.
const BUDGET: &str = "roll";
/// The budget of the clients that retry once, in which each person submits once.
const PATIENT_BUDGET: &str = "roll-retried-once";
const CATEGORIES: usize = 10;
/// Submissions before the first step.
const ACKNOWLEDGED_BEFORE: u64 = 300;

/// Carries out all steps under load, and returns the verdict. `previous` is the folder of the previous release's
/// binaries.
///
/// # Errors
/// When a step fails, an answer is wrong, a request fails twice, or anything is lost or counted wrongly.
pub async fn run(previous: &Path) -> Result<String> {
    let releases = Releases::new(previous)?;
    let builder = StackBuilder {
        ingests: 2,
        processors: 2,
        apis: 2,
        partitions: 6,
        // Longer than a processor is suspended.
        session_timeout_ms: 20_000,
        bin_dir: Some(releases.previous().to_owned()),
        ..Stack::builder()
    };
    let stack = builder.start().await.context("starting the previous release")?;
    for budget in [BUDGET, PATIENT_BUDGET] {
        stack.system.define(budget, CATEGORIES).await?;
    }
    let gateway = Gateway::start(&stack).await?;
    let clients = System::new(vec![gateway.url.clone()], vec![gateway.url.clone()])?;
    let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
    let submitting = PatientClient::start(&clients, PATIENT_BUDGET);
    let reading = PatientClient::start_reading(&clients, BUDGET);
    let watches = [
        Watch::start(&stack.system, BUDGET, Tolerance::Unavailable),
        Watch::start_growing(&stack.system, PATIENT_BUDGET, Tolerance::Unavailable),
    ];
    load.wait_for_acknowledgements(ACKNOWLEDGED_BEFORE).await?;

    let mut drill = Drill::new(stack, releases, BUDGET);
    for (number, step) in STEPS.iter().enumerate() {
        drill
            .carry_out(step, &load)
            .await
            .with_context(|| format!("step {number} of {}, {step:?}", STEPS.len()))?;
    }

    let mut stack = drill.into_stack();
    let (submitted, read) = (submitting.stop().await?, reading.stop().await?);
    let ledger = load.stop().await?;
    for watch in watches {
        watch.stop().await?;
    }
    ledger.verify_counted(&stack, BUDGET, CATEGORIES).await?;
    let people = audit::exact(&stack, PATIENT_BUDGET, CATEGORIES).await?.people;
    ensure!(people == submitted.succeeded, "{people} people of {submitted:?}");
    let dead_letters = stack.kafka.ends(&format!("{}.dead-letters", stack.topic)).await?;
    ensure!(dead_letters.iter().sum::<u64>() == 0, "dead letters: {dead_letters:?}");
    let alarms = crate::chaos::judgement::alarms(stack.dir())?;
    ensure!(alarms.is_empty(), "{}", alarms.join("\n"));
    let exits = crate::chaos::nemesis::unexpected_exits(stack.services())?;
    ensure!(exits.is_empty(), "{}", exits.join("\n"));
    let apis: Vec<String> = stack.apis.iter().map(|api| api.url.clone()).collect();
    let mut command = vec!["audit"];
    command.extend(apis.iter().flat_map(|api| ["--api", api.as_str()]));
    let audited = Operator::for_stack(&stack)?.run(&command, AUDIT_TIMEOUT).await?;
    ensure!(audited.contains(" differences=0 unchecked=0 "), "{audited}");

    let mut line = "ROLL".to_owned();
    write!(
        line,
        " steps={} acked={} retries={} submitted={} submitted_retried={} read={} read_retried={} dead=0 differences=0",
        STEPS.len(),
        ledger.len(),
        ledger.retries,
        submitted.succeeded,
        submitted.retried,
        read.succeeded,
        read.retried,
    )?;
    Ok(line)
}
