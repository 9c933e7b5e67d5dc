//! How long a partition stands still when its owner dies: from the new owner's claim to its first new record.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::catch_up::{empty_stack, rows_follow};
use super::records::fill;
use super::report::{Row, say, thousands};
use crate::stack::Stack;
use crate::wait::eventually;

const PEOPLE: u64 = 500_000;
const UNSAVED: u64 = 20_000;
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures it on one partition with half a million people, while records go on coming.
///
/// # Errors
/// When it cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let mut stack = empty_stack(1).await?;
    say(format!("writing {} people into one partition", thousands(PEOPLE as f64)));
    fill(&stack.kafka, &stack.topic, 1, 0..PEOPLE, PEOPLE).await?;
    stack.add_processor().await?;
    stack.caught_up(PATIENCE).await?;
    rows_follow(&stack.tables().await?, &stack.kafka.ends(&stack.topic).await?).await?;
    // The first time the servers read rows as they never did before; what counts is how they do it once they know how.
    let mut took = Vec::new();
    let mut next = PEOPLE;
    for _ in 0..ROUNDS {
        took.push(take_over(&mut stack, &mut next).await?);
    }
    stack.caught_up(PATIENCE).await?;
    let (people, _) = stack.tables().await?.sums(super::records::BUDGET, 1).await?;
    ensure!(people == PEOPLE, "{people} people are counted");
    stack.processors.clear();
    stack.kafka.delete_topic(&stack.topic).await?;
    let (claim_to_record, _) = took[ROUNDS - 1];
    let all = |of: fn(&(f64, f64)) -> f64| {
        took.iter().map(|round| format!("{:.1}", of(round))).collect::<Vec<_>>().join(", ")
    };
    Ok(vec![
        Row::below(
            "take-over of 500,000 people, claim to first new record",
            claim_to_record,
            3.0,
            "s",
        ),
        Row::told("  all of them, one after the other", format!("{} s", all(|round| round.0))),
        Row::told(
            "  from the kill on, session timeout included",
            format!("{} s", all(|round| round.1)),
        ),
    ])
}

/// Kills the owner of the one partition. Seconds from the heir's claim, and from the kill, to its first new record.
async fn take_over(stack: &mut Stack, next: &mut u64) -> Result<(f64, f64)> {
    stack.add_processor().await?;
    stack.all_owned().await?;
    let owner = stack
        .owned()
        .await
        .iter()
        .position(|owned| *owned > 0)
        .context("nobody owns the partition")?;
    // Unsaved changes of people's rows, as there always are under load.
    fill(&stack.kafka, &stack.topic, 1, *next..*next + UNSAVED, PEOPLE).await?;
    *next += UNSAVED;

    say("the owner is killed");
    let killed = Instant::now();
    stack.processors.remove(owner).process.kill()?;
    let claim_to_record = eventually("the heir folds a new record", PATIENCE, async || {
        fill(&stack.kafka, &stack.topic, 1, *next..*next + 1, PEOPLE).await?;
        *next += 1;
        first_record_after_claim(stack)
    })
    .await?;
    let silence = killed.elapsed().as_secs_f64();
    stack.caught_up(PATIENCE).await?;
    Ok((claim_to_record, silence))
}

/// Seconds, as the new owner's log says.
fn first_record_after_claim(stack: &Stack) -> Result<f64> {
    let log = stack.processors[0].process.log()?;
    let line = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["message"] == "first new record since the claim")
        .context("the heir has not said anything yet")?;
    Ok(line["elapsed_ms"].as_f64().context("no elapsed_ms")? / 1_000.0)
}
