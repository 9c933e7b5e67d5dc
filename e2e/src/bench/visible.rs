//! How long a submission takes to be counted in the aggregate: from sending it to reading an aggregate that has it.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::http::{POST_CONNECTIONS, highest_post_rate};
use super::paced;
use super::records::BUDGET;
use super::report::{Row, percentile, say, thousands};
use crate::answer::receipt;
use crate::stack::{Stack, StackBuilder};
use crate::system::System;
use serde_json::json;

const SAMPLES: u64 = 200;
const APART: Duration = Duration::from_millis(40);
/// As many as the highest rate was measured with: each has one request at a time, which takes as long as the broker's
/// acknowledgement, so that few could not send half of that rate.
const CONNECTIONS: u32 = POST_CONNECTIONS;

/// Measures it on an idle machine, and at half of the highest load.
///
/// # Errors
/// When it cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let stack = StackBuilder { partitions: 12, ..Stack::builder() }.start().await?;
    stack.system.known(BUDGET, Duration::from_secs(10)).await?;
    // The first submissions are not like the others: budgets are frozen, connections opened.
    samples(&stack.system, "first", 20).await?;
    say("submission to visible, idle");
    let idle = samples(&stack.system, "idle", SAMPLES).await?;

    let highest = highest_post_rate(&stack).await?;
    stack.caught_up(Duration::from_secs(60)).await?;
    say(format!("submission to visible, at half of {} requests/s", thousands(highest)));
    let url = stack.ingests[0].url.clone();
    let path = format!("/v1/budgets/{BUDGET}/submissions");
    let lasts = APART * SAMPLES as u32 + Duration::from_secs(2);
    let to = url.clone();
    let load = tokio::spawn(async move {
        let request = move |number: u64| {
            let body = format!(
                "{{\"person\": \"load-{number}\", \"allocation\": {{\"health\": 60.5, \"education\": 39.5}}}}"
            );
            paced::post(&to, &path, &body)
        };
        paced::at_rate(&url, CONNECTIONS, highest / 2.0, lasts, request).await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let loaded = samples(&stack.system, "loaded", SAMPLES).await?;
    let mut answered = load.await??;
    stack.kafka.delete_topic(&stack.topic).await?;

    let mut rows = told("submission to visible, idle", idle.clone());
    rows.push(Row::below("  p99, idle", percentile(&mut idle.clone(), 99.0), 100.0, "ms"));
    rows.extend(told("submission to visible, half load", loaded));
    rows.push(Row::told(
        "  POST itself, half load, p99",
        format!("{:.1} ms", percentile(&mut answered, 99.0)),
    ));
    Ok(rows)
}

fn told(figure: &str, mut samples: Vec<f64>) -> Vec<Row> {
    let mut at = |percent| percentile(&mut samples, percent);
    let value = format!("p50 {:.1}, p95 {:.1}, p99 {:.1} ms", at(50.0), at(95.0), at(99.0));
    vec![Row::told(figure, value)]
}

/// One submission after the other, each read back; milliseconds.
async fn samples(system: &System, who: &str, count: u64) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for number in 0..count {
        took.push(sample(system, &format!("{who}-{number}")).await?);
    }
    Ok(took)
}

/// One submission, read back; milliseconds. The next one may follow at once.
pub(super) async fn sample(system: &System, person: &str) -> Result<f64> {
    let began = Instant::now();
    let body = json!({"person": person, "allocation": {"health": 60.5, "education": 39.5}});
    let accepted =
        receipt(&system.post(&format!("/v1/budgets/{BUDGET}/submissions"), &body).await?)?;
    let wait = [("consistency-token", &*accepted.token), ("prefer", "wait=10")];
    system.get_with(&format!("/v1/budgets/{BUDGET}/aggregate"), &wait).await?.expect(200)?;
    let took = began.elapsed();
    tokio::time::sleep(APART.saturating_sub(took)).await;
    Ok(took.as_secs_f64() * 1_000.0)
}
