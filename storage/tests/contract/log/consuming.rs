//! Properties of the source, which consumes the log for an owner.

use std::sync::Arc;

use schemas::{PartitionId, Position};
use storage::log::{LogBounds, RecordBatch, SourceError, StartPosition};

use super::{
    Fixture, Owner, PARTITIONS, RunningSource, append, as_read, assert_read, fill, record,
};
use crate::contract::wait::{TEST_TIMEOUT, until};

pub async fn records_are_consumed_in_append_order(log: &Fixture) {
    let mut appended = Vec::new();
    for partition in 0..PARTITIONS {
        appended.push(fill(log, partition, 0..2_500).await);
    }
    let owner = Owner::from_start();
    let running = log.run(&owner);
    for (partition, records) in (0..).zip(&appended) {
        assert_read(&owner, partition, &as_read(records, 0)).await;
    }
    running.stop().await.1.unwrap();
    for (partition, records) in (0..).zip(&appended) {
        assert_read(&owner, partition, &as_read(records, 0)).await;
    }
}

pub async fn each_partition_is_consumed_from_its_start_position(log: &Fixture) {
    let mut appended = Vec::new();
    for partition in 0..PARTITIONS {
        appended.push(fill(log, partition, 0..300).await);
    }
    let starts = [0, 299, 300];
    let owner =
        Owner::new(move |partition| StartPosition::At(Position(starts[partition.0 as usize])));
    let running = log.run(&owner);
    until("the partitions are assigned", TEST_TIMEOUT, async || {
        owner.owns() == PARTITIONS as usize
    })
    .await;
    let bounds = LogBounds { low: Position(0), high: Position(300) };
    for (partition, start) in (0..).zip(starts) {
        assert_eq!(owner.bounds(partition), Some(bounds));
        let mut records = appended[partition as usize][start as usize..].to_vec();
        records.extend(fill(log, partition, 300..310).await);
        assert_read(&owner, partition, &as_read(&records, start)).await;
    }
    running.stop().await.1.unwrap();
}

pub async fn single_records_are_delivered_without_waiting_for_a_batch(log: &Fixture) {
    let owner = Owner::from_start();
    let running = log.run(&owner);
    for number in 0..20 {
        append(&*log.writer, &[record(1, number)]).await;
        let delivered = async || owner.read(1).len() == number as usize + 1;
        until("the single record is delivered", TEST_TIMEOUT, delivered).await;
    }
    running.stop().await.1.unwrap();
}

pub async fn a_full_queue_neither_loses_nor_repeats_nor_reorders_records(log: &Fixture) {
    let owner = Owner::from_start();
    // Every batch is refused a few times before it is accepted.
    owner.accepts(|deliveries: u64, _: &RecordBatch| deliveries.is_multiple_of(4));
    let running = log.run(&owner);
    let mut appended = vec![Vec::new(); PARTITIONS as usize];
    for round in 0..10 {
        for partition in 0..PARTITIONS {
            let numbers = round * 400..(round + 1) * 400;
            appended[partition as usize].extend(fill(log, partition, numbers).await);
        }
    }
    for (partition, records) in (0..).zip(&appended) {
        assert_read(&owner, partition, &as_read(records, 0)).await;
    }
    assert!(owner.deliveries() > owner.accepted_batches(), "no batch was refused");
    running.stop().await.1.unwrap();
}

pub async fn a_full_queue_does_not_stop_other_partitions(log: &Fixture) {
    let owner = Owner::from_start();
    owner.accepts(|_, batch: &RecordBatch| batch.partition() != PartitionId(0));
    let stuck = fill(log, 0, 0..3_000).await;
    let running = log.run(&owner);
    let flowing = fill(log, 1, 0..3_000).await;
    assert_read(&owner, 1, &as_read(&flowing, 0)).await;
    assert!(owner.read(0).is_empty());
    owner.accepts(|_, _: &RecordBatch| true);
    assert_read(&owner, 0, &as_read(&stuck, 0)).await;
    running.stop().await.1.unwrap();
}

pub async fn a_paused_partition_is_not_consumed(log: &Fixture) {
    let owner = Owner::new(|partition| match partition {
        PartitionId(1) => StartPosition::Paused,
        _ => StartPosition::At(Position::START),
    });
    fill(log, 1, 0..10).await;
    let running = log.run(&owner);
    until("the partitions are assigned", TEST_TIMEOUT, async || {
        owner.owns() == PARTITIONS as usize
    })
    .await;
    fill(log, 1, 10..20).await;
    for partition in [0, 2] {
        let records = fill(log, partition, 0..500).await;
        assert_read(&owner, partition, &as_read(&records, 0)).await;
    }
    running.stop().await.1.unwrap();
    assert!(owner.read(1).is_empty());
}

