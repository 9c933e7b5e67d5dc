//! How long a partition of a million people is not counted while it moves from a processor that ends to another one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::catch_up::{empty_stack, wait_for_person_rows};
use super::limits::HAND_OVER_S;
use super::records::{BUDGET, fill};
use super::report::{Row, log_progress, thousands};
use crate::stack::Stack;
use crate::stores::Tables;

const PEOPLE: u64 = 1_000_000;
const ROUNDS: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(180);
/// Longer than a processor may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(40);
/// How long records are counted by the next owner until a round ends.
const AFTERWARDS: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Measures the hand-over of one partition with a million people under continuous writes.
///
/// # Errors
/// When the figure cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let mut stack = empty_stack(1).await?;
    log_progress(format!("writing {} people into one partition", thousands(PEOPLE as f64)));
    fill(&stack.kafka, &stack.topic, 1, 0..PEOPLE, PEOPLE).await?;
    stack.add_processor().await?;
    stack.wait_until_caught_up(TIMEOUT).await?;
    let tables = stack.tables().await?;
    wait_for_person_rows(&tables, &stack.kafka.ends(&stack.topic).await?).await?;
    // The first rounds warm the servers up. Only the last one counts.
    let (mut stalls, mut next) = (Vec::new(), PEOPLE);
    for _ in 0..ROUNDS {
        stalls.push(hand_over(&mut stack, &tables, &mut next).await?.as_secs_f64());
    }
    stack.wait_until_caught_up(TIMEOUT).await?;
    let (people, _) = tables.sums(BUDGET, 1).await?;
    ensure!(people == PEOPLE, "{people} people are counted");
    stack.processors.clear();
    stack.kafka.delete_topic(&stack.topic).await?;
    let all: Vec<_> = stalls.iter().map(|seconds| format!("{seconds:.2}")).collect();
    Ok(vec![
        Row::at_most(
            "hand-over of 1,000,000 people, longest time without a commit",
            stalls[ROUNDS - 1],
            HAND_OVER_S,
            "s",
        ),
        Row::info("  all rounds", format!("{} s", all.join(", "))),
    ])
}

/// Ends the owner of the partition while another processor is in the group. Returns the longest time for which the
/// committed position has not moved, although records were written all the time.
async fn hand_over(stack: &mut Stack, tables: &Tables, next: &mut u64) -> Result<Duration> {
    stack.add_processor().await?;
    stack.wait_until_all_owned().await?;
    let owner = stack
        .owned()
        .await
        .iter()
        .position(|owned| *owned > 0)
        .context("the partition has no owner")?;
    let mut leaving = stack.processors.remove(owner);
    let (kafka, topic) = (&stack.kafka, &stack.topic);
    let write = async {
        loop {
            fill(kafka, topic, 1, *next..*next + 1, PEOPLE).await?;
            *next += 1;
        }
    };
    let end = async {
        tokio::time::sleep(AFTERWARDS).await;
        log_progress("ending the owner");
        leaving.terminate(END_TIMEOUT).await?;
        tokio::time::sleep(AFTERWARDS).await;
        Ok::<_, anyhow::Error>(())
    };
    let (mut longest, mut moved_at) = (Duration::ZERO, None::<Instant>);
    let watch = async {
        let mut position = 0;
        loop {
            let now = tables.positions(1).await?.get(&0).copied().unwrap_or_default();
            if now > position {
                // The first reading has no predecessor.
                let since = moved_at.replace(Instant::now()).map(|at| at.elapsed());
                longest = longest.max(since.unwrap_or_default());
                position = now;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    let stopped: Result<()> = tokio::select! {
        ended = end => ended,
        failed = write => failed,
        failed = watch => failed,
    };
    stopped?;
    // The position may stand still at the end.
    let standing_still = moved_at.context("the position never moved")?.elapsed();
    Ok(longest.max(standing_still))
}
