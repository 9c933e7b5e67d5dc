//! Properties of the dead letter journal.

use std::collections::BTreeMap;

use schemas::{LogNumber, Offset, PartitionId, Position, RecordAddress};
use storage::log::{DeadLetter, Decision, JournalEntry};

use super::Fixture;

pub async fn a_dead_letter_appended_twice_is_stored_once(log: &Fixture) {
    let letter = |partition, offset| DeadLetter {
        source: RecordAddress {
            log: LogNumber::FIRST,
            partition: PartitionId(partition),
            offset: Offset(offset),
        },
        reason: format!("the value is not a submission ({offset})"),
        key: vec![0, 255, offset as u8],
        value: vec![1; 3 * offset as usize],
    };
    let letters = [letter(0, 7), letter(1, 7), letter(0, 8)];
    log.dead_letter_writer.append(&letters[..2]).await.unwrap();
    log.dead_letter_writer.append(&letters).await.unwrap();
    log.dead_letter_writer.append(&[]).await.unwrap();
    let by_source = |letters: Vec<DeadLetter>| -> BTreeMap<_, _> {
        letters
            .into_iter()
            .map(|letter| ((letter.source.partition, letter.source.offset), letter))
            .collect()
    };
    let read = (log.read_dead_letters)().await;
    assert_eq!(read.len(), letters.len());
    assert_eq!(by_source(read), by_source(letters.to_vec()));
}

pub async fn the_journal_returns_each_dead_letter_before_its_decisions_in_order(log: &Fixture) {
    let source = |offset| RecordAddress {
        log: LogNumber::FIRST,
        partition: PartitionId(2),
        offset: Offset(offset),
    };
    let letters: Vec<_> = [5_u64, 6]
        .map(|offset| DeadLetter {
            source: source(offset),
            reason: format!("a test reason ({offset})"),
            key: vec![1; 16],
            value: vec![2; offset as usize],
        })
        .into();
    log.dead_letter_writer.append(&letters).await.unwrap();
    let replay = Decision::Replay {
        attempt: uuid::Uuid::new_v4(),
        partition: PartitionId(1),
        from: Position(70),
    };
    let replayed = Decision::Replayed { partition: PartitionId(1), offset: Offset(71) };
    let decisions = [(5, replay), (6, Decision::Dropped), (5, replayed)];
    for (offset, decision) in decisions {
        log.dead_letter_journal.decide(source(offset), decision).await.unwrap();
    }

    let mut entries = log.dead_letter_journal.entries();
    let mut read: BTreeMap<u64, Vec<JournalEntry>> = BTreeMap::new();
    while let Some(entry) = entries.recv().await {
        let entry = entry.unwrap();
        let (JournalEntry::DeadLetter(source, _) | JournalEntry::Decision(source, _)) = &entry
        else {
            panic!("a foreign entry");
        };
        assert_eq!(source.partition, PartitionId(2));
        read.entry(source.offset.0).or_default().push(entry);
    }
    assert_eq!(read.len(), 2);
    for (offset, entries) in read {
        let Some((JournalEntry::DeadLetter(_, meta), others)) = entries.split_first() else {
            panic!("{entries:?}");
        };
        assert_eq!(meta.reason, format!("a test reason ({offset})"));
        assert_eq!((meta.key_bytes, meta.value_bytes), (16, offset));
        let age_ms = now_ms().abs_diff(meta.appended_at_ms);
        assert!(age_ms < 60_000, "appended {age_ms} ms ago");
        let expected = decisions.iter().filter(|(letter, _)| *letter == offset);
        let expected: Vec<_> = expected
            .map(|(_, decision)| JournalEntry::Decision(source(offset), *decision))
            .collect();
        assert_eq!(others, expected);
    }
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_millis() as u64
}
