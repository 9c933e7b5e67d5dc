//! How fast one processor takes in a log that is already there, with exactly-once commits on, against a bare consumer
//! that only counts.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::records::{consume_bare, fill};
use super::report::{Row, say, thousands};
use super::steady::until_steady;
use crate::stack::{Stack, StackBuilder};
use crate::stores::Tables;

/// Records of the log that is taken in.
pub const RECORDS: u64 = 3_000_000;
/// People whose records they are.
pub const PEOPLE: u64 = 1_000_000;
/// The log's partitions.
pub const PARTITIONS: u32 = 12;
/// How long taking it in may last.
pub const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(20);

/// Measures it.
///
/// # Errors
/// When it cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let mut stack = empty_stack(PARTITIONS).await?;
    say(format!(
        "writing {} records of {} people",
        thousands(RECORDS as f64),
        thousands(PEOPLE as f64)
    ));
    fill(&stack.kafka, &stack.topic, PARTITIONS, 0..RECORDS, PEOPLE).await?;
    // Once before and once after: a machine is not equally fast at all times.
    let bare =
        async |stack: &Stack| consume_bare(&stack.kafka, &stack.topic, PARTITIONS, RECORDS).await;
    until_steady(async || bare(&stack).await).await?;
    let before = bare(&stack).await?;

    say("one processor catches up");
    stack.add_processor().await?;
    let ends = stack.kafka.ends(&stack.topic).await?;
    let tables = stack.tables().await?;
    let caught_up = catch_up(&tables, &ends).await?;
    let processor = &stack.processors[0].process;
    let (cpu, peak) = (processor.cpu_seconds()?, processor.peak_resident_bytes()?);
    rows_follow(&tables, &ends).await?;
    let cpu_with_rows = processor.cpu_seconds()?;
    check_people(&tables).await?;
    stack.processors.clear();
    let after = bare(&stack).await?;
    say(format!(
        "a bare consumer: {} records/s before, {} after",
        thousands(before),
        thousands(after)
    ));
    stack.kafka.delete_topic(&stack.topic).await?;

    let bare = (before + after) / 2.0;
    Ok(vec![
        Row::share(
            "catch-up, 3,000,000 records",
            "records/s",
            RECORDS as f64 / caught_up.as_secs_f64(),
            bare,
            65.0,
        ),
        Row::told("  CPU of the processor until then", format!("{cpu:.1} s (Flink: 13 s)")),
        Row::told("  CPU with everyone's row written", format!("{cpu_with_rows:.1} s")),
        Row::told(
            "  peak RSS of the processor",
            format!("{} MB (Flink: 1,200 MB)", peak / 1_000_000),
        ),
    ])
}

/// Topics and servers without any service.
///
/// # Errors
/// When they cannot be had.
pub async fn empty_stack(partitions: u32) -> Result<Stack> {
    let builder =
        StackBuilder { ingests: 0, processors: 0, apis: 0, partitions, ..Stack::builder() };
    let stack = builder.start().await?;
    stack.kafka.create_topic(&stack.topic, partitions).await?;
    Ok(stack)
}

/// From the first claim until the end of the log is committed.
///
/// # Errors
/// When it is not in time.
pub async fn catch_up(tables: &Tables, ends: &[u64]) -> Result<Duration> {
    let deadline = Instant::now() + PATIENCE;
    let mut began = None;
    loop {
        let stored = match tables.positions(ends.len() as u32).await {
            // The tables come with the first processor.
            Err(_) if began.is_none() && Instant::now() < deadline => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            stored => stored?,
        };
        let now = Instant::now();
        if !stored.is_empty() && began.is_none() {
            began = Some(now);
        }
        if let Some(began) = began
            && ends.iter().zip(0..).all(|(end, partition)| {
                *end == 0 || stored.get(&partition).is_some_and(|at| at >= end)
            })
        {
            return Ok(now - began);
        }
        ensure!(now < deadline, "not caught up: {stored:?} of {ends:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until everyone's row is written, too.
///
/// # Errors
/// When they are not in time.
pub async fn rows_follow(tables: &Tables, ends: &[u64]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    'wait: loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        ensure!(Instant::now() < deadline, "people's rows do not follow");
        for (partition, end) in (0..).zip(ends) {
            let stored = tables.partition(partition).await?;
            if stored.is_none_or(|stored| stored.state_position < *end) {
                continue 'wait;
            }
        }
        return Ok(());
    }
}

async fn check_people(tables: &Tables) -> Result<()> {
    let (people, sums) = tables.sums(super::records::BUDGET, PARTITIONS).await?;
    ensure!(
        people == PEOPLE && sums.iter().sum::<u64>() == PEOPLE * 10_000,
        "{people} people were counted"
    );
    Ok(())
}
