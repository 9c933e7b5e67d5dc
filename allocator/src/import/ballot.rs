//! One entry of a file as a submission, and its JSON.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use schemas::{Allocation, Category, CategoryId, PersonId};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::file::{FileIdentity, LineNumber};

/// What an entry's submission id is derived from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdSource {
    /// The file holds the submission id.
    Given(Uuid),
    /// Derived from the file's content and the voter id.
    Voter(String),
    /// Derived from the file's content and the entry's line number.
    Line(LineNumber),
    /// Derived from the allocation, and from how many earlier entries have the same one.
    Content {
        /// Digest of the allocation.
        digest: ContentDigest,
        /// 1 for the first entry with this allocation.
        occurrence: u64,
    },
}

impl IdSource {
    /// Returns the submission id. It is the same for the same file, so that a repeated import counts nobody twice.
    pub fn submission_id(&self, file: FileIdentity) -> Uuid {
        let digest = Sha256::new().chain_update(b"allocator import\0");
        let digest = match self {
            Self::Given(id) => return *id,
            Self::Voter(voter) => {
                digest.chain_update(file.0).chain_update(b"voter\0").chain_update(voter)
            }
            Self::Line(at) => {
                // An earlier release may have given the id of this line number to another entry.
                let domain: &[u8] = if at.after_lone_cr { b"line after cr\0" } else { b"line\0" };
                digest
                    .chain_update(file.0)
                    .chain_update(domain)
                    .chain_update(at.number.to_be_bytes())
            }
            Self::Content { digest: content, occurrence } => digest
                .chain_update(b"content\0")
                .chain_update(content)
                .chain_update(occurrence.to_be_bytes()),
        };
        Uuid::new_v8(first_bytes(digest))
    }
}

/// Digest of a person's id, to recognise a person without keeping the id.
pub type PersonDigest = [u8; 16];

/// Digest of the meaning of an allocation.
pub type ContentDigest = [u8; 16];

/// The allocation of an entry.
#[derive(Clone)]
pub enum BallotAllocation {
    /// Shares of the file's categories, computed by the import.
    Computed(Allocation),
    /// JSON from the file, which the server parses again.
    Verbatim {
        /// The JSON as it is in the file.
        json: Box<RawValue>,
        /// Its categories in ascending order, with their basis points.
        shares: Vec<(CategoryId, u16)>,
    },
}

impl BallotAllocation {
    /// Digests the shares, not their spelling. Comparable within one format.
    pub fn digest(&self) -> ContentDigest {
        let mut hash = Sha256::new();
        match self {
            Self::Computed(allocation) => {
                allocation.basis_points().iter().for_each(|share| hash.update(share.to_be_bytes()))
            }
            Self::Verbatim { shares, .. } => {
                // A category that is left out is zero to the service as well.
                for (category, share) in shares.iter().filter(|(_, share)| *share != 0) {
                    hash.update(category.as_str());
                    hash.update(b"\0");
                    hash.update(share.to_be_bytes());
                }
            }
        }
        first_bytes(hash)
    }
}

/// One valid entry of a file. Its `Debug` output is redacted.
#[derive(Clone)]
pub struct Ballot {
    /// Number of the entry's first line, from 1.
    pub line: u64,
    /// The person. Absent if the file names none, which some budgets allow.
    pub person: Option<PersonId>,
    /// What the submission id is derived from.
    pub id_source: IdSource,
    /// How the person splits the budget.
    pub allocation: BallotAllocation,
}

impl Ballot {
    /// Hashes the person, so that one worker sends all entries of a person in order.
    pub fn person_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match &self.person {
            Some(person) => person.reveal().hash(&mut hasher),
            None => self.line.hash(&mut hasher),
        }
        hasher.finish()
    }

    /// Digests the person whom the server counts. `None` where no other entry can have the same person.
    pub fn person_digest(&self) -> Option<PersonDigest> {
        match (&self.person, &self.id_source) {
            (Some(person), _) => Some(first_bytes(Sha256::new_with_prefix(person.reveal()))),
            // The person of an anonymous submission is its id.
            (None, IdSource::Given(id)) => {
                Some(first_bytes(Sha256::new_with_prefix(id.to_string())))
            }
            (None, _) => None,
        }
    }

    /// Builds the submission's JSON on one line. Categories without a share are omitted.
    pub fn to_json(&self, file: FileIdentity, categories: &[Category]) -> String {
        let mut json = String::with_capacity(160);
        json.push('{');
        if let Some(person) = &self.person {
            json.push_str("\"person\":");
            json.push_str(&serde_json::Value::from(person.reveal()).to_string());
            json.push(',');
        }
        let id = self.id_source.submission_id(file);
        json.push_str(&format!("\"submission_id\":\"{id}\",\"allocation\":"));
        match &self.allocation {
            BallotAllocation::Computed(allocation) => {
                push_shares(&mut json, allocation, categories)
            }
            // A line break in JSON can only be whitespace, because strings escape theirs.
            BallotAllocation::Verbatim { json: raw, .. } => {
                json.extend(raw.get().chars().filter(|c| !matches!(c, '\r' | '\n')))
            }
        }
        json.push('}');
        json
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ballot(line {}, hidden)", self.line)
    }
}

