//! The catch-up rate of one processor on an existing log, with exactly-once commits, compared with a plain consumer.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::limits::CATCH_UP;
use super::plain_consumer::consume_plain;
use super::records::fill;
use super::report::{Row, log_progress, thousands};
use super::steady::until_steady;
use crate::stack::{Stack, StackBuilder};
use crate::stores::Tables;

/// Number of records in the log.
pub const RECORDS: u64 = 3_000_000;
/// Number of people.
pub const PEOPLE: u64 = 1_000_000;
/// Number of partitions of the log.
pub const PARTITIONS: u32 = 12;
/// Timeout for folding the log.
pub const TIMEOUT: Duration = Duration::from_secs(300);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Measures the catch-up of one processor with 3,000,000 records.
///
/// # Errors
/// When the figure cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let mut stack = empty_stack(PARTITIONS).await?;
    log_progress(format!(
        "writing {} records of {} people",
        thousands(RECORDS as f64),
        thousands(PEOPLE as f64)
    ));
    fill(&stack.kafka, &stack.topic, PARTITIONS, 0..RECORDS, PEOPLE).await?;
    // Before and after, because the speed of the machine varies.
    let baseline =
        async |stack: &Stack| consume_plain(&stack.kafka, &stack.topic, PARTITIONS, RECORDS).await;
    until_steady(async || baseline(&stack).await).await?;
    let before = baseline(&stack).await?;

    log_progress("one processor catches up");
    stack.add_processor().await?;
    let ends = stack.kafka.ends(&stack.topic).await?;
    let tables = stack.tables().await?;
    let caught_up = catch_up(&tables, &ends).await?;
    let processor = &stack.processors[0].process;
    let (cpu, peak) = (processor.cpu_seconds()?, processor.peak_resident_bytes()?);
    wait_for_person_rows(&tables, &ends).await?;
    let cpu_with_rows = processor.cpu_seconds()?;
    check_people(&tables).await?;
    stack.processors.clear();
    let after = baseline(&stack).await?;
    log_progress(format!(
        "plain consumer: {} records/s before, {} after",
        thousands(before),
        thousands(after)
    ));
    stack.kafka.delete_topic(&stack.topic).await?;

    let baseline_rate = (before + after) / 2.0;
    Ok(vec![
        Row::share(
            "catch-up, 3,000,000 records",
            "records/s",
            RECORDS as f64 / caught_up.as_secs_f64(),
            baseline_rate,
            CATCH_UP,
        ),
        Row::info("  CPU of the processor until then", format!("{cpu:.1} s (Flink: 13 s)")),
        Row::info("  CPU with all person rows written", format!("{cpu_with_rows:.1} s")),
        Row::info(
            "  peak RSS of the processor",
            format!("{} MB (Flink: 1,200 MB)", peak / 1_000_000),
        ),
    ])
}

/// Starts a stack with a topic but without services.
///
/// # Errors
/// When the stack cannot be started.
pub async fn empty_stack(partitions: u32) -> Result<Stack> {
    let builder =
        StackBuilder { ingests: 0, processors: 0, apis: 0, partitions, ..Stack::builder() };
    let stack = builder.start().await?;
    stack.kafka.create_topic(&stack.topic, partitions).await?;
    Ok(stack)
}

/// Measures the time from the first claim until the end of the log is committed.
///
/// # Errors
/// When it exceeds the timeout.
pub async fn catch_up(tables: &Tables, ends: &[u64]) -> Result<Duration> {
    let deadline = Instant::now() + TIMEOUT;
    let mut started = None;
    loop {
        let stored = match tables.positions(ends.len() as u32).await {
            // The first processor creates the tables.
            Err(_) if started.is_none() && Instant::now() < deadline => {
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            }
            stored => stored?,
        };
        let now = Instant::now();
        if !stored.is_empty() && started.is_none() {
            started = Some(now);
        }
        if let Some(started) = started
            && ends.iter().zip(0..).all(|(end, partition)| {
                *end == 0 || stored.get(&partition).is_some_and(|position| position >= end)
            })
        {
            return Ok(now - started);
        }
        ensure!(now < deadline, "not caught up: {stored:?} of {ends:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until all person rows are written.
///
/// # Errors
/// When it exceeds the timeout.
pub async fn wait_for_person_rows(tables: &Tables, ends: &[u64]) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    'wait: loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        ensure!(Instant::now() < deadline, "the person rows are not written in time");
        for (partition, end) in (0..).zip(ends) {
            let stored = tables.partition(partition).await?;
            if stored.is_none_or(|stored| stored.rows_position < *end) {
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
