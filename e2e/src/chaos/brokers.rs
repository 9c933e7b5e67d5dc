//! A cluster of three brokers: no acknowledged submission is lost while brokers are killed, stopped and restarted.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::nemesis::blocking;
use super::{CATEGORIES, PARTITIONS};
use crate::load::Crowd;
use crate::own_servers::{BROKERS, OwnServers};
use crate::patient::{self, PatientClient};
use crate::stack::{Stack, StackBuilder};
use crate::wait::eventually;
use crate::watch::{Tolerance, Watch};

/// Timeout of the run, with the start of the servers and nine restarts of a broker.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(1_800);
/// Timeout for a restarted broker to have every record again.
const IN_SYNC_TIMEOUT: Duration = Duration::from_secs(180);
/// Timeout for acknowledging one submission. Nothing is accepted while two brokers start, which takes a minute on a
/// busy machine.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(300);
const BUDGET: &str = "brokers";
/// The budget of the client that retries once.
const PATIENT_BUDGET: &str = "brokers-retried-once";
const LEADER_KILLS: usize = 5;
/// Submissions between two faults.
const ACKNOWLEDGED_BETWEEN: u64 = 200;

/// Runs all faults under load.
///
/// # Errors
/// When a submission is lost, or a client that retries once gets a 5xx while the brokers are restarted one after the
/// other.
pub async fn run() -> Result<String> {
    let own = tokio::task::spawn_blocking(OwnServers::shared_with_three_brokers).await??;
    let mut stack = start(own).await?;
    for budget in [BUDGET, PATIENT_BUDGET] {
        stack.system.define(budget, CATEGORIES).await?;
    }
    let topic = stack.topic.clone();
    let acknowledge_timeout = ACKNOWLEDGE_TIMEOUT;
    let crowd = Crowd { acknowledge_timeout, ..Crowd::new(BUDGET, CATEGORIES) };
    let load = crowd.start(&stack.system);
    let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
    load.wait_for_acknowledgements(ACKNOWLEDGED_BETWEEN).await?;
    let mut line = "CHAOS-BROKERS".to_owned();

    let mut killed = Vec::new();
    for _ in 0..LEADER_KILLS {
        let leader = stack.kafka.busiest_leader(&topic).await?;
        let broker = *BROKERS.get(leader - 1).context("an unknown broker leads")?;
        let started = Instant::now();
        blocking(move || own.kill(broker)).await?;
        load.wait_for_acknowledgements(ACKNOWLEDGED_BETWEEN).await?;
        killed.push(format!("{leader}:{:.1}s", started.elapsed().as_secs_f64()));
        blocking(|| own.start_missing()).await?;
        stack.kafka.wait_until_in_sync(&topic, 3, IN_SYNC_TIMEOUT).await?;
    }
    write!(line, " leaders_killed={}", killed.join(","))?;

    // Two of three are gone: a record could not reach a majority, so nothing may be accepted.
    for broker in [BROKERS[1], BROKERS[2]] {
        blocking(move || own.kill(broker)).await?;
    }
    let refused = patient::submit(&stack.system, PATIENT_BUDGET, 0, 0).await?;
    ensure!(refused.status == 503, "{} with one of three brokers", refused.status);
    blocking(|| own.start_missing()).await?;
    stack.kafka.wait_until_in_sync(&topic, 3, IN_SYNC_TIMEOUT).await?;
    load.wait_for_acknowledgements(ACKNOWLEDGED_BETWEEN).await?;

    wait_until_accepting(&mut stack).await?;
    let patient = PatientClient::start(&stack.system, PATIENT_BUDGET);
    for broker in BROKERS {
        blocking(move || own.terminate(broker)).await?;
        load.wait_for_acknowledgements(ACKNOWLEDGED_BETWEEN).await?;
        blocking(|| own.start_missing()).await?;
        stack.kafka.wait_until_in_sync(&topic, 3, IN_SYNC_TIMEOUT).await?;
        wait_until_accepting(&mut stack).await?;
    }
    let submissions = patient.stop().await?;
    let ledger = load.stop().await?;
    watch.stop().await?;
    ledger.verify_counted(&stack, BUDGET, CATEGORIES).await?;
    let people = stack.tables().await?.sums(PATIENT_BUDGET, stack.partitions).await?.0;
    ensure!(
        people == submissions.succeeded || people == submissions.succeeded + 1,
        "{people} people of {submissions:?}"
    );
    write!(
        line,
        " acked={} retries={} rolled_accepted={} rolled_retried={}",
        ledger.len(),
        ledger.retries,
        submissions.succeeded,
        submissions.retried
    )?;
    Ok(line)
}

/// Waits until no ingest refuses a partition: before the next broker is stopped, as an operator does.
async fn wait_until_accepting(stack: &mut Stack) -> Result<()> {
    for ingest in &mut stack.ingests {
        eventually("no partition is refused", IN_SYNC_TIMEOUT, async || {
            let refused = ingest.metric("allocator_ingest_partition_refused{").await?;
            ensure!(refused == 0.0, "{refused} partitions are refused");
            Ok(())
        })
        .await?;
        ingest.ready().await?;
    }
    Ok(())
}

async fn start(own: &OwnServers) -> Result<Stack> {
    let builder = StackBuilder {
        ingests: 2,
        processors: 2,
        apis: 1,
        partitions: PARTITIONS,
        settings: vec!["kafka.replication_factor=3".to_owned()],
        servers: Some(own.servers.clone()),
        ..Stack::builder()
    };
    builder.start().await
}
