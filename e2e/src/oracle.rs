//! The expected totals, computed naively: the latest submission wins, a repeated id counts once, a submission behind a
//! close marker does not count, nor does a person who is annulled, and an invalid record is a dead letter.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::AddAssign;

use anyhow::{Result, ensure};
use prost::Message;
use serde_json::Value;

use crate::kafka::LogRecord;
use crate::record::{ALLOCATE, ANNUL, CLOSE, RESTORE, SubmissionRecord, WITHDRAW, partition_of};

/// One budget's totals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Number of people.
    pub people: u64,
    /// Sum of shares, by category.
    pub basis_points: Vec<u64>,
    /// Number of people for each whole percent, by category.
    pub distribution: Vec<Vec<u64>>,
}

impl Totals {
    /// Adds allocations up.
    pub fn from_allocations<'a>(
        categories: usize,
        allocations: impl IntoIterator<Item = &'a Vec<u32>>,
    ) -> Self {
        let mut totals = Self {
            people: 0,
            basis_points: vec![0; categories],
            distribution: vec![vec![0; 101]; categories],
        };
        for allocation in allocations {
            totals.people += 1;
            for (category, share) in allocation.iter().enumerate() {
                totals.basis_points[category] += u64::from(*share);
                totals.distribution[category][*share as usize / 100] += 1;
            }
        }
        totals
    }

    /// Parses an aggregate with its distributions.
    ///
    /// # Errors
    /// When the JSON is not an aggregate.
    pub fn parse(aggregate: &Value) -> Result<Self> {
        let categories = aggregate["categories"].as_array().into_iter().flatten();
        let (mut basis_points, mut distribution) = (Vec::new(), Vec::new());
        for category in categories {
            basis_points.push(number(&category["total_basis_points"])?);
            let counts = category["distribution"].as_array().into_iter().flatten();
            distribution.push(counts.map(number).collect::<Result<Vec<_>>>()?);
        }
        Ok(Self { people: number(&aggregate["people"])?, basis_points, distribution })
    }
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().ok_or_else(|| anyhow::anyhow!("{value} is not a whole number"))
}

/// The current allocation of each person, by budget and person key.
type People = BTreeMap<String, HashMap<Vec<u8>, Vec<u32>>>;

/// The outcomes of a partition's records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that changed the totals.
    pub applied: u64,
    /// Records that repeated a submission id, or came too late.
    pub duplicates: u64,
    /// Records that were not valid submissions.
    pub dead_lettered: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.applied += other.applied;
        self.duplicates += other.duplicates;
        self.dead_lettered += other.dead_lettered;
    }
}

/// The state after folding a log.
#[derive(Debug, Default)]
pub struct Oracle {
    people: People,
    categories: BTreeMap<(u32, String), usize>,
    seen: HashSet<(String, Vec<u8>, Vec<u8>)>,
    /// Everyone who has a row, by budget and person key. Nobody else can be annulled.
    known: HashSet<(String, Vec<u8>)>,
    annulled: HashSet<(String, Vec<u8>)>,
    /// The latest marker of each budget in each partition: its revision, and whether it closed the budget.
    markers: BTreeMap<(u32, String), (u64, bool)>,
    tallies: BTreeMap<u32, Tally>,
}

impl Oracle {
    /// Folds a complete log.
    pub fn from_log(records: &[LogRecord], partitions: u32) -> Self {
        let mut oracle = Self::default();
        for record in records {
            let outcome = oracle.fold(record, partitions);
            let tally = oracle.tallies.entry(record.partition).or_default();
            match outcome {
                Some(true) => tally.applied += 1,
                Some(false) => tally.duplicates += 1,
                None => tally.dead_lettered += 1,
            }
        }
        oracle
    }

