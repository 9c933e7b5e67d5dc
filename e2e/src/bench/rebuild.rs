//! The rate of a rebuild compared with a plain consumer, and the submission-to-visible latency meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::catch_up::{PARTITIONS, PEOPLE, RECORDS, TIMEOUT, catch_up, wait_for_person_rows};
use super::limits::{REBUILD, REBUILD_VISIBLE_P99_MS};
use super::plain_consumer::consume_plain;
use super::records::{BUDGET, fill};
use super::report::{Row, log_progress, percentile};
use super::steady::until_steady;
use super::visible::sample;
use crate::operator::{Operator, expect_success};
use crate::stack::{Stack, StackBuilder};

/// Measures a rebuild of 3,000,000 records.
///
/// # Errors
/// When the figure cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let stack = StackBuilder { partitions: PARTITIONS, ..Stack::builder() }.start().await?;
    stack.system.wait_until_known(BUDGET, Duration::from_secs(10)).await?;
    log_progress("writing and folding the records to rebuild");
    fill(&stack.kafka, &stack.topic, PARTITIONS, 0..RECORDS, PEOPLE).await?;
    stack.wait_until_caught_up(TIMEOUT).await?;
    let ends = stack.kafka.ends(&stack.topic).await?;
    let tables = stack.tables().await?;
    wait_for_person_rows(&tables, &ends).await?;
    sample(&stack.system, BUDGET, "first").await?;
    let baseline = async || consume_plain(&stack.kafka, &stack.topic, PARTITIONS, RECORDS).await;
    until_steady(baseline).await?;
    let before = baseline().await?;

    log_progress("rebuilding");
    let started = Instant::now();
    let mut rebuilding = Operator::for_stack(&stack)?.start(&["rebuild"])?;
    let rebuilt = tables.with_generation(2);
    let folding = catch_up(&rebuilt, &ends);
    let meanwhile = async {
        let mut visible = Vec::new();
        while rebuilding.exit_status()?.is_none() {
            visible.push(
                sample(&stack.system, BUDGET, &format!("meanwhile-{}", visible.len())).await?,
            );
        }
        anyhow::Ok(visible)
    };
    let (folded, visible) = tokio::join!(folding, meanwhile);
    let (folded, mut visible, took) = (folded?, visible?, started.elapsed());
    let output = expect_success(rebuilding, TIMEOUT).await?;
    ensure!(output.contains(" differences=0 answers now"), "{output}");
    let after_switch = sample(&stack.system, BUDGET, "after").await?;
    let after = baseline().await?;
    stack.kafka.delete_topic(&stack.topic).await?;

    let rate = RECORDS as f64 / folded.as_secs_f64();
    Ok(vec![
        Row::share(
            "rebuild, 3,000,000 records",
            "records/s",
            rate,
            (before + after) / 2.0,
            REBUILD,
        ),
        Row::at_most(
            "  submission to visible meanwhile, p99",
            percentile(&mut visible, 99.0),
            REBUILD_VISIBLE_P99_MS,
            "ms",
        ),
        Row::info(
            "  until the person rows were written and the generation switched",
            format!("{:.1} s", took.as_secs_f64()),
        ),
        Row::info("  first submission after the switch", format!("{after_switch:.0} ms")),
    ])
}
