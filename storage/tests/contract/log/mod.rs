//! What every log must hold.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use schemas::{LogNumber, LogRef, Offset, PartitionId, Position, Receipt, partition_for};
use storage::log::{
    DeadLetter, DeadLetters, Decision, Entry, LetterBook, LogBounds, LogReader, LogSource,
    LogWriter, NewRecord, ReadError, RecordBatch, SourceError, Start,
};

use tokio::sync::watch;

use super::wait::{PATIENCE, until};

mod owner;
mod records;
mod running;
pub use owner::{Owner, Read};
pub use records::{append, as_read, record};
pub use running::Running;

pub const PARTITIONS: u32 = 3;

pub type Letters = Pin<Box<dyn Future<Output = Vec<DeadLetter>> + Send>>;

pub struct Fixture {
    pub log: LogRef,
    /// Empty, with [`PARTITIONS`] partitions.
    pub writer: Arc<dyn LogWriter>,
    pub source: Mutex<Option<Box<dyn LogSource>>>,
    pub reader: Arc<dyn LogReader>,
    pub letters: Arc<dyn DeadLetters>,
    pub book: Arc<dyn LetterBook>,
    /// Every letter that is there, once each, in no order.
    pub read_letters: Box<dyn Fn() -> Letters + Sync>,
    /// What goes when the fixture goes: a folder, topics.
    pub _kept: Box<dyn Any + Send + Sync>,
}

macro_rules! log_contract {
    ($fixture:expr) => {
        crate::contract::properties! { log, $fixture;
            offsets_are_dense_from_zero_in_each_partition,
            no_records_have_no_offsets,
            concurrent_appenders_share_offsets_without_gap_or_repetition,
            what_is_read_is_what_was_appended_in_order,
            every_partition_is_read_from_where_its_owner_starts,
            records_are_delivered_as_they_come,
            an_owner_without_room_loses_doubles_and_reorders_nothing,
            a_full_partition_does_not_stop_the_others,
            a_partition_that_starts_nowhere_is_not_read,
            a_start_beyond_the_log_asks_for_another_claim,
            the_high_watermark_reaches_the_end,
            a_stop_gives_every_partition_back_and_the_source_can_run_again,
            an_owner_that_wants_to_rejoin_gets_its_partitions_again,
            a_letter_written_twice_is_one_letter,
            the_book_has_every_letter_and_then_what_was_decided_about_it_in_order,
            any_stretch_can_be_read_back_beside_its_owner,
            an_end_that_moves_on_is_followed_and_never_passed,
            reading_back_ends_when_nobody_takes_what_is_read,
            a_record_that_is_not_there_cannot_be_read_back,
        }
    };
}
pub(crate) use log_contract;

/// Appends the records `numbers` to one partition.
async fn fill(fixture: &Fixture, partition: u32, numbers: std::ops::Range<u64>) -> Vec<NewRecord> {
    let records: Vec<_> = numbers.map(|number| record(partition, number)).collect();
    append(&*fixture.writer, &records).await;
    records
}

impl Fixture {
    fn run(&self, owner: &Arc<Owner>) -> Running {
        Running::start(self.source.lock().unwrap().take().unwrap(), &self.log, owner)
    }
}

async fn has_read(owner: &Owner, partition: u32, expected: &[Read]) {
    let enough = async || owner.read(partition).len() >= expected.len();
    until("the owner has as many records as were appended", PATIENCE, enough).await;
    // Not assert_eq: a difference would print megabytes.
    assert!(owner.read(partition) == expected, "partition {partition} was not read as appended");
}

