//! What a person costs in the processor's memory.

use std::time::Duration;

use anyhow::Result;

use super::catch_up::{empty_stack, rows_follow};
use super::records::fill;
use super::report::{Row, say, thousands};

const PARTITIONS: u32 = 12;
/// Enough that everything which does not depend on people is there.
const FIRST: u64 = 20_000;
const PEOPLE: u64 = 5_000_000;
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures it: the growth of resident memory over five million people with ten categories each.
///
/// # Errors
/// When it cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let mut stack = empty_stack(PARTITIONS).await?;
    fill(&stack.kafka, &stack.topic, PARTITIONS, 0..FIRST, FIRST + PEOPLE).await?;
    stack.add_processor().await?;
    stack.caught_up(PATIENCE).await?;
    let tables = stack.tables().await?;
    rows_follow(&tables, &stack.kafka.ends(&stack.topic).await?).await?;
    let before = stack.processors[0].process.resident_bytes()?;

    say(format!("writing {} more people", thousands(PEOPLE as f64)));
    fill(&stack.kafka, &stack.topic, PARTITIONS, FIRST..FIRST + PEOPLE, FIRST + PEOPLE).await?;
    stack.caught_up(PATIENCE).await?;
    rows_follow(&tables, &stack.kafka.ends(&stack.topic).await?).await?;
    let after = stack.processors[0].process.resident_bytes()?;
    let peak = stack.processors[0].process.peak_resident_bytes()?;
    say(format!(
        "RSS {} MB, then {} MB, at most {} MB",
        before / 1_000_000,
        after / 1_000_000,
        peak / 1_000_000
    ));
    stack.processors.clear();
    stack.kafka.delete_topic(&stack.topic).await?;

    let bytes = after.saturating_sub(before) as f64 / PEOPLE as f64;
    Ok(vec![Row::below("memory of a person, 5,000,000 of them", bytes, 96.0, "bytes")])
}
