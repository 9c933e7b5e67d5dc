//! The log's identity: a topic that was deleted and recreated under its name is not mistaken for the old one.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::record::{allocation_record, mix_128, partition_of, shares};
use e2e::response::send;
use e2e::scenario::scenario;
use e2e::stack::Stack;
use e2e::stores::StoredPartition;
use e2e::wait::eventually;
use reqwest::Method;

const BUDGET: &str = "taxes";

/// Builds `count` records of people that belong to `partition`; another `salt` yields other people.
fn records(
    partition: u32,
    partitions: u32,
    count: usize,
    salt: u64,
) -> Vec<(u32, Vec<u8>, Vec<u8>)> {
    (0..)
        .map(|number| salt * 1_000_000 + number)
        .map(|number| (number, mix_128(number).to_be_bytes().to_vec()))
        .filter(|(_, key)| partition_of(key, partitions) == partition)
        .map(|(number, key)| {
            (partition, key, allocation_record(BUDGET, mix_128(!number), shares(number, 10)))
        })
        .take(count)
        .collect()
}

#[test]
fn a_recreated_topic_halts_exactly_the_partitions_whose_records_differ() {
    scenario(async || {
        let mut stack = Stack::builder().start().await?;
        stack.kafka.write(&stack.topic, records(0, stack.partitions, 20, 1)).await?;
        stack.wait_until_caught_up(Duration::from_secs(60)).await?;
        let before = stack.tables().await?.partition(0).await?;

        stack.processors[0].terminate(Duration::from_secs(15)).await?;
        stack.kafka.delete_topic(&stack.topic).await?;
        stack.kafka.create_topic(&stack.topic, stack.partitions).await?;
        // Longer than the old topic, so that only the records' content differs.
        stack.kafka.write(&stack.topic, records(0, stack.partitions, 30, 2)).await?;
        stack.kafka.write(&stack.topic, records(1, stack.partitions, 10, 2)).await?;

        // The processor is alive but not ready.
        stack.processors[0].respawn()?;
        let url = format!("{}/readyz", stack.processors[0].url);
        let system = stack.system.clone();
        eventually("readiness names the halted partition", Duration::from_secs(60), async || {
            let answer = send(system.request(Method::GET, url.clone())).await?.expect(503)?;
            ensure!(answer.text().contains("partition 0:"), "{}", answer.text());
            ensure!(!answer.text().contains("partition 1:"), "{}", answer.text());
            Ok(())
        })
        .await?;
        let metric = async |name: &str| stack.processors[0].metric(name).await;
        ensure!(metric("allocator_processor_partition_halted{partition=\"0\"}").await? == 1.0);
        ensure!(metric("allocator_processor_partition_halted{").await? == 1.0);

        let tables = stack.tables().await?;
        eventually("the other partitions make progress", Duration::from_secs(30), async || {
            let other = tables.partition(1).await?.map_or(0, |stored| stored.position);
            ensure!(other == 10, "partition 1 is at {other}");
            Ok(())
        })
        .await?;
        check_unchanged(before, tables.partition(0).await?)
    });
}

#[test]
fn a_log_that_ends_before_the_committed_position_halts_the_partition() {
    scenario(async || {
        let mut stack = Stack::builder().start().await?;
        stack.kafka.write(&stack.topic, records(2, stack.partitions, 20, 3)).await?;
        stack.wait_until_caught_up(Duration::from_secs(60)).await?;
        let before = stack.tables().await?.partition(2).await?;
        stack.processors[0].terminate(Duration::from_secs(15)).await?;
        stack.kafka.delete_topic(&stack.topic).await?;
        stack.kafka.create_topic(&stack.topic, stack.partitions).await?;
        stack.processors[0].respawn()?;
        eventually("the metrics name the halted partition", Duration::from_secs(60), async || {
            let halted = stack.processors[0]
                .metric("allocator_processor_partition_halted{partition=\"2\"}")
                .await?;
            ensure!(halted == 1.0, "not halted");
            Ok(())
        })
        .await?;
        check_unchanged(before, stack.tables().await?.partition(2).await?)
    });
}

/// Checks that the committed state is unchanged; only the new owner's claim may differ.
fn check_unchanged(before: Option<StoredPartition>, after: Option<StoredPartition>) -> Result<()> {
    let committed =
        |stored: Option<StoredPartition>| stored.map(|stored| (stored.position, stored.tally));
    let (before, after) = (committed(before), committed(after));
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}
