//! The takeover time of a partition whose owner is killed: from the kill, and from when the new owner begins to read
//! people, to its first new record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;

use super::catch_up::{empty_stack, wait_for_person_rows};
use super::limits::{AFTER_KILL_S, TAKE_OVER_S};
use super::records::{fill, write_until};
use super::report::{Row, log_progress, thousands};
use crate::stack::Stack;
use crate::wait::eventually;

const PEOPLE: u64 = 500_000;
const UNWRITTEN_ROWS: u64 = 20_000;
const ROUNDS: usize = 3;
/// Between two records that are written all the time: the resolution of the figure.
const WRITE_PAUSE: Duration = Duration::from_millis(10);
/// The message of the log line that an owner writes once.
const FIRST_RECORD: &str = "first new record since the claim";
const TIMEOUT: Duration = Duration::from_secs(120);

/// Measures the takeover of one partition with half a million people under continuous writes.
///
/// # Errors
/// When the figure cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let mut stack = empty_stack(1).await?;
    log_progress(format!("writing {} people into one partition", thousands(PEOPLE as f64)));
    fill(&stack.kafka, &stack.topic, 1, 0..PEOPLE, PEOPLE).await?;
    stack.add_processor().await?;
    stack.wait_until_caught_up(TIMEOUT).await?;
    wait_for_person_rows(&stack.tables().await?, &stack.kafka.ends(&stack.topic).await?).await?;
    // The first rounds warm the servers up. Only the last one counts.
    let mut took = Vec::new();
    let mut next = PEOPLE;
    for _ in 0..ROUNDS {
        took.push(takeover(&mut stack, &mut next).await?);
    }
    stack.wait_until_caught_up(TIMEOUT).await?;
    let (people, _) = stack.tables().await?.sums(super::records::BUDGET, 1).await?;
    ensure!(people == PEOPLE, "{people} people are counted");
    stack.processors.clear();
    stack.kafka.delete_topic(&stack.topic).await?;
    let (takeover_to_record, since_kill) = took[ROUNDS - 1];
    let all = |seconds: fn(&(f64, f64)) -> f64| {
        took.iter().map(|round| format!("{:.1}", seconds(round))).collect::<Vec<_>>().join(", ")
    };
    Ok(vec![
        Row::at_most(
            "takeover of 500,000 people, from reading them to the first new record",
            takeover_to_record,
            TAKE_OVER_S,
            "s",
        ),
        Row::info("  all rounds", format!("{} s", all(|round| round.0))),
        Row::at_most(
            "  from the kill, including the session timeout of 6 s",
            since_kill,
            AFTER_KILL_S,
            "s",
        ),
        Row::info("  all rounds", format!("{} s", all(|round| round.1))),
    ])
}

/// Kills the owner of the partition. Returns the seconds from the beginning of the takeover, and from the kill, to its
/// first new record.
async fn takeover(stack: &mut Stack, next: &mut u64) -> Result<(f64, f64)> {
    stack.add_processor().await?;
    stack.wait_until_all_owned().await?;
    let owner = stack
        .owned()
        .await
        .iter()
        .position(|owned| *owned > 0)
        .context("the partition has no owner")?;
    // Person rows that are not written yet, as always under load.
    fill(&stack.kafka, &stack.topic, 1, *next..*next + UNWRITTEN_ROWS, PEOPLE).await?;
    *next += UNWRITTEN_ROWS;

    log_progress("killing the owner");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (kafka, topic, first) = (stack.kafka.clone(), stack.topic.clone(), *next);
        let stop = Arc::clone(&stop);
        tokio::task::spawn_blocking(move || {
            write_until(&kafka, &topic, first, PEOPLE, WRITE_PAUSE, &stop)
        })
    };
    let killed_at = Timestamp::now();
    stack.processors.remove(owner).process.kill()?;
    let first_record = eventually("the new owner folds a new record", TIMEOUT, async || {
        first_record_of_owner(stack)
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    *next = writer.await??;
    let (folded_at, since_takeover) = first_record?;
    stack.wait_until_caught_up(TIMEOUT).await?;
    Ok((since_takeover, folded_at.duration_since(killed_at).as_secs_f64()))
}

/// Reads from the new owner's log when it has folded the first new record, and how many seconds after the takeover began.
fn first_record_of_owner(stack: &Stack) -> Result<(Timestamp, f64)> {
    let log = stack.processors[0].process.log()?;
    let line = log
        .lines()
        .filter(|line| line.contains(FIRST_RECORD))
        .find_map(|line| serde_json::from_str::<Value>(line).ok())
        .context("the new owner has not logged a record yet")?;
    let folded_at = line["timestamp"].as_str().context("no timestamp")?.parse()?;
    let elapsed_ms = line["elapsed_ms"].as_f64().context("no elapsed_ms")?;
    Ok((folded_at, elapsed_ms / 1_000.0))
}
