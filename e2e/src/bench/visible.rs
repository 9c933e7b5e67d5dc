//! The latency from sending a submission to reading an aggregate that includes it.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::http::{POST_CONNECTIONS, max_post_rate};
use super::limits::VISIBLE_IDLE_P99_MS;
use super::paced;
use super::records::BUDGET;
use super::report::{Row, log_progress, percentile, thousands};
use crate::response::receipt;
use crate::stack::{Stack, StackBuilder};
use crate::system::{System, allocation};
use serde_json::{Value, json};

pub(super) const SAMPLES: u64 = 200;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(40);
/// As many connections as for the maximum rate: each has one request in flight for as long as the broker's
/// acknowledgement takes, so fewer could not send half of that rate.
const CONNECTIONS: u32 = POST_CONNECTIONS;

/// Measures the latency on an idle stack, and at half of the maximum load.
///
/// # Errors
/// When the figure cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let stack = StackBuilder { partitions: 12, ..Stack::builder() }.start().await?;
    stack.system.wait_until_known(BUDGET, Duration::from_secs(10)).await?;
    let budgets = [BUDGET.to_owned()];
    // The first submissions freeze the budget and open connections, so they are not measured.
    samples(&stack.system, &budgets, "first", 20).await?;
    log_progress("submission to visible, idle");
    let idle = samples(&stack.system, &budgets, "idle", SAMPLES).await?;

    let max_rate = max_post_rate(&stack).await?;
    stack.wait_until_caught_up(Duration::from_secs(60)).await?;
    log_progress(format!("submission to visible, at half of {} requests/s", thousands(max_rate)));
    let url = stack.ingests[0].url.clone();
    let path = format!("/v1/budgets/{BUDGET}/submissions");
    let duration = SAMPLE_INTERVAL * SAMPLES as u32 + Duration::from_secs(2);
    let ingest = url.clone();
    let load = tokio::spawn(async move {
        let request = move |number: u64| {
            let body = format!(
                "{{\"person\": \"load-{number}\", \"allocation\": {{\"health\": 60.5, \"education\": 39.5}}}}"
            );
            paced::post(&ingest, &path, &body)
        };
        paced::at_rate(&url, CONNECTIONS, max_rate / 2.0, duration, request).await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let loaded = samples(&stack.system, &budgets, "loaded", SAMPLES).await?;
    let mut latencies = load.await??;
    stack.kafka.delete_topic(&stack.topic).await?;

    let mut rows = percentile_row("submission to visible, idle", idle.clone());
    rows.push(Row::at_most(
        "  p99, idle",
        percentile(&mut idle.clone(), 99.0),
        VISIBLE_IDLE_P99_MS,
        "ms",
    ));
    rows.extend(percentile_row("submission to visible, half load", loaded));
    rows.push(Row::info(
        "  POST itself, half load, p99",
        format!("{:.1} ms", percentile(&mut latencies, 99.0)),
    ));
    Ok(rows)
}

fn percentile_row(figure: &str, mut samples: Vec<f64>) -> Vec<Row> {
    let mut at = |percent| percentile(&mut samples, percent);
    let value = format!("p50 {:.1}, p95 {:.1}, p99 {:.1} ms", at(50.0), at(95.0), at(99.0));
    vec![Row::info(figure, value)]
}

/// Measures several submissions one after the other, to one budget after the other, in milliseconds.
pub(super) async fn samples(
    system: &System,
    budgets: &[String],
    prefix: &str,
    count: u64,
) -> Result<Vec<f64>> {
    let mut latencies = Vec::new();
    for (number, budget) in (0..count).zip(budgets.iter().cycle()) {
        latencies.push(sample(system, budget, &format!("{prefix}-{number}")).await?);
    }
    Ok(latencies)
}

/// Submits once and waits until the aggregate includes it. Returns the latency in milliseconds after a pause.
pub(super) async fn sample(system: &System, budget: &str, person: &str) -> Result<f64> {
    let started = Instant::now();
    let body = json!({"person": person, "allocation": allocation_to(budget)});
    let accepted =
        receipt(&system.post(&format!("/v1/budgets/{budget}/submissions"), &body).await?)?;
    let wait = [("consistency-token", &*accepted.token), ("prefer", "wait=10")];
    system.get_with(&format!("/v1/budgets/{budget}/aggregate"), &wait).await?.expect(200)?;
    let took = started.elapsed();
    tokio::time::sleep(SAMPLE_INTERVAL.saturating_sub(took)).await;
    Ok(took.as_secs_f64() * 1_000.0)
}

/// The default budget has categories of its own.
fn allocation_to(budget: &str) -> Value {
    if budget == BUDGET {
        json!({"health": 60.5, "education": 39.5})
    } else {
        allocation(&[6_050, 3_950])
    }
}
