//! The embedded default on a disk that fills up, twice, the second time with a kill while it is full: submissions are
//! refused meanwhile, reads go on, and everything is right afterwards.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::Method;

use super::aftermath::{alarms, people_are_shown};
use super::ask::{Saying, Turn, ask};
use super::history::{History, Outcome};
use super::nemesis::unasked_exits;
use super::small_disk::SmallDisk;
use super::verdict::Verdict;
use super::workload::Workload;
use super::{BUDGET, CATEGORIES, JOINS, define, embedded_log, watches};
use crate::answer::send;
use crate::embedded::Embedded;
use crate::load::uuid_bits;
use crate::oracle::Oracle;
use crate::record::{mix_128, shares};
use crate::scenario;
use crate::wait::eventually;

/// A budget of nobody but those who ask whether the disk is full.
const PROBED: &str = "disk-probe";
const SEED: u64 = 1;
/// So many are acknowledged before, between and after the faults.
const MEANWHILE: u64 = 200;
const NOTICED: Duration = Duration::from_secs(20);

/// Fills the disk under load and judges.
///
/// # Errors
/// When a fault does not come about, a file system cannot be mounted, or the verdict is not right.
pub async fn full() -> Result<Verdict> {
    let disk = SmallDisk::mount()?;
    let logs = scenario::new_dir("embedded")?;
    let mut embedded = Embedded::start_on(&logs, disk.dir().join("data")).await?;
    define(&embedded.system).await?;
    embedded.system.define(PROBED, CATEGORIES).await?;
    let watches = watches(&embedded.system);
    let workload = Workload::start(&embedded.system, SEED);
    workload.goes_on_for(MEANWHILE).await?;

    let mut verdict = Verdict { run: "CHAOS-DISK".to_owned(), ..Verdict::default() };
    let (mut probes, mut peace_since) = (History::default(), Instant::now());
    for killed in [false, true] {
        disk.fill()?;
        is_full(&embedded, &mut probes).await?;
        *verdict.faults.entry("disk_full").or_default() += 1;
        verdict.note_exits(unasked_exits([&mut embedded.service])?);
        if killed {
            embedded.service.process.kill()?;
            *verdict.faults.entry("kill").or_default() += 1;
        }
        disk.free()?;
        if killed {
            embedded.service.start_again()?;
        }
        peace_since = Instant::now();
        workload.goes_on_for(MEANWHILE).await?;
    }

    let mut history = workload.stop().await?;
    history.add(probes);
    let log = embedded_log::read(&embedded.data)?;
    let partitions = embedded_log::partitions(&embedded.data)?;
    let oracle = Oracle::of(&log, partitions);
    compare(&embedded, &oracle, &mut verdict).await;
    verdict.recovered = peace_since.elapsed();
    for watch in watches {
        verdict.note_seen(watch.seen().await?);
    }
    if let Err(error) = people_are_shown(&embedded.system, &history).await {
        verdict.wrong.push(format!("{error:#}"));
    }
    verdict.note_exits(unasked_exits([&mut embedded.service])?);
    // The same after a restart in peace, from disk alone.
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
    verdict.require_right()?;
    Ok(verdict)
}

/// Waits until submissions are refused, and reads.
async fn is_full(embedded: &Embedded, probes: &mut History) -> Result<()> {
    eventually("submissions are refused", NOTICED, async || {
        let number = probes.attempts.len() as u64;
        let says = Saying::Allocate(shares(number, CATEGORIES));
        let submission = uuid_bits(mix_128(number));
        let turn = Turn { budget: PROBED, person: number, submission, says };
        let outcome = ask(&embedded.system, &turn, embedded.system.write_to(0), probes).await;
        ensure!(outcome == Outcome::Refused, "one was {outcome:?}");
        Ok(())
    })
    .await?;
    let url = format!("{}/v1/budgets/{BUDGET}/aggregate", embedded.system.read_from(0));
    send(embedded.system.request(Method::GET, url)).await?.expect(200)?;
    Ok(())
}

/// Compares what is shown with what the log says.
async fn compare(embedded: &Embedded, oracle: &Oracle, verdict: &mut Verdict) {
    for budget in [BUDGET, JOINS, PROBED] {
        let expected = oracle.totals(budget, CATEGORIES);
        if let Err(error) = embedded.system.shows(budget, &expected, NOTICED).await {
            verdict.oracle_differences += 1;
            verdict.wrong.push(format!("{error:#}"));
        }
    }
}
