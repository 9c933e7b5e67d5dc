//! What partitions and budgets cost by their number: CPU time without load, and freshness under a paced load, with
//! three processors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::limits::{IDLE_CPU_PERCENT, MANY_VISIBLE_P99_MS};
use super::paced;
use super::report::{Row, log_progress, percentile};
use super::size::size;
use super::visible::{SAMPLES, samples};
use crate::stack::{Stack, StackBuilder};
use crate::wait::eventually;

const PROCESSORS: usize = 3;
const PARTITIONS: u32 = 1_024;
const BUDGETS: usize = 1_000;
/// Partitions of the log with many budgets.
const FEW_PARTITIONS: u32 = 12;
/// Submissions per second, over all budgets.
const BUDGETS_RATE: f64 = 500.0;
/// Submissions per second, over all partitions. Hardly two of them meet in a commit, and each commit is a lightweight
/// transaction.
const PARTITIONS_RATE: f64 = 200.0;
const CONNECTIONS: u32 = 32;
/// The first claims and publications are over by then.
const SETTLE: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(30);
const LOAD: Duration = Duration::from_secs(30);
const START_TIMEOUT: Duration = Duration::from_secs(300);
/// Submissions of a batch request; the maximum.
const BATCH: usize = 1_000;
/// Requests that are sent at the same time to each budget once.
const LANES: usize = 4;

/// Measures three processors on a log of 1,024 partitions.
///
/// # Errors
/// When the figures cannot be measured.
pub async fn many_partitions() -> Result<Vec<Row>> {
    let partitions = size("BENCH_MANY_PARTITIONS", PARTITIONS)?;
    measure(&format!("{partitions} partitions"), partitions, 1, PARTITIONS_RATE).await
}

/// Measures three processors with a thousand budgets.
///
/// # Errors
/// When the figures cannot be measured.
pub async fn many_budgets() -> Result<Vec<Row>> {
    let budgets = size("BENCH_MANY_BUDGETS", BUDGETS as u32)?;
    measure(&format!("{budgets} budgets"), FEW_PARTITIONS, budgets as usize, BUDGETS_RATE).await
}

async fn measure(what: &str, partitions: u32, budgets: usize, rate: f64) -> Result<Vec<Row>> {
    let mut stack = StackBuilder { processors: 0, partitions, ..Stack::builder() }.start().await?;
    let names: Vec<_> = (0..budgets).map(|number| format!("many-{number}")).collect();
    log_progress(format!("defining {budgets} budgets"));
    for_each(&names, async |name| stack.system.define(name, 2).await).await?;
    let owned_after = start_processors(&mut stack).await?;
    // The first submission to a budget freezes it, which is no part of the figure.
    log_progress("first submissions");
    for_each(&names, async |name| {
        stack.system.submit(name, "first", &[6_000, 4_000]).await.map(drop)
    })
    .await?;
    write_to_every_partition(&stack, &names[0]).await?;
    stack.wait_until_caught_up(START_TIMEOUT).await?;
    tokio::time::sleep(SETTLE).await;

    log_progress(format!("idle with {what}"));
    let idle = cpu_percent(&mut stack, tokio::time::sleep(IDLE)).await?.0;
    log_progress(format!("{rate} submissions/s with {what}"));
    let (loaded, visible) = under_load(&mut stack, &names, rate).await?;
    let resident: Vec<_> = stack
        .processors
        .iter()
        .map(|processor| Ok(processor.process.resident_bytes()? / 1_000_000))
        .collect::<Result<_>>()?;
    stack.processors.clear();
    stack.kafka.delete_topic(&stack.topic).await?;

    let busiest = idle.iter().map(|(_, percent)| *percent).fold(0.0, f64::max);
    let p99 = percentile(&mut visible.clone(), 99.0);
    let p50 = percentile(&mut visible.clone(), 50.0);
    Ok(vec![
        Row::at_most(
            &format!("{what}, idle CPU of the busiest process"),
            busiest,
            IDLE_CPU_PERCENT,
            "% of a core",
        ),
        Row::info("  of each process", listed(&idle)),
        Row::at_most(
            &format!("{what}, submission to visible at {rate}/s, p99"),
            p99,
            MANY_VISIBLE_P99_MS,
            "ms",
        ),
        Row::info("  p50", format!("{p50:.1} ms")),
        Row::info("  CPU of each process meanwhile, % of a core", listed(&loaded)),
        Row::info(
            "  from the start of the processors until all partitions were owned",
            format!("{:.1} s", owned_after.as_secs_f64()),
        ),
        Row::info("  RSS of the processors", format!("{resident:?} MB")),
    ])
}

