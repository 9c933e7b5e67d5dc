//! Ten thousand streams on one api: how late they are, what they cost submissions and memory, and one stream too many.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::delivery::{Latencies, Schedule};
use super::records::BUDGET;
use super::report::{Row, log_progress, percentile, thousands};
use super::size::size;
use super::visible::samples;
use super::watchers::Watchers;
use super::{limits, paced};
use crate::response::send;
use crate::stack::{ServiceOverrides, Stack, StackBuilder};
use crate::wait::eventually;

const STREAMS: u32 = 10_000;
const PARTITIONS: u32 = 12;
/// Submissions per second.
const RATE: f64 = 200.0;
const CONNECTIONS: u32 = 32;
/// Submissions one after the other before the first load.
const SAMPLES: u64 = 20;
const LOAD: Duration = Duration::from_secs(30);
/// Connections of the api besides those of streams.
const OTHER_CONNECTIONS: u32 = 1_000;
/// Attempts beyond the limit of streams.
const ATTEMPTS: usize = 20;
/// Time to open the connections of the load.
const LEAD: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(30);

/// Measures submissions with and without streams. `BENCH_STREAMS` shrinks their number.
///
/// # Errors
/// When the figures cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let count = size("BENCH_STREAMS", STREAMS)?;
    let builder = StackBuilder { partitions: PARTITIONS, ..Stack::builder() };
    let stack = StackBuilder { overrides: room_for(count), ..builder }.start().await?;
    stack.system.wait_until_known(BUDGET, TIMEOUT).await?;
    // The first submissions freeze the budget and open connections, and under a new load Kafka compiles.
    samples(&stack.system, &[BUDGET.to_owned()], "sample", SAMPLES).await?;
    log_progress(format!("{RATE} submissions/s without streams"));
    let first = load(&stack, "first", Instant::now() + LEAD).await?;
    let mut without = load(&stack, "without", Instant::now() + LEAD).await?;
    stack.wait_until_caught_up(TIMEOUT).await?;
    let submitted = SAMPLES + (first.len() + without.len()) as u64;
    eventually("everyone is shown", TIMEOUT, async || {
        ensure!(people(&stack).await? == submitted, "not {submitted} people");
        Ok(())
    })
    .await?;

    let (api, people_before) = (&stack.apis[0], submitted);
    let rss_before = api.process.resident_bytes()?;
    log_progress(format!("opening {count} streams"));
    let watchers = Watchers::open(&api.url, &stream_path(), count).await?;
    ensure!(api.metric("allocator_api_streams").await? == f64::from(count), "a stream ended");
    let rss_idle = api.process.resident_bytes()?;
    log_progress(format!("{RATE} submissions/s with {count} streams"));
    let start = Instant::now() + LEAD;
    let mut with = load(&stack, "with", start).await?;
    let rss = api.process.resident_bytes()?;
    let wrong_answers = exceed(&stack).await?;
    stack.wait_until_caught_up(TIMEOUT).await?;
    let count_of_load = with.len() as u64;
    let schedule =
        Schedule { start: start.into_std(), rate: RATE, count: count_of_load, people_before };
    let mut delivered = Latencies::default();
    for shown in watchers.shown(people_before + count_of_load).await? {
        schedule.add_latencies(&shown, &mut delivered);
    }
    stack.kafka.delete_topic(&stack.topic).await?;

    let growth_kb = |rss: u64| rss.saturating_sub(rss_before) as f64 / f64::from(count) / 1_000.0;
    let measured = Measured {
        streams: count,
        delivered,
        post_p99_ms: [percentile(&mut without, 99.0), percentile(&mut with, 99.0)],
        kb_per_stream: [growth_kb(rss_idle), growth_kb(rss)],
        wrong_answers,
    };
    Ok(measured.rows())
}

/// What one run has measured.
struct Measured {
    streams: u32,
    /// From submission to event, of each submission at each stream.
    delivered: Latencies,
    /// Without streams, and with them.
    post_p99_ms: [f64; 2],
    /// Growth of RSS once the streams were open, and at the end of the load.
    kb_per_stream: [f64; 2],
    /// Streams beyond the limit that were opened, and submissions that were refused.
    wrong_answers: f64,
}

