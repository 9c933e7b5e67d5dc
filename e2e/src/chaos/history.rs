//! The requests of a run and their outcomes, and their comparison with the log.

use std::collections::{BTreeSet, HashMap, HashSet};

use prost::Message;

use crate::kafka::LogRecord;
use crate::record::SubmissionRecord;

/// The outcome of one request, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The submission is in the log at this address.
    Acknowledged {
        /// The partition.
        partition: u32,
        /// The offset.
        offset: u64,
    },
    /// The request was rejected without effect.
    Rejected,
    /// The submission may be in the log.
    Unknown,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// The submission id.
    pub submission: u128,
    /// The outcome.
    pub outcome: Outcome,
}

/// All requests of a run.
#[derive(Debug, Default)]
pub struct History {
    /// The requests, unordered.
    pub attempts: Vec<Attempt>,
    /// The last accepted allocation of each person, `None` once withdrawn.
    pub last: HashMap<u64, Option<Vec<u32>>>,
    /// People with a request of unknown outcome, which may still take effect.
    pub uncertain: HashSet<u64>,
    /// Responses that violate the contract.
    pub wrong: Vec<String>,
}

/// The differences between a log and the requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogComparison {
    /// Acknowledged submissions that are not at their receipt's address.
    pub lost: u64,
    /// Records beyond the acknowledged and the possible ones.
    pub doubled: u64,
    /// Descriptions of the first differences.
    pub examples: Vec<String>,
}

impl History {
    /// Merges another history.
    pub fn merge(&mut self, other: Self) {
        self.attempts.extend(other.attempts);
        self.last.extend(other.last);
        self.uncertain.extend(other.uncertain);
        self.wrong.extend(other.wrong);
    }

    /// Counts the requests whose outcome satisfies a condition.
    pub fn count(&self, matches: impl Fn(Outcome) -> bool) -> u64 {
        self.attempts.iter().filter(|attempt| matches(attempt.outcome)).count() as u64
    }

    /// The expected allocation of each person without requests of unknown outcome.
    pub fn certain(&self) -> impl Iterator<Item = (u64, Option<&Vec<u32>>)> {
        let certain = self.last.iter().filter(|(person, _)| !self.uncertain.contains(person));
        certain.map(|(person, last)| (*person, last.as_ref()))
    }

    /// Compares the requests with a log that holds no other records.
    pub fn compare(&self, log: &[LogRecord]) -> LogComparison {
        let mut found: HashMap<u128, BTreeSet<(u32, u64)>> = HashMap::new();
        for record in log {
            let id = SubmissionRecord::decode(&record.value[..])
                .ok()
                .and_then(|stored| <[u8; 16]>::try_from(stored.submission_id).ok());
            if let Some(id) = id {
                let address = (record.partition, record.offset);
                found.entry(u128::from_be_bytes(id)).or_default().insert(address);
            }
        }
        let mut expected: HashMap<u128, (BTreeSet<(u32, u64)>, u64)> = HashMap::new();
        for Attempt { submission, outcome } in &self.attempts {
            let (acknowledged, unknown) = expected.entry(*submission).or_default();
            match outcome {
                Outcome::Acknowledged { partition, offset } => {
                    acknowledged.insert((*partition, *offset));
                }
                Outcome::Rejected => {}
                Outcome::Unknown => *unknown += 1,
            }
        }
        let mut comparison = LogComparison::default();
        for (id, addresses) in &found {
            let (acknowledged, unknown) = expected
                .get(id)
                .map_or((0, 0), |(addresses, unknown)| (addresses.len() as u64, *unknown));
            let surplus = (addresses.len() as u64).saturating_sub(acknowledged + unknown);
            comparison.doubled += surplus;
            if surplus > 0 {
                comparison.example(
                    *id,
                    format!("at {addresses:?}: {acknowledged} acknowledged, {unknown} unknown"),
                );
            }
        }
        for (id, (acknowledged, _)) in &expected {
            for address in acknowledged {
                if !found.get(id).is_some_and(|addresses| addresses.contains(address)) {
                    comparison.lost += 1;
                    comparison
                        .example(*id, format!("acknowledged at {address:?}, but missing there"));
                }
            }
        }
        comparison
    }
}

impl LogComparison {
    fn example(&mut self, id: u128, what: String) {
        if self.examples.len() < 10 {
            self.examples.push(format!("submission {id:032x} {what}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::allocation_record;

    fn record(id: u128, offset: u64) -> LogRecord {
        let value = allocation_record("b", id, vec![10_000, 0]);
        LogRecord { partition: 0, offset, key: vec![0; 16], value, headers: BTreeMap::new() }
    }

    fn history(attempts: &[(u128, Outcome)]) -> History {
        let attempts = attempts
            .iter()
            .map(|(submission, outcome)| Attempt { submission: *submission, outcome: *outcome })
            .collect();
        History { attempts, ..History::default() }
    }

    fn at(offset: u64) -> Outcome {
        Outcome::Acknowledged { partition: 0, offset }
    }

    fn compare(history: &History, log: &[LogRecord]) -> (u64, u64) {
        let comparison = history.compare(log);
        (comparison.lost, comparison.doubled)
    }

    #[test]
    fn a_record_at_its_receipts_address_is_neither_lost_nor_doubled() {
        let history =
            history(&[(1, at(0)), (1, at(0)), (2, Outcome::Unknown), (3, Outcome::Rejected)]);
        assert_eq!(compare(&history, &[record(1, 0)]), (0, 0));
        assert_eq!(compare(&history, &[record(1, 0), record(2, 1)]), (0, 0));
    }

    #[test]
    fn an_acknowledged_submission_without_its_record_is_lost() {
        assert_eq!(compare(&history(&[(1, at(0))]), &[]), (1, 0));
        let elsewhere = compare(&history(&[(1, at(5)), (1, Outcome::Unknown)]), &[record(1, 0)]);
        assert_eq!(elsewhere, (1, 0));
    }

    #[test]
    fn a_surplus_record_is_doubled() {
        assert_eq!(compare(&history(&[(1, at(0))]), &[record(1, 0), record(1, 1)]), (0, 1));
        let unknown = history(&[(1, Outcome::Unknown)]);
        assert_eq!(compare(&unknown, &[record(1, 0), record(1, 1)]), (0, 1));
        assert_eq!(compare(&history(&[(1, Outcome::Rejected)]), &[record(1, 0)]), (0, 1));
        assert_eq!(compare(&History::default(), &[record(9, 0)]), (0, 1));
    }
}
