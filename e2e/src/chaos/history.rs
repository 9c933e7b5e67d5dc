//! What was asked for, and what came of it, request by request; and whether the log agrees.

use std::collections::{BTreeSet, HashMap, HashSet};

use prost::Message;

use crate::kafka::LogRecord;
use crate::record::SubmissionRecord;

/// What a client knows of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log, at this place.
    Acknowledged {
        /// The partition.
        partition: u32,
        /// The offset.
        offset: u64,
    },
    /// Nothing came of it.
    Refused,
    /// It may be in the log.
    Unknown,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// The submission's id.
    pub submission: u128,
    /// What came of it.
    pub outcome: Outcome,
}

/// All requests.
#[derive(Debug, Default)]
pub struct History {
    /// In no order.
    pub attempts: Vec<Attempt>,
    /// What was accepted last of each person: nothing, once withdrawn.
    pub last: HashMap<u64, Option<Vec<u32>>>,
    /// People of whom something has an unknown outcome: it may take effect at any later time.
    pub uncertain: HashSet<u64>,
    /// Answers that must not be.
    pub wrong: Vec<String>,
}

/// How a log differs from what was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Acknowledged, and not where the receipt says.
    pub lost: u64,
    /// Records beyond those that were acknowledged or may be there.
    pub doubled: u64,
    /// What is wrong with which submission, for the first few.
    pub examples: Vec<String>,
}

impl History {
    /// Takes another voice's history in.
    pub fn add(&mut self, other: Self) {
        self.attempts.extend(other.attempts);
        self.last.extend(other.last);
        self.uncertain.extend(other.uncertain);
        self.wrong.extend(other.wrong);
    }

    /// Requests with an outcome.
    pub fn count(&self, of: impl Fn(Outcome) -> bool) -> u64 {
        self.attempts.iter().filter(|attempt| of(attempt.outcome)).count() as u64
    }

    /// What must count of each person for whom that is known without the log.
    pub fn certain(&self) -> impl Iterator<Item = (u64, Option<&Vec<u32>>)> {
        let certain = self.last.iter().filter(|(person, _)| !self.uncertain.contains(person));
        certain.map(|(person, last)| (*person, last.as_ref()))
    }

    /// Compares with a log of nothing else.
    pub fn compare(&self, log: &[LogRecord]) -> Compared {
        let mut places: HashMap<u128, BTreeSet<(u32, u64)>> = HashMap::new();
        for record in log {
            let id = SubmissionRecord::decode(&record.value[..])
                .ok()
                .and_then(|there| <[u8; 16]>::try_from(there.submission_id).ok());
            if let Some(id) = id {
                let place = (record.partition, record.offset);
                places.entry(u128::from_be_bytes(id)).or_default().insert(place);
            }
        }
        let mut asked: HashMap<u128, (BTreeSet<(u32, u64)>, u64)> = HashMap::new();
        for Attempt { submission, outcome } in &self.attempts {
            let (acknowledged, unknown) = asked.entry(*submission).or_default();
            match outcome {
                Outcome::Acknowledged { partition, offset } => {
                    acknowledged.insert((*partition, *offset));
                }
                Outcome::Refused => {}
                Outcome::Unknown => *unknown += 1,
            }
        }
        let mut compared = Compared::default();
        for (id, there) in &places {
            let (acknowledged, unknown) =
                asked.get(id).map_or((0, 0), |(places, unknown)| (places.len() as u64, *unknown));
            let more = (there.len() as u64).saturating_sub(acknowledged + unknown);
            compared.doubled += more;
            if more > 0 {
                compared.example(
                    *id,
                    format!("at {there:?}: {acknowledged} acknowledged, {unknown} unknown"),
                );
            }
        }
        for (id, (acknowledged, _)) in &asked {
            for place in acknowledged {
                if !places.get(id).is_some_and(|there| there.contains(place)) {
                    compared.lost += 1;
                    compared.example(*id, format!("acknowledged at {place:?}, and not there"));
                }
            }
        }
        compared
    }
}

impl Compared {
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

    fn asked(attempts: &[(u128, Outcome)]) -> History {
        let attempts = attempts
            .iter()
            .map(|(submission, outcome)| Attempt { submission: *submission, outcome: *outcome })
            .collect();
        History { attempts, ..History::default() }
    }

    fn at(offset: u64) -> Outcome {
        Outcome::Acknowledged { partition: 0, offset }
    }

    fn found(history: &History, log: &[LogRecord]) -> (u64, u64) {
        let compared = history.compare(log);
        (compared.lost, compared.doubled)
    }

    #[test]
    fn what_is_where_its_receipt_says_is_neither_lost_nor_doubled() {
        let history =
            asked(&[(1, at(0)), (1, at(0)), (2, Outcome::Unknown), (3, Outcome::Refused)]);
        assert_eq!(found(&history, &[record(1, 0)]), (0, 0));
        assert_eq!(found(&history, &[record(1, 0), record(2, 1)]), (0, 0));
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_lost() {
        assert_eq!(found(&asked(&[(1, at(0))]), &[]), (1, 0));
        let elsewhere = found(&asked(&[(1, at(5)), (1, Outcome::Unknown)]), &[record(1, 0)]);
        assert_eq!(elsewhere, (1, 0));
    }

    #[test]
    fn what_is_there_more_often_than_asked_for_is_doubled() {
        assert_eq!(found(&asked(&[(1, at(0))]), &[record(1, 0), record(1, 1)]), (0, 1));
        let unknown = asked(&[(1, Outcome::Unknown)]);
        assert_eq!(found(&unknown, &[record(1, 0), record(1, 1)]), (0, 1));
        assert_eq!(found(&asked(&[(1, Outcome::Refused)]), &[record(1, 0)]), (0, 1));
        assert_eq!(found(&History::default(), &[record(9, 0)]), (0, 1));
    }
}