pub async fn offsets_are_dense_from_zero_in_each_partition(log: &Fixture) {
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

pub async fn no_records_have_no_offsets(log: &Fixture) {
    assert!(log.writer.append(Vec::new()).await.is_empty());
}

pub async fn concurrent_appenders_share_offsets_without_gap_or_repetition(log: &Fixture) {
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
    let mut taken = [BTreeSet::new(), BTreeSet::new()];
    for appender in appenders {
        for offsets in appender.await.unwrap() {
            for (taken, offset) in taken.iter_mut().zip(offsets) {
                assert!(taken.insert(offset.0), "{offset} was given twice");
            }
        }
    }
    for taken in taken {
        assert!(taken.into_iter().eq(0..APPENDERS * APPENDS));
    }
}

pub async fn what_is_read_is_what_was_appended_in_order(log: &Fixture) {
    let mut appended = Vec::new();
    for partition in 0..PARTITIONS {
        appended.push(fill(log, partition, 0..2_500).await);
    }
    let owner = Owner::from_start();
    let running = log.run(&owner);
    for (partition, records) in (0..).zip(&appended) {
        has_read(&owner, partition, &as_read(records, 0)).await;
    }
    running.stop().await.1.unwrap();
    for (partition, records) in (0..).zip(&appended) {
        has_read(&owner, partition, &as_read(records, 0)).await;
    }
}

pub async fn every_partition_is_read_from_where_its_owner_starts(log: &Fixture) {
    let mut appended = Vec::new();
    for partition in 0..PARTITIONS {
        appended.push(fill(log, partition, 0..300).await);
    }
    let starts = [0, 299, 300];
    let owner = Owner::new(move |partition| Start::At(Position(starts[partition.0 as usize])));
    let running = log.run(&owner);
    until("the partitions are assigned", PATIENCE, async || owner.owns() == PARTITIONS as usize)
        .await;
    let bounds = LogBounds { low: Position(0), high: Position(300) };
    for (partition, start) in (0..).zip(starts) {
        assert_eq!(owner.bounds(partition), Some(bounds));
        let mut records = appended[partition as usize][start as usize..].to_vec();
        records.extend(fill(log, partition, 300..310).await);
        has_read(&owner, partition, &as_read(&records, start)).await;
    }
    running.stop().await.1.unwrap();
}

pub async fn records_are_delivered_as_they_come(log: &Fixture) {
    let owner = Owner::from_start();
    let running = log.run(&owner);
    for number in 0..20 {
        append(&*log.writer, &[record(1, number)]).await;
        let come = async || owner.read(1).len() == number as usize + 1;
        until("the lone record is delivered", PATIENCE, come).await;
    }
    running.stop().await.1.unwrap();
}

pub async fn an_owner_without_room_loses_doubles_and_reorders_nothing(log: &Fixture) {
    let owner = Owner::from_start();
    // Every offer is refused a few times before it is taken.
    owner.has_room(|offers: u64, _: &RecordBatch| offers.is_multiple_of(4));
    let running = log.run(&owner);
    let mut appended = vec![Vec::new(); PARTITIONS as usize];
    for round in 0..10 {
        for partition in 0..PARTITIONS {
            let numbers = round * 400..(round + 1) * 400;
            appended[partition as usize].extend(fill(log, partition, numbers).await);
        }
    }
    for (partition, records) in (0..).zip(&appended) {
        has_read(&owner, partition, &as_read(records, 0)).await;
    }
    assert!(owner.offers() > owner.batches(), "nothing was given back");
    running.stop().await.1.unwrap();
}

pub async fn a_full_partition_does_not_stop_the_others(log: &Fixture) {
    let owner = Owner::from_start();
    owner.has_room(|_, batch: &RecordBatch| batch.partition() != PartitionId(0));
    let stuck = fill(log, 0, 0..3_000).await;
    let running = log.run(&owner);
    let flowing = fill(log, 1, 0..3_000).await;
    has_read(&owner, 1, &as_read(&flowing, 0)).await;
    assert!(owner.read(0).is_empty());
    owner.has_room(|_, _: &RecordBatch| true);
    has_read(&owner, 0, &as_read(&stuck, 0)).await;
    running.stop().await.1.unwrap();
}

pub async fn a_partition_that_starts_nowhere_is_not_read(log: &Fixture) {
    let owner = Owner::new(|partition| match partition {
        PartitionId(1) => Start::Nowhere,
        _ => Start::At(Position::START),
    });
    fill(log, 1, 0..10).await;
    let running = log.run(&owner);
    until("the partitions are assigned", PATIENCE, async || owner.owns() == PARTITIONS as usize)
        .await;
    fill(log, 1, 10..20).await;
    for partition in [0, 2] {
        let records = fill(log, partition, 0..500).await;
        has_read(&owner, partition, &as_read(&records, 0)).await;
    }
    running.stop().await.1.unwrap();
    assert!(owner.read(1).is_empty());
}

pub async fn a_start_beyond_the_log_asks_for_another_claim(log: &Fixture) {
    fill(log, 0, 0..10).await;
    let owner = Owner::new(|partition| match partition {
        PartitionId(0) => Start::At(Position(11)),
        _ => Start::At(Position::START),
    });
    let (_, outcome) = log.run(&owner).end().await;
    assert!(matches!(outcome, Err(SourceError::Rejoin(_))), "{outcome:?}");
    assert!(owner.read(0).is_empty());
    assert_eq!(owner.owns(), 0);
}

pub async fn the_high_watermark_reaches_the_end(log: &Fixture) {
    fill(log, 0, 0..70).await;
    let owner = Owner::from_start();
    let running = log.run(&owner);
    let reached = |end| {
        let owner = Arc::clone(&owner);
        async move {
            let heard = async || owner.high(0) == Some(Position(end));
            until("the high watermark is at the end", PATIENCE, heard).await;
        }
    };
    reached(70).await;
    fill(log, 0, 70..75).await;
    reached(75).await;
    running.stop().await.1.unwrap();
}

pub async fn a_stop_gives_every_partition_back_and_the_source_can_run_again(log: &Fixture) {
    let mut records = fill(log, 0, 0..100).await;
    let owner = Owner::from_start();
    let running = log.run(&owner);
    has_read(&owner, 0, &as_read(&records, 0)).await;
    let (source, outcome) = running.stop().await;
    assert_eq!(outcome, Ok(()));
    assert_eq!((owner.owns(), owner.has_lost_any()), (0, false));

    records.extend(fill(log, 0, 100..200).await);
    let second = Owner::from_start();
    let running = Running::start(source, &log.log, &second);
    has_read(&second, 0, &as_read(&records, 0)).await;
    running.stop().await.1.unwrap();
    assert_eq!(owner.read(0).len(), 100);
}

pub async fn an_owner_that_wants_to_rejoin_gets_its_partitions_again(log: &Fixture) {
    let records = fill(log, 2, 0..100).await;
    let owner = Owner::from_start();
    let running = log.run(&owner);
    has_read(&owner, 2, &as_read(&records, 0)).await;
    owner.rejoin();
    let (source, outcome) = running.end().await;
    assert!(matches!(outcome, Err(SourceError::Rejoin(_))), "{outcome:?}");
    assert_eq!(owner.owns(), 0);

    let second = Owner::from_start();
    let running = Running::start(source, &log.log, &second);
    has_read(&second, 2, &as_read(&records, 0)).await;
    running.stop().await.1.unwrap();
}

pub async fn a_letter_written_twice_is_one_letter(log: &Fixture) {
    let letter = |partition, offset| DeadLetter {
        place: Receipt {
            log: LogNumber::FIRST,
            partition: PartitionId(partition),
            offset: Offset(offset),
        },
        reason: format!("the value is not a submission ({offset})"),
        key: vec![0, 255, offset as u8],
        value: vec![1; 3 * offset as usize],
    };
    let letters = [letter(0, 7), letter(1, 7), letter(0, 8)];
    log.letters.put(&letters[..2]).await.unwrap();
    log.letters.put(&letters).await.unwrap();
    log.letters.put(&[]).await.unwrap();
    let by_place = |letters: Vec<DeadLetter>| -> BTreeMap<_, _> {
        letters
            .into_iter()
            .map(|letter| ((letter.place.partition, letter.place.offset), letter))
            .collect()
    };
    let read = (log.read_letters)().await;
    assert_eq!(read.len(), letters.len());
    assert_eq!(by_place(read), by_place(letters.to_vec()));
}

async fn read_back(
    log: &Fixture,
    partition: u32,
    stretch: std::ops::Range<u64>,
) -> Result<Vec<Read>, ReadError> {
    let stretch = Position(stretch.start)..Position(stretch.end);
    let mut batches = log.reader.read(PartitionId(partition), stretch);
    let mut read = Vec::new();
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        assert_eq!(batch.partition(), PartitionId(partition));
        read.extend(in_batch(&batch));
    }
    Ok(read)
}