    /// Folds one record. `Some(false)` for a duplicate, `None` for a dead letter.
    fn fold(&mut self, record: &LogRecord, partitions: u32) -> Option<bool> {
        let submission = SubmissionRecord::decode(&record.value[..]).ok()?;
        let shares = &submission.basis_points;
        let valid_shares = match submission.kind {
            ALLOCATE => {
                (2..=64).contains(&shares.len())
                    && shares.iter().map(|s| u64::from(*s)).sum::<u64>() == 10_000
            }
            WITHDRAW => shares.is_empty(),
            ANNUL | RESTORE => {
                shares.is_empty() && submission.generated_id && submission.marker.is_none()
            }
            _ => false,
        };
        let valid_record = submission.version == 1
            && record.key.len() == 16
            && submission.submission_id.len() == 16
            && is_slug(&submission.budget)
            && partition_of(&record.key, partitions) == record.partition;
        if !(valid_shares && valid_record) {
            return None;
        }
        let budget = submission.budget;
        let person = (budget.clone(), record.key.clone());
        match submission.kind {
            ANNUL if self.known.contains(&person) => {
                self.annulled.insert(person);
                return Some(true);
            }
            ANNUL | RESTORE => {
                self.annulled.remove(&person);
                return Some(true);
            }
            _ => {}
        }
        let latest = self.markers.entry((record.partition, budget.clone())).or_default();
        if let Some(marker) = submission.marker {
            if marker.revision > latest.0 {
                *latest = (marker.revision, marker.kind == CLOSE);
            }
            return Some(true);
        }
        if latest.1 {
            return Some(false);
        }
        if submission.kind == ALLOCATE {
            let first =
                self.categories.entry((record.partition, budget.clone())).or_insert(shares.len());
            if *first != shares.len() {
                return None;
            }
        }
        if !self.seen.insert((budget.clone(), record.key.clone(), submission.submission_id)) {
            return Some(false);
        }
        if submission.kind == ALLOCATE || !submission.generated_id {
            self.known.insert(person);
        }
        let people = self.people.entry(budget).or_default();
        if submission.kind == ALLOCATE {
            people.insert(record.key.clone(), submission.basis_points);
        } else {
            people.remove(&record.key);
        }
        Some(true)
    }

    /// The totals of a budget.
    pub fn totals(&self, budget: &str, categories: usize) -> Totals {
        Totals::from_allocations(
            categories,
            self.counting(budget).map(|(_, allocation)| allocation),
        )
    }

    /// The latest allocations of the people of a budget who are not annulled.
    fn counting(&self, budget: &str) -> impl Iterator<Item = (&Vec<u8>, &Vec<u32>)> {
        let people = self.people.get(budget).into_iter().flatten();
        let budget = budget.to_owned();
        people.filter(move |(key, _)| !self.annulled.contains(&(budget.clone(), (*key).clone())))
    }

    /// The number of people of a budget who are annulled and would count otherwise.
    pub fn annulled(&self, budget: &str) -> u64 {
        let all = self.people.get(budget).map_or(0, HashMap::len);
        (all - self.counting(budget).count()) as u64
    }

    /// The outcomes of a partition's records.
    pub fn tally(&self, partition: u32) -> Tally {
        self.tallies.get(&partition).copied().unwrap_or_default()
    }

    /// The current allocation of each person who counts in a budget, by person key.
    pub fn people(&self, budget: &str) -> HashMap<Vec<u8>, Vec<u32>> {
        let counting = self.counting(budget);
        counting.map(|(key, allocation)| (key.clone(), allocation.clone())).collect()
    }
}

fn is_slug(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(plain) && text.trim_matches('-') == text
}

/// Checks the invariant of every aggregate: people × 10,000 = sum of basis points. Returns the people.
///
/// # Errors
/// When the invariant does not hold.
pub fn check_invariant(aggregate: &Value) -> Result<u64> {
    let people = number(&aggregate["people"])?;
    let sum = aggregate["categories"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|category| number(&category["total_basis_points"]))
        .sum::<Result<u64>>()?;
    ensure!(sum == people * 10_000, "{people} people, but {sum} basis points: {aggregate}");
    Ok(people)
}
