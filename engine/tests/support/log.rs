//! A log of one partition, and its naive count.

use std::collections::HashMap;

use schemas::{
    Action, Allocation, BudgetId, Offset, PartitionCount, PersonKey, Position, Submission,
    SubmissionId, encode_record, partition_for,
};
use storage::log::{LogBounds, Record, RecordBatch};

use crate::PARTITION;

/// No shares.
pub const WITHDRAWN: [u32; 2] = [0, 0];

fn record(person: PersonKey, offset: u64, shares: [u32; 2]) -> (PersonKey, Vec<u8>, [u32; 2]) {
    let action = match shares {
        WITHDRAWN => Action::Withdraw,
        shares => Action::Allocate(Allocation::new(&shares).unwrap()),
    };
    let value = encode_record(&Submission {
        budget: BudgetId::parse("b").unwrap(),
        person,
        id: SubmissionId(uuid::Uuid::from_u128(u128::from(offset))),
        accepted_at_ms: offset,
        action,
    });
    (person, value, shares)
}

/// Records of many people who submit repeatedly: key, value, shares.
pub struct Log(pub Vec<(PersonKey, Vec<u8>, [u32; 2])>);

impl Log {
    pub fn of(records: u64) -> Self {
        Self::of_first_partition(records, 1)
    }

    /// The records of the first of several partitions.
    pub fn of_first_partition(records: u64, partitions: u64) -> Self {
        let count = PartitionCount::new(partitions).unwrap();
        let key = |number: u128| {
            PersonKey::from_bytes(number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        };
        let is_first = |key: &PersonKey| partition_for(key, count) == PARTITION.partition;
        let people: Vec<_> = (0..).map(key).filter(is_first).take(97).collect();
        let record = |offset: u64| {
            let shares =
                [(offset * 37 % 101 * 100) as u32, (10_000 - offset * 37 % 101 * 100) as u32];
            record(people[(offset % 97) as usize], offset, shares)
        };
        Self((0..records).map(record).collect())
    }

    /// Replaces what the person of a record submits. Without shares, the person withdraws.
    pub fn replace(&mut self, offset: u64, shares: [u32; 2]) {
        let person = self.0[offset as usize].0;
        self.0[offset as usize] = record(person, offset, shares);
    }

    pub fn batch(&self, from: u64, to: u64) -> RecordBatch {
        let mut batch = RecordBatch::new(PARTITION.partition);
        for offset in from..to {
            let (person, value, _) = &self.0[offset as usize];
            batch.push(Record { offset: Offset(offset), key: person.as_bytes(), value });
        }
        batch
    }

    pub fn bounds(&self) -> LogBounds {
        LogBounds { low: Position(0), high: Position(self.0.len() as u64) }
    }

    /// Counts people and each category's basis points naively.
    pub fn expected(&self) -> (u64, Vec<u64>) {
        let mut latest: HashMap<_, _> =
            self.0.iter().map(|(person, _, shares)| (*person, *shares)).collect();
        latest.retain(|_, shares| *shares != WITHDRAWN);
        let sum = |category: usize| latest.values().map(|shares| u64::from(shares[category])).sum();
        (latest.len() as u64, vec![sum(0), sum(1)])
    }
}