pub async fn a_partition_starts_and_stops_at_any_time_and_the_others_are_read_on(log: &Fixture) {
    let owner = Owner::new(|partition| match partition {
        PartitionId(1) => StartPosition::Paused,
        _ => StartPosition::At(Position::START),
    });
    let mut sick = fill(log, 1, 0..300).await;
    let mut well = fill(log, 0, 0..300).await;
    let running = log.run(&owner);
    assert_read(&owner, 0, &as_read(&well, 0)).await;
    owner.start(1, StartPosition::At(Position(100)));
    assert_read(&owner, 1, &as_read(&sick[100..], 100)).await;
    owner.start(1, StartPosition::Paused);
    well.extend(fill(log, 0, 300..400).await);
    assert_read(&owner, 0, &as_read(&well, 0)).await;
    sick.extend(fill(log, 1, 300..400).await);
    well.extend(fill(log, 0, 400..500).await);
    assert_read(&owner, 0, &as_read(&well, 0)).await;
    assert_eq!(owner.read(1).len(), 200, "a stopped partition is not read");
    // Started again before where it was read: what it had delivered comes again.
    owner.start(1, StartPosition::At(Position(250)));
    let twice = [as_read(&sick[100..300], 100), as_read(&sick[250..], 250)].concat();
    assert_read(&owner, 1, &twice).await;
    running.stop().await.1.unwrap();
    assert_eq!(owner.failed_reads(), []);
}

pub async fn a_start_position_beyond_the_log_is_reported_and_the_others_are_read_on(log: &Fixture) {
    let beyond = fill(log, 0, 0..10).await;
    let owner = Owner::new(|partition| match partition {
        PartitionId(0) => StartPosition::At(Position(11)),
        _ => StartPosition::At(Position::START),
    });
    let running = log.run(&owner);
    let failed = async || !owner.failed_reads().is_empty();
    until("the failed read is reported", TEST_TIMEOUT, failed).await;
    assert_eq!(owner.failed_reads(), [PartitionId(0)]);
    let others = fill(log, 1, 0..300).await;
    assert_read(&owner, 1, &as_read(&others, 0)).await;
    assert!(owner.read(0).is_empty());
    assert_eq!(owner.owns(), PARTITIONS as usize);
    owner.start(0, StartPosition::At(Position(4)));
    assert_read(&owner, 0, &as_read(&beyond[4..], 4)).await;
    assert_eq!(owner.failed_reads(), [PartitionId(0)]);
    running.stop().await.1.unwrap();
}

pub async fn the_high_watermark_reaches_the_end_of_the_log(log: &Fixture) {
    fill(log, 0, 0..70).await;
    let owner = Owner::from_start();
    let running = log.run(&owner);
    let reached = |end| {
        let owner = Arc::clone(&owner);
        async move {
            let reported = async || owner.high(0) == Some(Position(end));
            until("the high watermark is at the end", TEST_TIMEOUT, reported).await;
        }
    };
    reached(70).await;
    fill(log, 0, 70..75).await;
    reached(75).await;
    running.stop().await.1.unwrap();
}

pub async fn stopping_revokes_all_partitions_and_the_source_can_run_again(log: &Fixture) {
    let mut records = fill(log, 0, 0..100).await;
    let owner = Owner::from_start();
    let running = log.run(&owner);
    assert_read(&owner, 0, &as_read(&records, 0)).await;
    let (source, outcome) = running.stop().await;
    assert_eq!(outcome, Ok(()));
    assert_eq!((owner.owns(), owner.has_lost_any()), (0, false));

    records.extend(fill(log, 0, 100..200).await);
    let second = Owner::from_start();
    let running = RunningSource::start(source, &log.log, &second);
    assert_read(&second, 0, &as_read(&records, 0)).await;
    running.stop().await.1.unwrap();
    assert_eq!(owner.read(0).len(), 100);
}

pub async fn a_rejoin_assigns_the_partitions_again(log: &Fixture) {
    let records = fill(log, 2, 0..100).await;
    let owner = Owner::from_start();
    let running = log.run(&owner);
    assert_read(&owner, 2, &as_read(&records, 0)).await;
    owner.rejoin();
    let (source, outcome) = running.end().await;
    assert!(matches!(outcome, Err(SourceError::Rejoin(_))), "{outcome:?}");
    assert_eq!(owner.owns(), 0);

    let second = Owner::from_start();
    let running = RunningSource::start(source, &log.log, &second);
    assert_read(&second, 2, &as_read(&records, 0)).await;
    running.stop().await.1.unwrap();
}
