//! The simulated log: records of every kind, drawn from the seed, and how many of them are appended.
//!
//! Records are encoded by hand, so the simulation shares no encoder with the product. Each record's meaning is kept
//! with its bytes, for the oracle.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fastrand::Rng;
use schemas::{BudgetId, Offset, PartitionCount, PartitionId, PersonKey, Position, partition_for};
use storage::log::{LogBounds, Record, RecordBatch};

/// Percentage of the records that are appended only after every fault has healed.
const AFTER_HEALING_PERCENT: usize = 20;

/// The content of a record that the fold may accept.
#[derive(Debug, Clone)]
pub struct SimSubmission {
    pub budget: BudgetId,
    pub person: PersonKey,
    pub id: u128,
    pub accepted_at_ms: u64,
    /// `None` withdraws.
    pub shares: Option<Vec<u16>>,
    /// The publish step that the record is stamped with.
    pub step: u64,
    /// Set if the record is a marker, and no submission.
    pub marker: Option<SimMarker>,
    /// Set if the record annuls the person (`true`) or restores the person, and is no submission.
    pub annuls: Option<bool>,
}

/// A record that closes a budget or reopens it.
#[derive(Debug, Clone, Copy)]
pub struct SimMarker {
    pub closes: bool,
    pub revision: u64,
}

#[derive(Debug)]
pub struct LogRecord {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// `None` if the record is always rejected.
    pub submission: Option<SimSubmission>,
}

/// Every record of every partition, and how many of them are appended.
pub struct Log {
    pub count: PartitionCount,
    pub budgets: Vec<(BudgetId, usize)>,
    /// The publish step of each budget.
    steps: Vec<u64>,
    pub partitions: Vec<Vec<LogRecord>>,
    high: Vec<AtomicU64>,
    /// The partition of each record, in append order.
    order: Vec<PartitionId>,
    appended: AtomicUsize,
}

struct Person {
    key: PersonKey,
    budget: usize,
    home: PartitionId,
    ids: Vec<u128>,
}

impl Log {
    /// Draws a log from the seed.
    pub fn draw(rng: &mut Rng) -> Self {
        let count = PartitionCount::new(rng.u64(1..=3)).unwrap();
        let budgets: Vec<_> = (0..rng.usize(1..=3))
            .map(|number| (BudgetId::parse(&format!("budget-{number}")).unwrap(), rng.usize(2..=4)))
            .collect();
        let steps = budgets.iter().map(|_| [1, 2, 3, 5][rng.usize(0..4)]).collect();
        let mut people: Vec<_> =
            (0..rng.usize(3..=24)).map(|_| Person::draw(rng, count, budgets.len())).collect();
        let mut log = Self {
            count,
            budgets,
            steps,
            partitions: count.partitions().map(|_| Vec::new()).collect(),
            high: count.partitions().map(|_| AtomicU64::new(0)).collect(),
            order: Vec::new(),
            appended: AtomicUsize::new(0),
        };
        for _ in 0..rng.usize(60..=240) {
            let person = rng.usize(0..people.len());
            let (partition, record) = log.draw_record(rng, &mut people[person]);
            log.partitions[partition.0 as usize].push(record);
            log.order.push(partition);
        }
        log
    }

    /// Draws a time that mostly increases, by an hour a record, so that a log spans days.
    fn draw_acceptance_time(&self, rng: &mut Rng) -> u64 {
        const HOUR_MS: u64 = 3_600_000;
        1_700_000_000_000 + self.order.len() as u64 * HOUR_MS + rng.u64(0..6 * HOUR_MS)
    }

    fn draw_record(&self, rng: &mut Rng, person: &mut Person) -> (PartitionId, LogRecord) {
        let (budget, categories) = &self.budgets[person.budget];
        let mut draft = Draft {
            version: 1,
            budget: budget.as_str().to_owned(),
            id: person.draw_id(rng),
            accepted_at_ms: self.draw_acceptance_time(rng),
            kind: 1,
            shares: draw_shares(rng, *categories),
            // Some records are of an earlier release, which stamps none.
            step: if rng.u32(0..10) == 0 { 1 } else { self.steps[person.budget] },
            marker: None,
            is_annulment: false,
        };
        let (mut home, mut key) = (person.home, person.key.as_bytes().to_vec());
        let mut value = None;
        let mut acceptable = true;
        match rng.u32(0..100) {
            0..15 => (draft.kind, draft.shares) = (2, Vec::new()),
            // Under a person's key, whom it must not affect; often older than another one.
            95.. => {
                (draft.kind, draft.shares) = (2, Vec::new());
                draft.marker =
                    Some(SimMarker { closes: rng.u32(0..3) == 0, revision: rng.u64(1..9) });
            }
            15..25 => {
                acceptable = false;
                match rng.u32(0..11) {
                    0 => value = Some(vec![0xff; rng.usize(1..40)]),
                    1 => draft.version = rng.u64(2..10),
                    2 => key.truncate(rng.usize(0..16)),
                    3 => draft.shares[0] += 1,
                    4 => (draft.kind, acceptable) = (2, false),
                    // Annulments have no shares.
                    5 => draft.kind = [0, 3, 4, 5, 77][rng.usize(0..5)],
                    6 => "No slug".clone_into(&mut draft.budget),
                    7 => draft.id.truncate(15),
                    8 => draft.shares = vec![10_000],
                    // Wrong partition: the person is counted in another one.
                    9 if self.count.get() > 1 => {
                        home = PartitionId((home.0 + 1) % self.count.get())
                    }
                    // Valid, but with another number of categories than the budget: the oracle rejects it. Never the
                    // budget's first allocation.
                    _ if self.has_allocation(home, budget) => {
                        draft.shares = draw_shares(rng, categories + 1);
                        acceptable = true;
                    }
                    _ => value = Some(vec![0xff]),
                }
            }
            25..37 => {
                (draft.kind, draft.shares) = (rng.u64(3..5), Vec::new());
                draft.is_annulment = true;
            }
            _ => {}
        }
        let submission = acceptable.then(|| SimSubmission {
            budget: budget.clone(),
            person: person.key,
            id: u128::from_be_bytes(draft.id.clone().try_into().unwrap()),
            accepted_at_ms: draft.accepted_at_ms,
            shares: (draft.kind == 1)
                .then(|| draft.shares.iter().map(|share| *share as u16).collect()),
            step: draft.step,
            marker: draft.marker,
            annuls: draft.is_annulment.then_some(draft.kind == 3),
        });
        (home, LogRecord { key, value: value.unwrap_or_else(|| draft.encode()), submission })
    }