/// Submits until every partition has a record: with the first one the broker creates files and the producer's state,
/// which is no part of the figure.
async fn write_to_every_partition(stack: &Stack, budget: &str) -> Result<()> {
    let path = format!("/v1/budgets/{budget}/submissions/batch");
    let batch = AtomicUsize::new(0);
    eventually("every partition has a record", START_TIMEOUT, async || {
        let batch = batch.fetch_add(1, Ordering::Relaxed);
        let submissions: Vec<Value> = (0..BATCH)
            .map(|number| json!({"person": format!("first-{batch}-{number}"), "allocation": {"c0": 100}}))
            .collect();
        stack.system.post(&path, &json!(submissions)).await?.expect(200)?;
        let ends = stack.kafka.ends(&stack.topic).await?;
        ensure!(ends.iter().all(|end| *end > 0), "a partition is empty");
        Ok(())
    })
    .await
}

/// Runs an action for each name, some at a time.
async fn for_each(names: &[String], action: impl AsyncFn(&str) -> Result<()>) -> Result<()> {
    let lane = async |lane: usize| {
        for name in names.iter().skip(lane).step_by(LANES) {
            action(name).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(lane(0), lane(1), lane(2), lane(3)).map(drop)
}

fn listed(percents: &[(String, f64)]) -> String {
    let one = |(name, percent): &(String, f64)| format!("{name} {percent:.1}");
    percents.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Starts the processors, and returns the time until every partition has an owner.
async fn start_processors(stack: &mut Stack) -> Result<Duration> {
    log_progress("starting the processors");
    let started = Instant::now();
    for _ in 0..PROCESSORS {
        stack.start_processor()?;
    }
    loop {
        let owned = stack.owned().await;
        if owned.iter().sum::<u32>() == stack.partitions && owned.iter().all(|owned| *owned > 0) {
            return Ok(started.elapsed());
        }
        ensure!(started.elapsed() < START_TIMEOUT, "owned partitions: {owned:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Measures the CPU time of each service during `activity`, in percent of a core.
async fn cpu_percent<T>(
    stack: &mut Stack,
    activity: impl Future<Output = T>,
) -> Result<(Vec<(String, f64)>, T)> {
    let mut cpu_seconds = || -> Result<Vec<(String, f64)>> {
        stack
            .services()
            .map(|service| Ok((service.name().to_owned(), service.process.cpu_seconds()?)))
            .collect()
    };
    let (before, began) = (cpu_seconds()?, Instant::now());
    let output = activity.await;
    let elapsed = began.elapsed().as_secs_f64();
    let used = cpu_seconds()?.into_iter().zip(before);
    let percents =
        used.map(|((name, after), (_, before))| (name, (after - before) / elapsed * 100.0));
    Ok((percents.collect(), output))
}

/// Submits at a fixed rate to all budgets, and samples how long submissions take to become visible meanwhile.
async fn under_load(
    stack: &mut Stack,
    names: &[String],
    rate: f64,
) -> Result<(Vec<(String, f64)>, Vec<f64>)> {
    let (url, system) = (stack.ingests[0].url.clone(), stack.system.clone());
    let (ingest, budgets) = (url.clone(), names.to_owned());
    let request = move |number: u64| {
        let budget = &budgets[number as usize % budgets.len()];
        let body =
            json!({"person": format!("load-{number}"), "allocation": {"c0": 60.5, "c1": 39.5}});
        paced::post(&ingest, &format!("/v1/budgets/{budget}/submissions"), &body.to_string())
    };
    let activity = async {
        let load = paced::at_rate(&url, CONNECTIONS, rate, LOAD, request);
        let sampling = async {
            // The connections are open, and the owners have begun to commit at the rate.
            tokio::time::sleep(Duration::from_secs(2)).await;
            samples(&system, names, "sample", SAMPLES).await
        };
        tokio::try_join!(load, sampling)
    };
    let (percents, measured) = cpu_percent(stack, activity).await?;
    Ok((percents, measured?.1))
}