fn in_batch(batch: &RecordBatch) -> impl Iterator<Item = Read> + '_ {
    batch.iter().map(|record| (record.offset, record.key.to_vec(), record.value.to_vec()))
}

pub async fn any_stretch_can_be_read_back_beside_its_owner(log: &Fixture) {
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
        assert!(read_back(log, 1, from..to).await.as_deref() == Ok(expected), "{from}..{to}");
    }
    has_read(&owner, 1, &all).await;
    let (source, outcome) = running.stop().await;
    outcome.unwrap();
    assert_eq!(log.reader.identity(), source.identity());
    assert_eq!(log.reader.partitions(), log.log.partitions);
}

pub async fn an_end_that_moves_on_is_followed_and_never_passed(log: &Fixture) {
    let all = as_read(&fill(log, 1, 0..3_000).await, 0);
    let (end, until) = watch::channel(Position(0));
    let mut batches = log.reader.follow(PartitionId(1), Position(0), until);
    let mut read = Vec::new();
    for to in [1, 2_500, 2_501, 3_000] {
        end.send_replace(Position(to));
        while read.len() < to as usize {
            read.extend(in_batch(&batches.recv().await.unwrap().unwrap()));
        }
        assert!(read == all[..to as usize], "up to {to}");
    }
    drop(end);
    assert!(batches.recv().await.is_none(), "nobody can move the end any more");
}

