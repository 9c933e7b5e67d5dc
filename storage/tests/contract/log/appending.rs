//! Properties of appends.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemas::{Offset, partition_for};

use super::{Fixture, PARTITIONS, append, record};

pub async fn offsets_in_each_partition_are_contiguous_from_zero(log: &Fixture) {
    let mut next = [0; PARTITIONS as usize];
    for batch in 0..10 {
        let records: Vec<_> = (0..40)
            .map(|number| record((batch + number * number) as u32 % PARTITIONS, number))
            .collect();
        let offsets = append(&*log.writer, &records).await;
        for (record, offset) in records.iter().zip(offsets) {
            let partition = partition_for(&record.key, log.log.partitions);
            let next = &mut next[partition.0 as usize];
            assert_eq!(offset, Offset(*next));
            *next += 1;
        }
    }
}

pub async fn appending_no_records_returns_no_results(log: &Fixture) {
    assert!(log.writer.append(Vec::new()).await.is_empty());
}

pub async fn concurrent_appends_get_unique_contiguous_offsets(log: &Fixture) {
    const APPENDERS: u64 = 16;
    const APPENDS: u64 = 20;
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|appender| {
            let writer = Arc::clone(&log.writer);
            tokio::spawn(async move {
                let mut offsets = Vec::new();
                for number in 0..APPENDS {
                    let records = [record(0, appender), record(1, 1_000 + number)];
                    offsets.push(append(&*writer, &records).await);
                }
                offsets
            })
        })
        .collect();
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    for appender in appenders {
        for offsets in appender.await.unwrap() {
            for (seen, offset) in seen.iter_mut().zip(offsets) {
                assert!(seen.insert(offset.0), "{offset} was returned twice");
            }
        }
    }
    for seen in seen {
        assert!(seen.into_iter().eq(0..APPENDERS * APPENDS));
    }
}
