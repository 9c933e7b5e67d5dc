//! The embedded default on a disk that fills up twice. The second time the process is killed while the disk is full.
//!
//! Submissions are rejected meanwhile, reads continue, and everything matches the log afterwards.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::Method;

use super::history::{History, Outcome};
use super::judgement::{alarms, check_people_shown};
use super::nemesis::unexpected_exits;
use super::request::{ClientRequest, Content, send_once};
use super::small_disk::SmallDisk;
use super::verdict::Verdict;
use super::workload::Workload;
use super::{BUDGET, CATEGORIES, GROWING_BUDGET, define, embedded_log, start_watches};
use crate::embedded::Embedded;
use crate::load::uuid_bits;
use crate::oracle::Oracle;
use crate::record::{mix_128, shares};
use crate::response::send;
use crate::scenario;
use crate::wait::eventually;

/// The budget of the probes for a full disk.
const PROBE_BUDGET: &str = "disk-probe";
const SEED: u64 = 1;
/// Submissions that are acknowledged before, between and after the faults.
const ACKNOWLEDGEMENTS: u64 = 200;
const EFFECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Fills the disk under load and returns the verdict.
///
/// # Errors
/// When a fault does not take effect, the file system cannot be mounted, or the verdict is a failure.
pub async fn run_full_disk() -> Result<Verdict> {
    let disk = SmallDisk::mount()?;
    let logs = scenario::new_dir("embedded")?;
    let mut embedded = Embedded::start_on(&logs, disk.dir().join("data")).await?;
    define(&embedded.system).await?;
    embedded.system.define(PROBE_BUDGET, CATEGORIES).await?;
    let watches = start_watches(&embedded.system);
    let workload = Workload::start(&embedded.system, SEED);
    workload.wait_for_acknowledgements(ACKNOWLEDGEMENTS).await?;

    let mut verdict = Verdict { run: "CHAOS-DISK".to_owned(), ..Verdict::default() };
    let (mut probes, mut last_fault_ended) = (History::default(), Instant::now());
    for killed in [false, true] {
        disk.fill()?;
        wait_until_full(&embedded, &mut probes).await?;
        *verdict.faults.entry("disk_full").or_default() += 1;
        verdict.note_exits(unexpected_exits([&mut embedded.service])?);
        if killed {
            embedded.service.process.kill()?;
            *verdict.faults.entry("kill").or_default() += 1;
        }
        disk.free()?;
        if killed {
            embedded.service.respawn()?;
        }
        last_fault_ended = Instant::now();
        workload.wait_for_acknowledgements(ACKNOWLEDGEMENTS).await?;
    }

    let mut history = workload.stop().await?;
    history.merge(probes);
    let log = embedded_log::read(&embedded.data)?;
    let partitions = embedded_log::partitions(&embedded.data)?;
    let oracle = Oracle::from_log(&log, partitions);
    compare(&embedded, &oracle, &mut verdict).await;
    verdict.recovered = last_fault_ended.elapsed();
    for watch in watches {
        verdict.note_observations(watch.finish().await?);
    }
    if let Err(error) = check_people_shown(&embedded.system, &history).await {
        verdict.wrong.push(format!("{error:#}"));
    }
    verdict.note_exits(unexpected_exits([&mut embedded.service])?);
    // The totals must be the same after a restart from disk.
    embedded.service.process.kill()?;
    embedded.service.restart().await?;
    compare(&embedded, &oracle, &mut verdict).await;

    verdict.note_history(&history, &log);
    for tally in (0..partitions).map(|partition| oracle.tally(partition)) {
        verdict.applied += tally.applied;
        verdict.duplicates += tally.duplicates;
        verdict.dead_lettered += tally.dead_lettered;
    }
    verdict.wrong.extend(alarms(&logs)?);
    verdict.require_success()?;
    Ok(verdict)
}

/// Waits until submissions are rejected and checks that reads still work.
async fn wait_until_full(embedded: &Embedded, probes: &mut History) -> Result<()> {
    eventually("submissions are rejected", EFFECT_TIMEOUT, async || {
        let number = probes.attempts.len() as u64;
        let request = ClientRequest {
            budget: PROBE_BUDGET,
            person: number,
            submission: uuid_bits(mix_128(number)),
            content: Content::Allocate(shares(number, CATEGORIES)),
        };
        let ingest = embedded.system.write_to(0);
        let outcome = send_once(&embedded.system, &request, ingest, probes).await;
        ensure!(outcome == Outcome::Rejected, "a submission was {outcome:?}");
        Ok(())
    })
    .await?;
    let url = format!("{}/v1/budgets/{BUDGET}/aggregate", embedded.system.read_from(0));
    send(embedded.system.request(Method::GET, url)).await?.expect(200)?;
    Ok(())
}

/// Compares the shown totals with the log.
async fn compare(embedded: &Embedded, oracle: &Oracle, verdict: &mut Verdict) {
    for budget in [BUDGET, GROWING_BUDGET, PROBE_BUDGET] {
        let expected = oracle.totals(budget, CATEGORIES);
        if let Err(error) =
            embedded.system.wait_until_shown(budget, &expected, EFFECT_TIMEOUT).await
        {
            verdict.oracle_differences += 1;
            verdict.wrong.push(format!("{error:#}"));
        }
    }
}
