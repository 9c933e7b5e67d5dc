//! Properties of readers outside the group.

use schemas::{PartitionId, Position};
use storage::log::{LogBounds, ReadError, RecordBatch};
use tokio::sync::watch;

use super::{Fixture, Owner, Read, as_read, assert_read, fill};

pub async fn any_range_can_be_read_while_the_log_is_consumed(log: &Fixture) {
    let owner = Owner::from_start();
    let running = log.run(&owner);
    let records = fill(log, 1, 0..5_000).await;
    fill(log, 2, 0..10).await;
    let bounds = LogBounds { low: Position(0), high: Position(5_000) };
    assert_eq!(log.reader.bounds(PartitionId(1)).await, Ok(bounds));
    assert_eq!(log.reader.bounds(PartitionId(0)).await.map(|bounds| bounds.high), Ok(Position(0)));
    let all = as_read(&records, 0);
    for (from, to) in [(0, 5_000), (0, 1), (1_999, 2_001), (4_999, 5_000), (700, 700)] {
        let expected = &all[from as usize..to as usize];
        assert!(read_range(log, 1, from..to).await.as_deref() == Ok(expected), "{from}..{to}");
    }
    assert_read(&owner, 1, &all).await;
    let (source, outcome) = running.stop().await;
    outcome.unwrap();
    assert_eq!(log.reader.identity(), source.identity());
    assert_eq!(log.reader.partitions(), log.log.partitions);
}

pub async fn a_stream_follows_an_advancing_end_and_never_passes_it(log: &Fixture) {
    let all = as_read(&fill(log, 1, 0..3_000).await, 0);
    let (end, until) = watch::channel(Position(0));
    let mut batches = log.reader.follow(PartitionId(1), Position(0), until);
    let mut read = Vec::new();
    for to in [1, 2_500, 2_501, 3_000] {
        end.send_replace(Position(to));
        while read.len() < to as usize {
            read.extend(records_of(&batches.recv().await.unwrap().unwrap()));
        }
        assert!(read == all[..to as usize], "up to {to}");
    }
    drop(end);
    assert!(batches.recv().await.is_none(), "the stream ends with the last end");
}

pub async fn reading_ends_when_the_stream_is_closed(log: &Fixture) {
    fill(log, 0, 0..20_000).await;
    let mut batches = log.reader.read(PartitionId(0), Position(0)..Position(20_000));
    batches.recv().await.unwrap().unwrap();
    batches.close();
    let mut buffered = 0;
    while batches.recv().await.is_some() {
        buffered += 1;
    }
    assert!(buffered < 9, "{buffered} batches were read ahead");
}

pub async fn reading_beyond_the_log_reports_a_missing_record(log: &Fixture) {
    fill(log, 0, 0..10).await;
    let outcome = read_range(log, 0, 20..21).await;
    assert_eq!(outcome, Err(ReadError::Missing(Position(20))));
}

async fn read_range(
    log: &Fixture,
    partition: u32,
    range: std::ops::Range<u64>,
) -> Result<Vec<Read>, ReadError> {
    let range = Position(range.start)..Position(range.end);
    let mut batches = log.reader.read(PartitionId(partition), range);
    let mut read = Vec::new();
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        assert_eq!(batch.partition(), PartitionId(partition));
        read.extend(records_of(&batch));
    }
    Ok(read)
}

fn records_of(batch: &RecordBatch) -> impl Iterator<Item = Read> + '_ {
    batch.iter().map(|record| (record.offset, record.key.to_vec(), record.value.to_vec()))
}
