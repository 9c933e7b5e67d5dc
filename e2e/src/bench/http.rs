//! The HTTP routes at their maximum rates, compared with plain servers that only parse and respond.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::records::{BUDGET, RawRecord, produce_plain};
use super::report::{Row, log_progress, percentile, thousands};
use super::steady::{WINDOW, until_steady};
use super::wrk::Requests;
use super::{limits, paced};
use crate::port::free_port;
use crate::process::Process;
use crate::record::{allocation_record, mix_128, partition_of};
use crate::scenario::new_dir;
use crate::stack::{Stack, StackBuilder};

const DURATION: Duration = Duration::from_secs(8);
/// Duration of one measurement. The median of several counts, because the speed of the machine varies.
const ROUND: Duration = Duration::from_secs(5);
const ROUNDS: usize = 9;
const PARTITIONS: u32 = 12;
/// Connections of the `POST` measurement.
pub const POST_CONNECTIONS: u32 = 512;
const BATCH_CONNECTIONS: u32 = 32;
/// Connections of the measurements of reads.
pub const READ_CONNECTIONS: u32 = 64;
/// One submission a request, each of another person.
pub const POST: &str = include_str!("post.lua");
const BATCH: &str = include_str!("batch.lua");

/// The baseline server, as a child process.
struct Baseline {
    url: String,
    _process: Process,
}

impl Baseline {
    async fn start(body: &[u8]) -> Result<Self> {
        let dir = new_dir("bare")?;
        let file = dir.join("answer");
        std::fs::write(&file, body)?;
        let port = free_port()?;
        let program = std::env::current_exe()?.with_file_name("bare");
        ensure!(program.is_file(), "{} is missing: build all binaries of e2e", program.display());
        let arguments = [port.to_string(), file.display().to_string()];
        let mut process = Process::start("bare", &dir, &program, &arguments)?;
        let url = format!("http://127.0.0.1:{port}");
        process.ready(&format!("{url}/answer"), Duration::from_secs(10)).await?;
        Ok(Self { url, _process: process })
    }
}

/// Measures a service and its baseline alternately, once both rates are steady. Returns the medians.
///
/// # Errors
/// When a rate cannot be measured.
pub(super) async fn compare(
    what: &str,
    ours: Requests<'_>,
    baseline: Requests<'_>,
) -> Result<(f64, f64)> {
    baseline.until_steady().await?;
    ours.until_steady().await?;
    alternate(what, async || ours.rate(ROUND).await, async || baseline.rate(ROUND).await).await
}

async fn alternate(
    what: &str,
    mut ours: impl AsyncFnMut() -> Result<f64>,
    mut baseline: impl AsyncFnMut() -> Result<f64>,
) -> Result<(f64, f64)> {
    let (mut our_rates, mut baseline_rates) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        baseline_rates.push(baseline().await?);
        our_rates.push(ours().await?);
    }
    let all =
        |rates: &[f64]| rates.iter().map(|rate| thousands(*rate)).collect::<Vec<_>>().join(" ");
    log_progress(format!("{what}: ours {}; baseline {}", all(&our_rates), all(&baseline_rates)));
    Ok((percentile(&mut our_rates, 50.0), percentile(&mut baseline_rates, 50.0)))
}

/// Starts an ingest without processors and APIs.
///
/// # Errors
/// When it does not become ready.
pub(super) async fn start_ingest_only(settings: Vec<String>) -> Result<Stack> {
    let builder = StackBuilder {
        processors: 0,
        apis: 0,
        partitions: PARTITIONS,
        settings,
        ..Stack::builder()
    };
    let stack = builder.start().await?;
    stack.system.wait_until_known(BUDGET, Duration::from_secs(10)).await?;
    Ok(stack)
}

/// Measures requests with one submission each on 512 connections.
///
/// # Errors
/// When the figure cannot be measured.
pub async fn post_one() -> Result<Vec<Row>> {
    let stack = start_ingest_only(Vec::new()).await?;
    let baseline = Baseline::start(b"").await?;
    let requests = |url| Requests { url, connections: POST_CONNECTIONS, script: Some(POST) };
    let ours = format!("{}/v1/budgets/{BUDGET}/submissions", stack.ingests[0].url);
    let theirs = format!("{}/submissions", baseline.url);
    let (ours, theirs) = compare("requests/s", requests(&ours), requests(&theirs)).await?;
    stack.kafka.delete_topic(&stack.topic).await?;
    Ok(vec![Row::share("POST one, 512 connections", "requests/s", ours, theirs, limits::POST)])
}

