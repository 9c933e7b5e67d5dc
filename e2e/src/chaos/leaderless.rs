//! One real Kafka partition without a leader, on a cluster of three brokers.
//!
//! All topics have one replica, as the services are configured, and the drill places them: one partition is on the
//! third broker, and everything else on the first two. So a kill of the third broker is the fault of one partition and
//! of nothing else. With three replicas the same happens once all brokers of a partition are gone, which takes the
//! others' brokers along in so small a cluster.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::freshness::SICK;
use super::isolation::{Isolation, PARTITIONS};
use super::nemesis::blocking;
use super::verdict::Verdict;
use crate::kafka::Kafka;
use crate::own_servers::{OwnServers, Server};
use crate::stack::{Stack, StackBuilder};
use crate::wait::eventually;

/// The broker of the sick partition.
const LOST_BROKER: (Server, i32) = (Server::Kafka3, 3);
/// Timeout for the controller to notice that a broker is gone or back.
const EFFECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Kills the broker of one partition for `hold` under load.
///
/// # Errors
/// When the fault does not take effect, or the verdict is a failure.
pub async fn run(hold: Duration) -> Result<Verdict> {
    let own = tokio::task::spawn_blocking(OwnServers::shared_with_three_brokers).await??;
    let mut stack = start(own).await?;
    let (kafka, topic) = (stack.kafka.clone(), stack.topic.clone());
    ensure!(kafka.leaderless(&topic).await?.is_empty(), "a partition has no leader at first");
    let drill = Isolation::start(&stack).await?;

    let began = Instant::now();
    blocking(move || own.kill(LOST_BROKER.0)).await?;
    eventually("one partition has no leader", EFFECT_TIMEOUT, async || {
        let leaderless = kafka.leaderless(&topic).await?;
        ensure!(leaderless == [SICK], "without a leader: {leaderless:?}");
        Ok(())
    })
    .await?;
    let effective = Instant::now();
    tokio::time::sleep(hold).await;
    let leaderless = kafka.leaderless(&topic).await?;
    ensure!(leaderless == [SICK], "without a leader at the end: {leaderless:?}");
    let ended = Instant::now();
    blocking(|| own.start_missing()).await?;

    let (mut verdict, samples) = drill.finish(&mut stack, Verdict::default(), ended).await?;
    let others = samples.judge_others(began..ended, &mut verdict);
    let sick = samples.of_sick(effective..ended);
    let refused = sick.iter().filter(|sample| sample.status == Some(503)).count();
    if refused == 0 || refused < sick.len() {
        let other = sick.iter().find(|sample| sample.status != Some(503));
        verdict.wrong.push(format!("{refused} of {} were refused, but {other:?}", sick.len()));
    }
    let slowest = sick.iter().map(|sample| sample.answered_after).max().unwrap_or_default();
    verdict.run = format!(
        "CHAOS-LEADERLESS partition={SICK} for_s={:.0} {others} refused={refused} refused_within_ms={}",
        (ended - began).as_secs_f64(),
        slowest.as_millis()
    );
    verdict.faults.insert("leaderless", 1);
    verdict.require_success()?;
    Ok(verdict)
}

/// Creates the topics, and starts the services on them.
async fn start(own: &OwnServers) -> Result<Stack> {
    let name = Stack::unique_name();
    create_topics(&Kafka::at(&own.servers.kafka), &name).await.context("creating the topics")?;
    let builder = StackBuilder {
        ingests: 2,
        processors: 2,
        apis: 2,
        partitions: PARTITIONS,
        servers: Some(own.servers.clone()),
        name: Some(name),
        ..Stack::builder()
    };
    builder.start().await
}

async fn create_topics(kafka: &Kafka, name: &str) -> Result<()> {
    let broker = |partition: u32| match partition {
        SICK => LOST_BROKER.1,
        other => 1 + (other % 2) as i32,
    };
    let brokers: Vec<i32> = (0..PARTITIONS).map(broker).collect();
    kafka.create_topic_on(name, &brokers, "delete").await?;
    for (topic, cleanup_policy) in Stack::auxiliary_topics(name) {
        kafka.create_topic_on(&topic, &[1], cleanup_policy).await?;
    }
    Ok(())
}
