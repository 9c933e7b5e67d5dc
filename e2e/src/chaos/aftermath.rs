//! After the last fault: everything must come right by itself, within a bound, and then be what the log says.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::Value;

use super::history::History;
use super::nemesis::unasked_exits;
use super::verdict::Verdict;
use super::workload::Workload;
use super::{BUDGET, CATEGORIES, JOINS};
use crate::answer::send;
use crate::audit::Audit;
use crate::stack::Stack;
use crate::system::System;
use crate::wait::eventually;
use crate::watch::Watch;

/// How long recovery may take.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long copies may take to follow, once the totals are right.
const FOLLOW: Duration = Duration::from_secs(15);
/// Of so many people the API is asked.
const ASKED: usize = 60;
/// What no log of a service may say: that a hand is needed, or that there is a bug. Panics are told in both forms of
/// a line, or by Rust itself.
const ALARMS: [&str; 6] = [
    "the partition is halted",
    "an operator is needed",
    "totals that cannot be",
    "\"target\":\"panic\"",
    "ERROR panic:",
    "panicked at",
];

/// Waits for quiet and judges. There has been no fault since `peace_since`.
///
/// # Errors
/// When something cannot be read.
pub async fn judge(
    stack: &mut Stack,
    workload: Workload,
    watches: [Watch; 2],
    peace_since: Instant,
) -> Result<Verdict> {
    let history = workload.stop().await?;
    for service in stack.services() {
        service.ready().await?;
    }
    stack.all_owned().await?;
    stack.caught_up(RECOVERY).await?;
    let mut audit = Audit::of(stack).await?;
    for budget in [BUDGET, JOINS] {
        audit.compare(stack, budget, CATEGORIES, FOLLOW).await;
    }
    let recovered = peace_since.elapsed();
    let mut verdict = Verdict {
        applied: audit.tally.applied,
        duplicates: audit.tally.duplicates,
        dead_lettered: audit.tally.dead_lettered,
        oracle_differences: audit.differences.len() as u64,
        recovered,
        wrong: audit.differences,
        ..Verdict::default()
    };
    if recovered > RECOVERY {
        verdict.wrong.push(format!("it took {recovered:?} to recover"));
    }
    verdict.note_history(&history, &audit.log);
    for watch in watches {
        verdict.note_seen(watch.seen().await?);
    }
    verdict.wrong.extend(alarms(stack.dir())?);
    if let Err(error) = people_are_shown(&stack.system, &history).await {
        verdict.wrong.push(format!("{error:#}"));
    }
    verdict.note_exits(unasked_exits(stack.services())?);
    Ok(verdict)
}

/// Lines that may not be there, of every log in a folder: of those, too, whose process has long been gone.
pub(super) fn alarms(dir: &Path) -> Result<Vec<String>> {
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

/// Whether each API shows of some people what they said last, as far as that is certain.
pub(super) async fn people_are_shown(system: &System, history: &History) -> Result<()> {
    for read in &system.reads {
        for (person, said) in history.certain().take(ASKED) {
            let url = format!("{read}/v1/budgets/{BUDGET}/submissions/p-{person}");
            eventually(&format!("p-{person} is shown"), FOLLOW, async || {
                let answer = send(system.request(Method::GET, url.clone())).await?;
                let Some(said) = said else {
                    return answer.expect(404).map(|_| ());
                };
                let shown = basis_points(&answer.expect(200)?.json()?)?;
                ensure!(shown == *said, "shown are {shown:?}, said was {said:?}");
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}

fn basis_points(person: &Value) -> Result<Vec<u32>> {
    (0..CATEGORIES)
        .map(|place| {
            let percent = person["allocation"][format!("c{place}")].as_f64();
            let percent = percent.with_context(|| format!("no share of c{place} in {person}"))?;
            Ok((percent * 100.0).round() as u32)
        })
        .collect()
}
