//! The closing of a budget whose results appear then: ten thousand readers ask through the gateway, as the page does.
//!
//! A reader asks at a moment of the ten seconds after the closing, and again after 10 to 20 s until the result is
//! final. Each request has a connection of its own, which costs the gateway more than browsers do.

use std::cell::Cell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::limits;
use super::report::{Row, log_progress, thousands};
use super::size::size;
use crate::gateway::Gateway;
use crate::open_files;
use crate::raw_http::Connection;
use crate::record::mix;
use crate::service::Service;
use crate::stack::{Stack, StackBuilder};
use crate::system::{System, allocation, definition};

const BUDGET: &str = "closing";
const READERS: u32 = 10_000;
/// People who submit before the closing.
const PEOPLE: usize = 500;
/// From the definition to the closing: more than the five seconds that it takes at least.
const LEAD: SignedDuration = SignedDuration::from_secs(15);
/// As in `page/assets/lazy-live.js`.
const CLOSING_SPREAD_MS: u64 = 10_000;
const MIN_PAUSE_MS: u64 = 10_000;
const PAUSE_SPREAD_MS: u64 = 10_000;
/// After this long a reader gives up, which fails the figure.
const FINAL_TIMEOUT: Duration = Duration::from_secs(120);
const ASKED: &str =
    "allocator_http_requests_total{method=\"GET\",route=\"/v1/budgets/{budget}/aggregate\",";

/// Measures the closing. `BENCH_READERS` shrinks the number of readers.
///
/// # Errors
/// When the figures cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let count = size("BENCH_READERS", READERS)?;
    open_files::raise_limit_for(count)?;
    let stack = StackBuilder { ingests: 2, apis: 2, ..Stack::builder() }.start().await?;
    let gateway = Gateway::start(&stack).await?;
    let closes_at = Timestamp::now() + LEAD;
    let closes = Instant::now() + Duration::try_from(LEAD)?;
    let budget = json!({
        "name": "Closing", "categories": definition(2)["categories"],
        "results": "after_close", "closes_at": closes_at.to_string(),
    });
    stack.system.define_with(BUDGET, &budget).await?;
    submit(&stack.system).await?;

    log_progress(format!("{count} readers at the closing"));
    let most_at_apis = Cell::new(0.0);
    let all = tokio::select! {
        all = read_all(&gateway.url, closes, count) => all?,
        Err(error) = count_at_apis(&stack.apis, &most_at_apis) => return Err(error),
    };
    let shown = aggregate(&gateway.url).await?;
    ensure!(shown["people"] == PEOPLE, "the final result is another: {shown}");
    stack.kafka.delete_topic(&stack.topic).await?;

    Ok(vec![
        Row::at_most(
            &format!("closing, {} readers, most requests in a second", thousands(f64::from(count))),
            busiest_second(&all.asked_after) as f64,
            limits::CLOSING_REQUESTS_PER_S,
            "requests",
        ),
        Row::at_most(
            "  most requests in a second at the apis",
            most_at_apis.get(),
            limits::CLOSING_API_REQUESTS_PER_S,
            "requests",
        ),
        Row::at_most(
            "  not answered 200",
            all.refused as f64,
            limits::CLOSING_REFUSED,
            &format!("of {} requests", thousands(all.asked_after.len() as f64)),
        ),
        Row::at_most(
            "  until every reader has the final result",
            all.final_after.as_secs_f64(),
            limits::CLOSING_FINAL_S,
            "s",
        ),
    ])
}

async fn submit(system: &System) -> Result<()> {
    let submissions: Vec<Value> = (0..PEOPLE)
        .map(|number| json!({"person": format!("p-{number}"), "allocation": allocation(&[2_500, 7_500])}))
        .collect();
    let path = format!("/v1/budgets/{BUDGET}/submissions/batch");
    system.post(&path, &json!(submissions)).await?.expect(200).map(drop)
}

/// What one reader did, or all.
#[derive(Debug, Default)]
struct Reading {
    /// When it asked.
    asked_after: Vec<Duration>,
    /// Requests without the aggregate as their answer.
    refused: usize,
    /// When it had the final result, from the closing on.
    final_after: Duration,
}

async fn read_all(gateway: &str, closes: Instant, count: u32) -> Result<Reading> {
    let mut readers = JoinSet::new();
    for number in 0..count {
        readers.spawn(read(gateway.to_owned(), closes, number.into()));
    }
    let mut all = Reading::default();
    while let Some(reader) = readers.join_next().await {
        let reader = reader?;
        all.asked_after.extend(reader.asked_after);
        all.refused += reader.refused;
        all.final_after = all.final_after.max(reader.final_after);
    }
    Ok(all)
}

/// Asks as the page does until the result is final.
async fn read(gateway: String, closes: Instant, number: u64) -> Reading {
    let mut reading = Reading::default();
    let mut due = closes + Duration::from_millis(mix(number) % CLOSING_SPREAD_MS);
    loop {
        sleep_until(due.into()).await;
        reading.asked_after.push(closes.elapsed());
        match aggregate(&gateway).await {
            Ok(aggregate) if aggregate["final"] == true => {
                reading.final_after = closes.elapsed();
                return reading;
            }
            Ok(_) => {}
            Err(error) => {
                reading.refused += 1;
                if reading.refused == 1 && number.is_multiple_of(100) {
                    log_progress(format!("reader {number}: {error:#}"));
                }
            }
        }
        if closes.elapsed() > FINAL_TIMEOUT {
            reading.final_after = Duration::MAX;
            return reading;
        }
        let pause =
            MIN_PAUSE_MS + mix(!number ^ reading.asked_after.len() as u64) % PAUSE_SPREAD_MS;
        due = Instant::now() + Duration::from_millis(pause);
    }
}

/// Reads the aggregate, which is too small to be compressed.
async fn aggregate(gateway: &str) -> Result<Value> {
    let headers = [("accept", "application/json"), ("accept-encoding", "gzip, deflate, br")];
    let path = format!("/v1/budgets/{BUDGET}/aggregate");
    let (status, body) = Connection::open(gateway).await?.get(&path, &headers).await?;
    ensure!(status == 200, "status {status}: {body}");
    serde_json::from_str(&body).context("not JSON")
}

/// The most requests in a second, counted from the closing on.
fn busiest_second(asked_after: &[Duration]) -> usize {
    let mut by_second: HashMap<u64, usize> = HashMap::new();
    for after in asked_after {
        *by_second.entry(after.as_secs()).or_default() += 1;
    }
    by_second.into_values().max().unwrap_or_default()
}

/// Counts the requests for aggregates at all APIs each second, and keeps the most.
async fn count_at_apis(apis: &[Service], most: &Cell<f64>) -> Result<Infallible> {
    let (mut seconds, mut before) = (interval(Duration::from_secs(1)), None);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        let mut asked = 0.0;
        for api in apis {
            asked += api.metric(ASKED).await?;
        }
        most.set(most.get().max(asked - before.unwrap_or(asked)));
        before = Some(asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_second_is_counted_from_the_closing_on() {
        let at = |all: &[u64]| all.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(busiest_second(&[]), 0);
        assert_eq!(busiest_second(&at(&[0, 999, 1_000, 1_001, 1_999, 2_000])), 3);
    }
}
