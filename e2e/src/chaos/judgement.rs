//! The judgement after the last fault: the stack must recover by itself in time, and everything must match the log.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::Value;

use super::history::History;
use super::nemesis::unexpected_exits;
use super::verdict::Verdict;
use super::workload::Workload;
use super::{BUDGET, CATEGORIES, GROWING_BUDGET};
use crate::audit::Audit;
use crate::response::send;
use crate::stack::Stack;
use crate::system::System;
use crate::wait::eventually;
use crate::watch::Watch;

/// Timeout of the recovery.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout for cache, APIs and person rows to follow the committed totals.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(15);
/// Number of people that are read back from the API.
const SAMPLED_PEOPLE: usize = 60;
/// Log texts that report a bug or a needed operator action. Panics appear in two log formats or on standard error.
const ALARMS: [&str; 5] = [
    "partition halted",
    "stored totals are damaged",
    "\"target\":\"panic\"",
    "ERROR panic:",
    "panicked at",
];

/// Waits for the recovery and checks everything. The last fault ended at `last_fault_ended`.
///
/// # Errors
/// When a backend cannot be read.
pub async fn judge(
    stack: &mut Stack,
    workload: Workload,
    watches: [Watch; 2],
    last_fault_ended: Instant,
) -> Result<Verdict> {
    let history = workload.stop().await?;
    for service in stack.services() {
        service.ready().await?;
    }
    stack.wait_until_all_owned().await?;
    stack.wait_until_caught_up(RECOVERY_TIMEOUT).await?;
    let mut audit = Audit::new(stack).await?;
    for budget in [BUDGET, GROWING_BUDGET] {
        audit.compare(stack, budget, CATEGORIES, PROPAGATION_TIMEOUT).await;
    }
    let recovered = last_fault_ended.elapsed();
    let mut verdict = Verdict {
        applied: audit.tally.applied,
        duplicates: audit.tally.duplicates,
        dead_lettered: audit.tally.dead_lettered,
        oracle_differences: audit.differences.len() as u64,
        recovered,
        wrong: audit.differences,
        ..Verdict::default()
    };
    if recovered > RECOVERY_TIMEOUT {
        verdict.wrong.push(format!("the recovery took {recovered:?}"));
    }
    verdict.note_history(&history, &audit.log);
    for watch in watches {
        verdict.note_observations(watch.finish().await?);
    }
    verdict.wrong.extend(alarms(stack.dir())?);
    if let Err(error) = check_people_shown(&stack.system, &history).await {
        verdict.wrong.push(format!("{error:#}"));
    }
    verdict.note_exits(unexpected_exits(stack.services())?);
    Ok(verdict)
}

/// Finds alarming lines in all logs of a directory, including those of exited processes.
///
/// # Errors
/// When a log cannot be read.
pub fn alarms(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        if path.extension() != Some(OsStr::new("log")) {
            continue;
        }
        let log = fs::read(&path)?;
        let log = String::from_utf8_lossy(&log);
        let alarming = |line: &&str| ALARMS.iter().any(|alarm| line.contains(alarm));
        let name = path.file_stem().unwrap_or_default().display();
        found.extend(log.lines().filter(alarming).take(3).map(|line| format!("{name}: {line}")));
    }
    Ok(found)
}

/// Checks that each API returns the last allocation of a sample of people.
pub(super) async fn check_people_shown(system: &System, history: &History) -> Result<()> {
    for read in &system.reads {
        for (person, expected) in history.certain().take(SAMPLED_PEOPLE) {
            let url = format!("{read}/v1/budgets/{BUDGET}/submissions/p-{person}");
            eventually(&format!("p-{person} is shown"), PROPAGATION_TIMEOUT, async || {
                let response = send(system.request(Method::GET, url.clone())).await?;
                let Some(expected) = expected else {
                    return response.expect(404).map(|_| ());
                };
                let shown = basis_points(&response.expect(200)?.json()?)?;
                ensure!(shown == *expected, "shown: {shown:?}, expected: {expected:?}");
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}

fn basis_points(person: &Value) -> Result<Vec<u32>> {
    (0..CATEGORIES)
        .map(|index| {
            let percent = person["allocation"][format!("c{index}")].as_f64();
            let percent = percent.with_context(|| format!("no share of c{index} in {person}"))?;
            Ok((percent * 100.0).round() as u32)
        })
        .collect()
}