    /// Whether a partition has an allocation that fixes the budget's number of categories: in front of every marker,
    /// since one behind a close marker does not count.
    fn has_allocation(&self, partition: PartitionId, budget: &BudgetId) -> bool {
        let records = &self.partitions[partition.0 as usize];
        records
            .iter()
            .filter_map(|record| record.submission.as_ref())
            .filter(|submission| submission.budget == *budget)
            .take_while(|submission| submission.marker.is_none())
            .any(|submission| submission.shares.is_some())
    }

    /// The number of records, appended or not.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// The number of records appended before the faults heal.
    pub fn before_healing(&self) -> usize {
        self.len() - self.len() * AFTER_HEALING_PERCENT / 100
    }

    /// The number of records appended so far.
    pub fn appended(&self) -> usize {
        self.appended.load(Ordering::Relaxed)
    }

    /// Appends records until `to` are appended.
    pub fn append_to(&self, to: usize) {
        for index in self.appended()..to.min(self.len()) {
            self.high[self.order[index].0 as usize].fetch_add(1, Ordering::Relaxed);
            self.appended.store(index + 1, Ordering::Relaxed);
        }
    }

    pub fn high(&self, partition: PartitionId) -> Position {
        Position(self.high[partition.0 as usize].load(Ordering::Relaxed))
    }

    pub fn bounds(&self, partition: PartitionId) -> LogBounds {
        LogBounds { low: Position::START, high: self.high(partition) }
    }

    pub fn batch(&self, partition: PartitionId, from: u64, to: u64) -> RecordBatch {
        let mut batch = RecordBatch::new(partition);
        for offset in from..to {
            let LogRecord { key, value, .. } =
                &self.partitions[partition.0 as usize][offset as usize];
            batch.push(Record { offset: Offset(offset), key, value });
        }
        batch
    }
}

impl Person {
    fn draw(rng: &mut Rng, count: PartitionCount, budgets: usize) -> Self {
        let key = PersonKey::from_bytes(rng.u128(..).to_le_bytes());
        let home = partition_for(&key, count);
        Self { key, budget: rng.usize(0..budgets), home, ids: Vec::new() }
    }

    /// Draws a new submission id, or one of the person's latest. The last three are duplicates; older ones are not.
    fn draw_id(&mut self, rng: &mut Rng) -> Vec<u8> {
        let repeated =
            if rng.u32(0..100) < 20 { self.ids.iter().rev().nth(rng.usize(0..7)) } else { None };
        let id = repeated.copied().unwrap_or_else(|| rng.u128(..));
        self.ids.push(id);
        id.to_be_bytes().to_vec()
    }
}

/// Draws shares that sum to 10,000: often whole percents, sometimes everything for one category.
fn draw_shares(rng: &mut Rng, categories: usize) -> Vec<u32> {
    let unit = [1, 100, 10_000][rng.usize(0..3)];
    let mut left = 10_000 / unit;
    let mut shares = vec![0; categories];
    for share in shares.iter_mut().skip(1) {
        let part = rng.u32(0..=left);
        *share = part * unit;
        left -= part;
    }
    shares[0] = left * unit;
    rng.shuffle(&mut shares);
    shares
}

/// A record's fields before they are encoded.
struct Draft {
    version: u64,
    budget: String,
    id: Vec<u8>,
    accepted_at_ms: u64,
    kind: u64,
    shares: Vec<u32>,
    step: u64,
    marker: Option<SimMarker>,
    is_annulment: bool,
}

impl Draft {
    /// Encodes the fields of `submission.proto`, in order.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        number(&mut out, 1, self.version);
        bytes(&mut out, 2, self.budget.as_bytes());
        bytes(&mut out, 3, &self.id);
        number(&mut out, 4, self.accepted_at_ms);
        number(&mut out, 5, self.kind);
        let mut shares = Vec::new();
        self.shares.iter().for_each(|share| varint(&mut shares, u64::from(*share)));
        bytes(&mut out, 6, &shares);
        if self.marker.is_some() || self.is_annulment {
            number(&mut out, 7, 1);
        }
        if let Some(SimMarker { closes, revision }) = self.marker {
            let mut marker = Vec::new();
            number(&mut marker, 1, if closes { 1 } else { 2 });
            number(&mut marker, 2, revision);
            bytes(&mut out, 8, &marker);
        }
        if self.step > 1 {
            number(&mut out, 9, self.step);
        }
        out
    }
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
