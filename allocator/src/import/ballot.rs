//! One entry of a file as a submission: who, under which name, how it splits the budget, and its JSON.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use schemas::{Allocation, Category, PersonName};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::file::FileIdentity;

/// What makes an entry's submission id.
#[derive(Clone, PartialEq, Eq)]
pub enum Name {
    /// The file names the submission itself.
    Given(Uuid),
    /// It is named after the file's content and the voter's id in it.
    Voter(String),
    /// It is named after the file's content and the entry's line in it.
    Line(u64),
}

impl Name {
    /// The submission's id: for the same file always the same, so that a repeated import counts nobody twice.
    pub fn submission_id(&self, file: FileIdentity) -> Uuid {
        let digest = Sha256::new().chain_update(b"allocator import\0").chain_update(file.0);
        let digest = match self {
            Self::Given(id) => return *id,
            Self::Voter(voter) => digest.chain_update(b"voter\0").chain_update(voter),
            Self::Line(line) => digest.chain_update(b"line\0").chain_update(line.to_be_bytes()),
        };
        let mut cut = [0; 16];
        cut.iter_mut().zip(digest.finalize()).for_each(|(to, from)| *to = from);
        Uuid::new_v8(cut)
    }
}

/// How an entry splits its budget.
#[derive(Clone)]
pub enum Split {
    /// Counted here: shares of the file's categories.
    Counted(Allocation),
    /// As it stands in the file; the server reads it.
    Verbatim(Box<RawValue>),
}

/// One entry of a file.
#[derive(Clone)]
pub struct Ballot {
    /// The line on which it begins, counted from 1.
    pub line: u64,
    /// Who says it; absent where the file does not say, which a budget may allow.
    pub person: Option<PersonName>,
    /// What names it.
    pub name: Name,
    /// What it says.
    pub split: Split,
}

impl Ballot {
    /// A number that is the same for the same person, so that one person's submissions keep their order.
    pub fn person_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match &self.person {
            Some(person) => person.reveal().hash(&mut hasher),
            None => self.line.hash(&mut hasher),
        }
        hasher.finish()
    }

    /// The body that submits it, on one line. A category without a share is left out.
    pub fn to_json(&self, file: FileIdentity, categories: &[Category]) -> String {
        let mut json = String::with_capacity(160);
        json.push('{');
        if let Some(person) = &self.person {
            json.push_str("\"person\":");
            json.push_str(&serde_json::Value::from(person.reveal()).to_string());
            json.push(',');
        }
        let id = self.name.submission_id(file);
        json.push_str(&format!("\"submission_id\":\"{id}\",\"allocation\":"));
        match &self.split {
            Split::Counted(allocation) => push_shares(&mut json, allocation, categories),
            // Line ends are blanks in JSON, and its texts have none.
            Split::Verbatim(raw) => {
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

    fn ballot(name: Name) -> Ballot {
        Ballot {
            line: 9,
            person: PersonName::parse("o\"neill").ok(),
            name,
            split: Split::Counted(Allocation::new(&[3334, 0, 6605, 61]).unwrap()),
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
        let json = ballot(Name::Given(Uuid::nil())).to_json(FILE, &categories());
        let expected = r#"{"person":"o\"neill","submission_id":"00000000-0000-0000-0000-000000000000","allocation":{"a":33.34,"c":66.05,"d":0.61}}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn what_the_file_says_itself_is_sent_as_it_stands_but_on_one_line() {
        let raw = RawValue::from_string("{\"a\": 1e2,\r\n \"b\":0.000}".to_owned()).unwrap();
        let ballot = Ballot {
            person: None,
            split: Split::Verbatim(raw),
            ..ballot(Name::Given(Uuid::nil()))
        };
        let expected = r#"{"submission_id":"00000000-0000-0000-0000-000000000000","allocation":{"a": 1e2, "b":0.000}}"#;
        assert_eq!(ballot.to_json(FILE, &[]), expected);
    }

    #[test]
    fn an_id_is_the_same_for_the_same_file_and_voter_only() {
        let id =
            |file, voter: &str| Name::Voter(voter.to_owned()).submission_id(FileIdentity(file));
        assert_eq!(id([7; 32], "1"), id([7; 32], "1"));
        assert_ne!(id([7; 32], "1"), id([7; 32], "2"));
        assert_ne!(id([7; 32], "1"), id([8; 32], "1"));
        assert_ne!(id([7; 32], "1"), Name::Line(1).submission_id(FILE));
        assert_eq!(id([7; 32], "1").get_version_num(), 8);
    }
}
