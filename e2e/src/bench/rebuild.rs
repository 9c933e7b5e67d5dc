//! How fast everything is folded anew beside what answers, against a bare consumer that only counts, and how long a
//! submission takes to be counted meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::catch_up::{PARTITIONS, PATIENCE, PEOPLE, RECORDS, catch_up, rows_follow};
use super::records::{BUDGET, consume_bare, fill};
use super::report::{Row, percentile, say};
use super::steady::until_steady;
use super::visible::sample;
use crate::operator::{Operator, ended_well};
use crate::stack::{Stack, StackBuilder};

/// Measures it.
///
/// # Errors
/// When it cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let stack = StackBuilder { partitions: PARTITIONS, ..Stack::builder() }.start().await?;
    stack.system.known(BUDGET, Duration::from_secs(10)).await?;
    say("writing and counting what is to be rebuilt");
    fill(&stack.kafka, &stack.topic, PARTITIONS, 0..RECORDS, PEOPLE).await?;
    stack.caught_up(PATIENCE).await?;
    let ends = stack.kafka.ends(&stack.topic).await?;
    let tables = stack.tables().await?;
    rows_follow(&tables, &ends).await?;
    sample(&stack.system, "first").await?;
    let bare = async || consume_bare(&stack.kafka, &stack.topic, PARTITIONS, RECORDS).await;
    until_steady(bare).await?;
    let before = bare().await?;

    say("rebuilding");
    let began = Instant::now();
    let mut rebuilding = Operator::of_stack(&stack)?.start(&["rebuild"])?;
    let rebuilt = tables.of_generation(2);
    let folding = catch_up(&rebuilt, &ends);
    let meanwhile = async {
        let mut visible = Vec::new();
        while rebuilding.ended()?.is_none() {
            visible.push(sample(&stack.system, &format!("meanwhile-{}", visible.len())).await?);
        }
        anyhow::Ok(visible)
    };
    let (folded, visible) = tokio::join!(folding, meanwhile);
    let (folded, mut visible, took) = (folded?, visible?, began.elapsed());
    let said = ended_well(rebuilding, PATIENCE).await?;
    ensure!(said.contains(" differences=0 answers now"), "{said}");
    let flipped = sample(&stack.system, "after").await?;
    let after = bare().await?;
    stack.kafka.delete_topic(&stack.topic).await?;

    let rate = RECORDS as f64 / folded.as_secs_f64();
    Ok(vec![
        Row::share("rebuild, 3,000,000 records", "records/s", rate, (before + after) / 2.0, 60.0),
        Row::below(
            "  submission to visible meanwhile, p99",
            percentile(&mut visible, 99.0),
            1_000.0,
            "ms",
        ),
        Row::told(
            "  until everyone's row was written and it answered",
            format!("{:.1} s", took.as_secs_f64()),
        ),
        Row::told("  the first one after the flip", format!("{flipped:.0} ms")),
    ])
}
