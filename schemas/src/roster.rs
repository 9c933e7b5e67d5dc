//! The roster: which generations are folded, and which of them answers the public. One row of the store, changed as a
//! whole and conditionally, so that everyone sees the same steps in the same order.

use serde::{Deserialize, Serialize};

use crate::job::JobId;
use crate::{Generation, LogRef, Term};

/// A generation and what it derives from; never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// Its number.
    pub generation: Generation,
    /// The log it derives from.
    pub log: LogRef,
}

/// A generation that is derived anew beside the one that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Building {
    /// Which.
    pub record: GenerationRecord,
    /// Whether it is compared and then given up, and never answers.
    pub dry_run: bool,
    /// Since when, in milliseconds since 1970.
    pub begun_at_ms: u64,
    /// The background job that began it, if one did.
    pub job: Option<JobId>,
    /// Of one in another log than the one that answers: whether that one still takes submissions.
    pub seal: Seal,
}

/// Whether the log that answers takes submissions while another one is to take its place. Written before it is done, so
/// that whoever finds the log sealed knows why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seal {
    /// It takes them.
    Open,
    /// It is sealed, or is about to be.
    Sealed {
        /// In milliseconds since 1970.
        since_ms: u64,
    },
    /// The other one is given up: it is about to be opened again.
    Opening {
        /// Since when it is sealed.
        since_ms: u64,
    },
}

impl Seal {
    /// Since when the log may take no submissions, in milliseconds since 1970.
    pub fn since_ms(self) -> Option<u64> {
        match self {
            Self::Open => None,
            Self::Sealed { since_ms } | Self::Opening { since_ms } => Some(since_ms),
        }
    }
}

/// Which generations there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Counts the changes; each names the one that it follows.
    pub revision: u64,
    /// Counts the flips.
    pub term: u32,
    /// The one that answers the public.
    pub current: GenerationRecord,
    /// The one that is to answer next.
    pub building: Option<Building>,
    /// The one that answered before: folded on, so that there is a way back.
    pub previous: Option<GenerationRecord>,
    /// Those whose rows are no longer needed and not yet deleted.
    pub retired: Vec<GenerationRecord>,
    /// What a new one will be called: no number is ever used again.
    pub next: Generation,
}

impl Roster {
    /// The roster of a new deployment; or of one that has lost its store, and whose submissions go to a later log by now.
    /// Such a log was begun by the generation of its number ([`LogNumber::begun_by`]), and by it it is begun again: so no
    /// later one is ever called as it is, or as one before. It answers in no earlier term than it did at first, for what
    /// readers still have of it.
    ///
    /// [`LogNumber::begun_by`]: crate::LogNumber::begun_by
    pub fn first(log: LogRef) -> Self {
        let generation = Generation::FIRST.max(Generation(log.number.0));
        Self {
            revision: 1,
            term: Term::FIRST.number.max(generation.0),
            current: GenerationRecord { generation, log },
            building: None,
            previous: None,
            retired: Vec::new(),
            next: Generation(generation.0 + 1),
        }
    }

    /// The term that readers are in.
    pub fn term(&self) -> Term {
        Term {
            number: self.term,
            generation: self.current.generation,
            log: self.current.log.number,
        }
    }

    /// The generations that are folded without answering.
    pub fn beside(&self) -> impl Iterator<Item = &GenerationRecord> {
        self.building.iter().map(|building| &building.record).chain(&self.previous)
    }

    /// The roster as its row holds it.
    pub fn to_json(&self) -> String {
        // Numbers, strings and lists under string keys: there is nothing in it that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Roster::to_json`] wrote. `None` for damage.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogNumber, PartitionCount};

    #[test]
    fn one_that_begins_with_a_later_log_never_names_a_log_again() {
        let partitions = PartitionCount::new(12).unwrap();
        let first = Roster::first(LogRef::first("submissions", partitions));
        assert_eq!((first.term(), first.next), (Term::FIRST, Generation(2)));
        let (topic, number) = ("submissions-7".to_owned(), LogNumber(7));
        let log = LogRef { number, topic, partitions };
        let later = Roster::first(log.clone());
        assert_eq!(later.current, GenerationRecord { generation: Generation(7), log });
        assert_eq!(later.term(), Term { number: 7, generation: Generation(7), log: number });
        assert_eq!(later.revision, 1);
        assert!(LogNumber::begun_by(later.next) > number);
    }

    #[test]
    fn a_roster_survives_its_row_and_damage_is_no_roster() {
        let mut roster =
            Roster::first(LogRef::first("submissions", PartitionCount::new(12).unwrap()));
        assert_eq!(Roster::from_json(&roster.to_json()), Some(roster.clone()));
        let record = GenerationRecord { generation: Generation(2), ..roster.current.clone() };
        roster.building = Some(Building {
            record: record.clone(),
            dry_run: true,
            begun_at_ms: 1_795_212_000_123,
            job: Some(JobId::new(1_795_212_000_000, uuid::Uuid::from_u128(7))),
            seal: Seal::Sealed { since_ms: 1_795_212_000_456 },
        });
        roster.retired.push(record);
        assert_eq!(Roster::from_json(&roster.to_json()), Some(roster.clone()));
        let none = roster.to_json().replace(r#""partitions":12"#, r#""partitions":0"#);
        assert_eq!(Roster::from_json(&none), None);
        assert_eq!(Roster::from_json("{}"), None);
    }
}