fn first_bytes(hash: Sha256) -> [u8; 16] {
    let mut first = [0; 16];
    first.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    first
}

fn push_shares(json: &mut String, allocation: &Allocation, categories: &[Category]) {
    let mut separator = '{';
    for (category, share) in categories.iter().zip(allocation.basis_points()) {
        if *share > 0 {
            json.push(separator);
            json.push_str(&format!("\"{}\":{}.{:02}", category.id, share / 100, share % 100));
            separator = ',';
        }
    }
    json.push('}');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use schemas::CategoryId;

    const FILE: FileIdentity = FileIdentity([7; 32]);

    fn ballot(id_source: IdSource) -> Ballot {
        Ballot {
            line: 9,
            person: PersonId::parse("o\"neill").ok(),
            id_source,
            allocation: BallotAllocation::Computed(Allocation::new(&[3334, 0, 6605, 61]).unwrap()),
        }
    }

    fn categories() -> Vec<Category> {
        let category = |id| Category {
            id: CategoryId::parse(id).unwrap(),
            name: id.to_owned(),
            description: None,
            color: None,
        };
        ["a", "b", "c", "d"].map(category).to_vec()
    }

    #[test]
    fn shares_are_written_as_percentages_with_two_decimals() {
        let json = ballot(IdSource::Given(Uuid::nil())).to_json(FILE, &categories());
        let expected = r#"{"person":"o\"neill","submission_id":"00000000-0000-0000-0000-000000000000","allocation":{"a":33.34,"c":66.05,"d":0.61}}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn a_verbatim_allocation_is_sent_unchanged_on_one_line() {
        let raw = RawValue::from_string("{\"a\": 1e2,\r\n \"b\":0.000}".to_owned()).unwrap();
        let ballot = Ballot {
            person: None,
            allocation: BallotAllocation::Verbatim { json: raw, shares: Vec::new() },
            ..ballot(IdSource::Given(Uuid::nil()))
        };
        let expected = r#"{"submission_id":"00000000-0000-0000-0000-000000000000","allocation":{"a": 1e2, "b":0.000}}"#;
        assert_eq!(ballot.to_json(FILE, &[]), expected);
    }

    fn line(number: u64, after_lone_cr: bool) -> IdSource {
        IdSource::Line(LineNumber { number, after_lone_cr })
    }

    #[test]
    fn a_submission_id_depends_on_the_file_and_the_voter_only() {
        let id =
            |file, voter: &str| IdSource::Voter(voter.to_owned()).submission_id(FileIdentity(file));
        assert_eq!(id([7; 32], "1"), id([7; 32], "1"));
        assert_ne!(id([7; 32], "1"), id([7; 32], "2"));
        assert_ne!(id([7; 32], "1"), id([8; 32], "1"));
        assert_ne!(id([7; 32], "1"), line(1, false).submission_id(FILE));
        assert_eq!(id([7; 32], "1").get_version_num(), 8);
    }

    #[test]
    fn a_submission_id_from_the_content_depends_on_nothing_else_of_the_file() {
        let id = |digest, occurrence, file| {
            IdSource::Content { digest: [digest; 16], occurrence }.submission_id(FileIdentity(file))
        };
        assert_eq!(id(1, 1, [7; 32]), id(1, 1, [8; 32]));
        assert_ne!(id(1, 1, [7; 32]), id(1, 2, [7; 32]));
        assert_ne!(id(1, 1, [7; 32]), id(2, 1, [7; 32]));
    }

    /// Ids that the first release derived: a file that it imported can be imported again.
    #[test]
    fn submission_ids_of_persons_and_voters_are_those_of_earlier_releases() {
        let ids = [IdSource::Voter("v-1".to_owned()), line(3, false)]
            .map(|source| source.submission_id(FILE).to_string());
        assert_eq!(
            ids,
            ["31fd603b-e3c6-84a3-82d9-485c76bfecf7", "dca8fe6f-33c8-86d5-9d2a-b71713f1bb79"]
        );
        // Releases that did not split lines at CR gave the number of this line to a later one.
        assert_ne!(line(3, true).submission_id(FILE), line(3, false).submission_id(FILE));
    }
}
