//! After the last fault: everything must come right by itself, within a bound, and then be what the log says.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::Value;

use super::history::{History, Outcome};
use super::verdict::Verdict;
use super::workload::Workload;
use super::{BUDGET, CATEGORIES};
use crate::audit;
use crate::stack::Stack;
use crate::system::{System, send};
use crate::wait::eventually;
use crate::watch::Watch;

/// How long recovery may take.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long copies may take to follow, once the totals are right.
const FOLLOW: Duration = Duration::from_secs(15);
/// Of so many people the API is asked.
const ASKED: usize = 60;
/// What no log of a service may say: that a hand is needed, or that there is a bug.
const ALARMS: [&str; 4] = [
    "the partition is halted",
    "an operator is needed",
    "\"target\":\"panic\"",
    "totals that cannot be",
];

/// Waits for quiet and judges.
///
/// # Errors
/// When something cannot be read.
pub async fn judge(stack: &mut Stack, workload: Workload, watch: Watch) -> Result<Verdict> {
    let healed = Instant::now();
    let history = workload.stop().await?;
    for service in stack.services() {
        service.ready().await?;
    }
    stack.all_owned().await?;
    stack.caught_up(RECOVERY).await?;
    let audited = audit::compare(stack, BUDGET, CATEGORIES, FOLLOW).await?;
    let recovered = healed.elapsed();
    let seen = watch.seen().await?;
    let compared = history.compare(&audited.log);

    let mut wrong = audited.differences.clone();
    wrong.extend(compared.examples);
    wrong.extend(seen.went_back.iter().take(10).cloned());
    wrong.extend(seen.wrong.into_iter().take(10));
    wrong.extend(history.wrong.iter().take(10).cloned());
    wrong.extend(alarms(stack)?);
    if recovered > RECOVERY {
        wrong.push(format!("it took {recovered:?} to recover"));
    }
    if let Err(error) = people_are_shown(&stack.system, &history).await {
        wrong.push(format!("{error:#}"));
    }
    Ok(Verdict {
        acknowledged: history.count(|outcome| matches!(outcome, Outcome::Acknowledged { .. })),
        unknown: history.count(|outcome| outcome == Outcome::Unknown),
        applied: audited.tally.applied,
        duplicates: audited.tally.duplicates,
        dead_lettered: audited.tally.dead_lettered,
        lost: compared.lost,
        doubled: compared.doubled,
        oracle_differences: audited.differences.len() as u64,
        went_back: seen.went_back.len() as u64,
        recovered,
        wrong,
        ..Verdict::default()
    })
}

/// Lines of the services' logs that may not be there.
fn alarms(stack: &mut Stack) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for service in stack.services() {
        let log = service.process.log()?;
        let alarming = |line: &&str| ALARMS.iter().any(|alarm| line.contains(alarm));
        let name = service.name();
        found.extend(log.lines().filter(alarming).take(3).map(|line| format!("{name}: {line}")));
    }
    Ok(found)
}

/// Whether each API shows of some people what they said last, as far as that is certain.
async fn people_are_shown(system: &System, history: &History) -> Result<()> {
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
