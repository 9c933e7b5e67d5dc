//! The HTTP routes at their highest rates, against bare servers that do nothing but parse and answer.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::paced;
use super::records::{BUDGET, Written, produce_bare};
use super::report::{Row, percentile, say, thousands};
use super::steady::{WINDOW, until_steady};
use super::wrk::Requests;
use crate::port::free_port;
use crate::process::Process;
use crate::record::{allocation_record, mix_128, partition_of};
use crate::scenario::new_dir;
use crate::stack::{Stack, StackBuilder};

const LASTS: Duration = Duration::from_secs(8);
/// One measurement of several, of which the median counts: a machine is not equally fast at all times.
const ROUND: Duration = Duration::from_secs(5);
const ROUNDS: usize = 9;
const PARTITIONS: u32 = 12;
/// With which the highest rate of `POST` is measured.
pub const POST_CONNECTIONS: u32 = 512;
const BATCH_CONNECTIONS: u32 = 32;
const READ_CONNECTIONS: u32 = 64;
const POST: &str = include_str!("post.lua");
const BATCH: &str = include_str!("batch.lua");

/// The bare server, in a process of its own.
struct Bare {
    url: String,
    _process: Process,
}

impl Bare {
    async fn start(answer: &[u8]) -> Result<Self> {
        let dir = new_dir("bare")?;
        let file = dir.join("answer");
        std::fs::write(&file, answer)?;
        let port = free_port()?;
        let program = std::env::current_exe()?.with_file_name("bare");
        ensure!(program.is_file(), "{} is missing: build all programs of e2e", program.display());
        let arguments = [port.to_string(), file.display().to_string()];
        let mut process = Process::start("bare", &dir, &program, &arguments)?;
        let url = format!("http://127.0.0.1:{port}");
        process.ready(&format!("{url}/answer"), Duration::from_secs(10)).await?;
        Ok(Self { url, _process: process })
    }
}

/// Ours and theirs in turns, once both are as fast as they get: the median of each.
async fn beside(what: &str, ours: Requests<'_>, theirs: Requests<'_>) -> Result<(f64, f64)> {
    theirs.until_steady().await?;
    ours.until_steady().await?;
    in_turns(what, async || ours.rate(ROUND).await, async || theirs.rate(ROUND).await).await
}

async fn in_turns(
    what: &str,
    mut ours: impl AsyncFnMut() -> Result<f64>,
    mut theirs: impl AsyncFnMut() -> Result<f64>,
) -> Result<(f64, f64)> {
    let (mut our_rates, mut their_rates) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        their_rates.push(theirs().await?);
        our_rates.push(ours().await?);
    }
    let all =
        |rates: &[f64]| rates.iter().map(|rate| thousands(*rate)).collect::<Vec<_>>().join(" ");
    say(format!("{what}: ours {}; bare {}", all(&our_rates), all(&their_rates)));
    Ok((percentile(&mut our_rates, 50.0), percentile(&mut their_rates, 50.0)))
}

async fn ingest_alone() -> Result<Stack> {
    let builder =
        StackBuilder { processors: 0, apis: 0, partitions: PARTITIONS, ..Stack::builder() };
    let stack = builder.start().await?;
    stack.system.known(BUDGET, Duration::from_secs(10)).await?;
    Ok(stack)
}

/// One submission a request, 512 connections.
///
/// # Errors
/// When it cannot be measured.
pub async fn post_one() -> Result<Vec<Row>> {
    let stack = ingest_alone().await?;
    let bare = Bare::start(b"").await?;
    let requests = |url| Requests { url, connections: POST_CONNECTIONS, script: Some(POST) };
    let ours = format!("{}/v1/budgets/{BUDGET}/submissions", stack.ingests[0].url);
    let theirs = format!("{}/submissions", bare.url);
    let (ours, theirs) = beside("requests/s", requests(&ours), requests(&theirs)).await?;
    stack.kafka.delete_topic(&stack.topic).await?;
    Ok(vec![Row::share("POST one, 512 connections", "requests/s", ours, theirs, 40.0)])
}

/// The highest rate of submissions that a whole stack takes; what `visible` needs to know.
///
/// # Errors
/// When it cannot be measured.
pub async fn highest_post_rate(stack: &Stack) -> Result<f64> {
    let url = format!("{}/v1/budgets/{BUDGET}/submissions", stack.system.write_to(0));
    let requests = Requests { url: &url, connections: POST_CONNECTIONS, script: Some(POST) };
    requests.until_steady().await?;
    requests.rate(ROUND).await
}

/// A thousand submissions a request.
///
/// # Errors
/// When it cannot be measured.
pub async fn post_batch() -> Result<Vec<Row>> {
    let stack = ingest_alone().await?;
    let url = format!("{}/v1/budgets/{BUDGET}/submissions/batch", stack.ingests[0].url);
    let requests = Requests { url: &url, connections: BATCH_CONNECTIONS, script: Some(BATCH) };
    let bare = async |lasts| produce_bare(&stack.kafka, &stack.topic, same_records(), lasts).await;
    until_steady(async || bare(WINDOW).await).await?;
    requests.until_steady().await?;
    let ours = async || Ok(requests.rate(ROUND).await? * 1_000.0);
    let (ours, theirs) = in_turns("records/s", ours, async || bare(ROUND).await).await?;
    stack.kafka.delete_topic(&stack.topic).await?;
    Ok(vec![Row::share("POST batch of 1,000", "records/s", ours, theirs, 50.0)])
}

/// The records that the batches come to.
fn same_records() -> Vec<Written> {
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

/// The aggregate: as often as possible, and how long it takes at half of that.
///
/// # Errors
/// When it cannot be measured.
pub async fn get_aggregate() -> Result<Vec<Row>> {
    let stack = Stack::builder().start().await?;
    let people: Vec<_> =
        (0..500).map(|number| super::records::record(number, 500, stack.partitions)).collect();
    let people = people.into_iter().map(|(partition, key, value)| (partition as u32, key, value));
    stack.kafka.write(&stack.topic, people.collect()).await?;
    stack.caught_up(Duration::from_secs(20)).await?;
    let path = format!("/v1/budgets/{BUDGET}/aggregate");
    let answer = stack.system.get(&path).await?.expect(200)?;
    let bare = Bare::start(&answer.body).await?;

    let ours = format!("{}{path}", stack.apis[0].url);
    let theirs = format!("{}/answer", bare.url);
    let requests = |url| Requests { url, connections: READ_CONNECTIONS, script: None };
    let (rate, bare_rate) = beside("requests/s", requests(&ours), requests(&theirs)).await?;
    say(format!("GET at half of {} requests/s", thousands(rate)));
    let request = paced::get(&stack.apis[0].url, &path);
    let mut took =
        paced::at_rate(&stack.apis[0].url, READ_CONNECTIONS, rate / 2.0, LASTS, move |_| {
            request.clone()
        })
        .await?;
    Ok(vec![
        Row::share("GET aggregate, 64 connections", "requests/s", rate, bare_rate, 60.0),
        Row::below("  p99 at half load", percentile(&mut took, 99.0), 5.0, "ms"),
    ])
}