impl Measured {
    fn rows(&self) -> Vec<Row> {
        let streams = format!("{} streams", thousands(f64::from(self.streams)));
        let interval_ms = interval_ms(self.streams);
        let [p50, p99, max] =
            [50.0, 99.0, 100.0].map(|percent| self.delivered.percentile_ms(percent));
        let samples = thousands(self.delivered.count() as f64);
        let [p99_without, p99_with] = self.post_p99_ms;
        let [kb_open, kb_loaded] = self.kb_per_stream;
        vec![
            Row::at_most(
                &format!(
                    "{streams}, submission to event beyond the interval of {interval_ms} ms, p99"
                ),
                p99 - interval_ms,
                limits::STREAMS_DELIVERED_P99_MS,
                "ms",
            ),
            Row::info(
                "  submission to event",
                format!("p50 {p50}, p99 {p99}, max {max} ms of {samples}"),
            ),
            Row::at_most(
                &format!("  p99 of POST at {RATE}/s, of that without streams"),
                p99_with / p99_without,
                limits::STREAMS_POST_P99_TIMES,
                "times",
            ),
            Row::info("  without and with", format!("{p99_without:.1} and {p99_with:.1} ms")),
            Row::at_most("  growth of RSS per stream", kb_loaded, limits::STREAMS_KB, "KB"),
            Row::info("  before the load", format!("{kb_open:.2} KB")),
            Row::at_most(
                "  beyond the limit: streams opened, submissions refused",
                self.wrong_answers,
                limits::STREAMS_WRONG_ANSWERS,
                &format!("of {}", 2 * ATTEMPTS),
            ),
        ]
    }
}

/// Settings of an api that takes this many streams, and not one more. Limits per client do not apply on one machine.
fn room_for(streams: u32) -> HashMap<String, ServiceOverrides> {
    let connections = streams + OTHER_CONNECTIONS;
    let settings =
        vec![format!("api.max_streams={streams}"), format!("http.max_connections={connections}")];
    HashMap::from([("api-1".to_owned(), ServiceOverrides { settings, ..Default::default() })])
}

fn stream_path() -> String {
    format!("/v1/budgets/{BUDGET}/aggregate/stream")
}

/// The shortest interval between two answers of a stream; see `docs/http.md`.
fn interval_ms(streams: u32) -> f64 {
    250.0 + 0.1 * f64::from(streams)
}

/// Submits for new people at a fixed rate. Returns the latencies in milliseconds.
async fn load(stack: &Stack, prefix: &'static str, start: Instant) -> Result<Vec<f64>> {
    let (url, path) = (stack.ingests[0].url.clone(), format!("/v1/budgets/{BUDGET}/submissions"));
    let ingest = url.clone();
    let request = move |number: u64| {
        let body = json!({
            "person": format!("{prefix}-{number}"),
            "allocation": {"health": 60.5, "education": 39.5},
        });
        paced::post(&ingest, &path, &body.to_string())
    };
    paced::from(start, &url, CONNECTIONS, RATE, LOAD, request).await
}

/// The number of people in the aggregate.
async fn people(stack: &Stack) -> Result<u64> {
    let path = format!("/v1/budgets/{BUDGET}/aggregate");
    let aggregate = stack.system.get(&path).await?.expect(200)?.json()?;
    aggregate["people"].as_u64().context("no people")
}

/// Opens streams beyond the limit, and submits meanwhile. Returns how many streams were opened, and how many
/// submissions refused.
async fn exceed(stack: &Stack) -> Result<f64> {
    let (mut wrong_answers, system) = (0.0, &stack.system);
    for number in 0..ATTEMPTS {
        let url = format!("{}{}", stack.apis[0].url, stream_path());
        // A stream that was opened does not end.
        let opened = system.request(Method::GET, url).send().await?;
        wrong_answers += f64::from(u8::from(opened.status() != 503));
        let url = format!("{}/v1/budgets/{BUDGET}/submissions", stack.ingests[0].url);
        let body = json!({"person": format!("beyond-{number}"), "allocation": {"health": 100}});
        let submitted = send(system.request(Method::POST, url).json(&body)).await?;
        wrong_answers += f64::from(u8::from(submitted.status != 202));
    }
    Ok(wrong_answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_documented_one() {
        assert_eq!((interval_ms(0), interval_ms(10_000)), (250.0, 1_250.0));
    }
}
