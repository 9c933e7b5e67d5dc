//! The processor's memory per person.

use std::time::Duration;

use anyhow::Result;

use super::catch_up::{empty_stack, wait_for_person_rows};
use super::limits::MEMORY_BYTES;
use super::records::fill;
use super::report::{Row, log_progress, thousands};

const PARTITIONS: u32 = 12;
/// People written before the first measurement, so that fixed costs are not counted.
const FIRST: u64 = 20_000;
const PEOPLE: u64 = 5_000_000;
const TIMEOUT: Duration = Duration::from_secs(300);

/// Measures the growth of resident memory over five million people with ten categories each.
///
/// # Errors
/// When the figure cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let mut stack = empty_stack(PARTITIONS).await?;
    fill(&stack.kafka, &stack.topic, PARTITIONS, 0..FIRST, FIRST + PEOPLE).await?;
    stack.add_processor().await?;
    stack.wait_until_caught_up(TIMEOUT).await?;
    let tables = stack.tables().await?;
    wait_for_person_rows(&tables, &stack.kafka.ends(&stack.topic).await?).await?;
    let before = stack.processors[0].process.resident_bytes()?;

    log_progress(format!("writing {} more people", thousands(PEOPLE as f64)));
    fill(&stack.kafka, &stack.topic, PARTITIONS, FIRST..FIRST + PEOPLE, FIRST + PEOPLE).await?;
    stack.wait_until_caught_up(TIMEOUT).await?;
    wait_for_person_rows(&tables, &stack.kafka.ends(&stack.topic).await?).await?;
    let after = stack.processors[0].process.resident_bytes()?;
    let peak = stack.processors[0].process.peak_resident_bytes()?;
    log_progress(format!(
        "RSS {} MB before, {} MB after, peak {} MB",
        before / 1_000_000,
        after / 1_000_000,
        peak / 1_000_000
    ));
    stack.processors.clear();
    stack.kafka.delete_topic(&stack.topic).await?;

    let bytes = after.saturating_sub(before) as f64 / PEOPLE as f64;
    Ok(vec![Row::at_most("memory per person, 5,000,000 people", bytes, MEMORY_BYTES, "bytes")])
}