pub async fn reading_back_ends_when_nobody_takes_what_is_read(log: &Fixture) {
    fill(log, 0, 0..20_000).await;
    let mut batches = log.reader.read(PartitionId(0), Position(0)..Position(20_000));
    batches.recv().await.unwrap().unwrap();
    batches.close();
    let mut waiting = 0;
    while batches.recv().await.is_some() {
        waiting += 1;
    }
    assert!(waiting < 9, "{waiting} batches were read ahead");
}

pub async fn a_record_that_is_not_there_cannot_be_read_back(log: &Fixture) {
    fill(log, 0, 0..10).await;
    let outcome = read_back(log, 0, 20..21).await;
    assert_eq!(outcome, Err(ReadError::Missing(Position(20))));
}

pub async fn the_book_has_every_letter_and_then_what_was_decided_about_it_in_order(log: &Fixture) {
    let place = |offset| Receipt {
        log: LogNumber::FIRST,
        partition: PartitionId(2),
        offset: Offset(offset),
    };
    let letters: Vec<_> = [5_u64, 6]
        .map(|offset| DeadLetter {
            place: place(offset),
            reason: format!("no reason at all ({offset})"),
            key: vec![1; 16],
            value: vec![2; offset as usize],
        })
        .into();
    log.letters.put(&letters).await.unwrap();
    let replay = Decision::Replay {
        attempt: uuid::Uuid::new_v4(),
        partition: PartitionId(1),
        from: Position(70),
    };
    let replayed = Decision::Replayed { partition: PartitionId(1), offset: Offset(71) };
    let decided = [(5, replay), (6, Decision::Dropped), (5, replayed)];
    for (offset, decision) in decided {
        log.book.decide(place(offset), decision).await.unwrap();
    }

    let mut entries = log.book.entries();
    let mut read: BTreeMap<u64, Vec<Entry>> = BTreeMap::new();
    while let Some(entry) = entries.recv().await {
        let entry = entry.unwrap();
        let (Entry::Letter(place, _) | Entry::Decided(place, _)) = &entry else {
            panic!("nobody else writes here");
        };
        assert_eq!(place.partition, PartitionId(2));
        read.entry(place.offset.0).or_default().push(entry);
    }
    assert_eq!(read.len(), 2);
    for (offset, entries) in read {
        let Some((Entry::Letter(_, put_away), others)) = entries.split_first() else {
            panic!("{entries:?}");
        };
        assert_eq!(put_away.reason, format!("no reason at all ({offset})"));
        assert_eq!((put_away.key_bytes, put_away.value_bytes), (16, offset));
        let age_ms = now_ms().abs_diff(put_away.put_at_ms);
        assert!(age_ms < 60_000, "put away {age_ms} ms ago");
        let expected = decided.iter().filter(|(letter, _)| *letter == offset);
        let expected: Vec<_> =
            expected.map(|(_, decision)| Entry::Decided(place(offset), *decision)).collect();
        assert_eq!(others, expected);
    }
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_millis() as u64
}