/// Measures the maximum submission rate of a whole stack, which `visible` needs.
///
/// # Errors
/// When the rate cannot be measured.
pub async fn max_post_rate(stack: &Stack) -> Result<f64> {
    let url = format!("{}/v1/budgets/{BUDGET}/submissions", stack.system.write_to(0));
    let requests = Requests { url: &url, connections: POST_CONNECTIONS, script: Some(POST) };
    requests.until_steady().await?;
    requests.rate(ROUND).await
}

/// Measures requests with a thousand submissions each.
///
/// # Errors
/// When the figure cannot be measured.
pub async fn post_batch() -> Result<Vec<Row>> {
    let stack = start_ingest_only(Vec::new()).await?;
    let url = format!("{}/v1/budgets/{BUDGET}/submissions/batch", stack.ingests[0].url);
    let requests = Requests { url: &url, connections: BATCH_CONNECTIONS, script: Some(BATCH) };
    let baseline =
        async |duration| produce_plain(&stack.kafka, &stack.topic, same_records(), duration).await;
    until_steady(async || baseline(WINDOW).await).await?;
    requests.until_steady().await?;
    let ours = async || Ok(requests.rate(ROUND).await? * 1_000.0);
    let (ours, theirs) = alternate("records/s", ours, async || baseline(ROUND).await).await?;
    stack.kafka.delete_topic(&stack.topic).await?;
    Ok(vec![Row::share("POST batch of 1,000", "records/s", ours, theirs, limits::BATCH)])
}

/// The records that the batches produce.
fn same_records() -> Vec<RawRecord> {
    (0..48_000_u64)
        .map(|number| {
            let health = (number % 9_000) as u32;
            let mut shares = vec![0; 10];
            (shares[1], shares[6], shares[8]) = (1_000, health, 9_000 - health);
            let key = mix_128(number).to_be_bytes().to_vec();
            (
                partition_of(&key, PARTITIONS) as i32,
                key,
                allocation_record(BUDGET, mix_128(!number), shares),
            )
        })
        .collect()
}

/// Writes five hundred people to the log, and waits until they are counted.
///
/// # Errors
/// When they are not counted in time.
pub(super) async fn write_people(stack: &Stack) -> Result<()> {
    let people: Vec<_> =
        (0..500).map(|number| super::records::record(number, 500, stack.partitions)).collect();
    let people = people.into_iter().map(|(partition, key, value)| (partition as u32, key, value));
    stack.kafka.write(&stack.topic, people.collect()).await?;
    stack.wait_until_caught_up(Duration::from_secs(20)).await
}

/// Measures the maximum rate of aggregate reads, and the latency at half of it.
///
/// # Errors
/// When the figure cannot be measured.
pub async fn get_aggregate() -> Result<Vec<Row>> {
    let stack = Stack::builder().start().await?;
    write_people(&stack).await?;
    let path = format!("/v1/budgets/{BUDGET}/aggregate");
    let response = stack.system.get(&path).await?.expect(200)?;
    let baseline = Baseline::start(&response.body).await?;

    let ours = format!("{}{path}", stack.apis[0].url);
    let theirs = format!("{}/answer", baseline.url);
    let requests = |url| Requests { url, connections: READ_CONNECTIONS, script: None };
    let (rate, baseline_rate) = compare("requests/s", requests(&ours), requests(&theirs)).await?;
    log_progress(format!("GET at half of {} requests/s", thousands(rate)));
    let request = paced::get(&stack.apis[0].url, &path);
    let mut latencies =
        paced::at_rate(&stack.apis[0].url, READ_CONNECTIONS, rate / 2.0, DURATION, move |_| {
            request.clone()
        })
        .await?;
    Ok(vec![
        Row::share("GET aggregate, 64 connections", "requests/s", rate, baseline_rate, limits::GET),
        Row::at_most(
            "  p99 at half load",
            percentile(&mut latencies, 99.0),
            limits::GET_P99_MS,
            "ms",
        ),
    ])
}
