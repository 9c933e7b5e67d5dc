//! A budget definition as stored: read as far as this release understands it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::stored::{self, StoredDocument};
use crate::{
    Budget, BudgetId, CategoryOrder, IdentityRule, MAX_CATEGORIES, MIN_CATEGORIES, PersonSalt,
    PersonSaltState, ResultsVisibility,
};

/// The addition without which a release would derive other keys for a budget's persons, and count them twice.
const PERSON_SALT: &str = "person_salt";

/// A stored definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredBudget {
    /// This release understands the whole definition.
    Understood(Budget),
    /// A newer release wrote more than this one understands. Served, but neither changed nor frozen.
    PartlyUnderstood {
        /// The understood part.
        budget: Budget,
        /// JSON pointers of what is not understood.
        members: Vec<String>,
    },
    /// The budget was deleted. Its id may be defined anew, with a later revision.
    Deleted {
        /// The revision of the deletion: one more than the last definition's.
        revision: u64,
    },
    /// Damaged, or usable by a newer release only: nothing of it is served, and nothing is written over it.
    Unreadable {
        /// The definition's revision, if that is readable.
        revision: Option<u64>,
        /// Why it cannot be read.
        reason: String,
    },
}

impl StoredBudget {
    /// Parses a stored definition.
    ///
    /// Rules for authors, such as the length of a name, are not checked: other releases may have other limits.
    pub fn parse(json: &[u8]) -> Self {
        let StoredDocument { value: Document(budget), not_understood: mut members } =
            match stored::read::<Document>(json, &[PERSON_SALT]) {
                Ok(document) => document,
                Err(reason) => {
                    return match (is_deletion(json), revision(json)) {
                        (true, Some(revision)) => Self::Deleted { revision },
                        (_, revision) => Self::Unreadable { revision, reason },
                    };
                }
            };
        if let Some(reason) = unusable(&budget) {
            return Self::Unreadable { revision: Some(budget.revision), reason };
        }
        if budget.results == ResultsVisibility::Unrecognized {
            members.push("/results".to_owned());
        }
        if budget.identity == IdentityRule::Unrecognized {
            members.push("/identity".to_owned());
        }
        if budget.presentation.order == CategoryOrder::Unrecognized {
            members.push("/order".to_owned());
        }
        if members.is_empty() {
            Self::Understood(budget)
        } else {
            Self::PartlyUnderstood { budget, members }
        }
    }

    /// Serializes a definition in its stored form, which contains the salt of its persons.
    ///
    /// # Errors
    /// Never: a budget holds only strings, numbers and string keys.
    pub fn document(budget: &Budget) -> serde_json::Result<String> {
        serde_json::to_string(&WrittenDocument::of(budget))
    }

    /// Serializes the record of a deletion. It keeps the revision, so that a process that has missed it takes a later
    /// definition for newer than the deleted one. Earlier releases find the definition unreadable.
    pub fn deletion(id: &BudgetId, revision: u64) -> String {
        serde_json::json!({ "id": id, "revision": revision, "deleted": true }).to_string()
    }

    /// Returns the budget's id of a stored definition, even if nothing else of it is readable.
    pub fn id(json: &[u8]) -> Option<BudgetId> {
        let document: Value = serde_json::from_slice(json).ok()?;
        BudgetId::parse(document["id"].as_str()?).ok()
    }
}

/// A definition in its stored form.
#[derive(Deserialize)]
#[serde(try_from = "ReadDocument")]
struct Document(Budget);

#[derive(Deserialize)]
struct ReadDocument {
    #[serde(flatten)]
    budget: Budget,
    #[serde(default)]
    person_salt: Option<String>,
    #[serde(default)]
    forgotten_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct WrittenDocument<'a> {
    #[serde(flatten)]
    budget: &'a Budget,
    #[serde(skip_serializing_if = "Option::is_none")]
    person_salt: Option<String>,
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    requires: &'static [&'static str],
}

impl TryFrom<ReadDocument> for Document {
    type Error = &'static str;

    fn try_from(read: ReadDocument) -> Result<Self, Self::Error> {
        let person_salt = match (read.person_salt, read.forgotten_at) {
            (None, None) => PersonSaltState::DeploymentOnly,
            (None, Some(at)) => PersonSaltState::Forgotten { at },
            (Some(salt), None) => {
                // No reason contains the salt: it is logged.
                let salt = PersonSalt::from_hex(&salt).ok_or("its `person_salt` is no salt")?;
                PersonSaltState::Salted(salt)
            }
            (Some(_), Some(_)) => return Err("its persons are forgotten, and it has a salt"),
        };
        Ok(Self(Budget { person_salt, ..read.budget }))
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WrittenDocument::of(&self.0).serialize(serializer)
    }
}

impl<'a> WrittenDocument<'a> {
    fn of(budget: &'a Budget) -> Self {
        let (person_salt, requires): (_, &[_]) = match &budget.person_salt {
            PersonSaltState::DeploymentOnly => (None, &[]),
            PersonSaltState::Salted(salt) => (Some(salt.to_hex()), &[PERSON_SALT]),
            PersonSaltState::Forgotten { .. } => (None, &[PERSON_SALT]),
        };
        Self { budget, person_salt, requires }
    }
}

fn is_deletion(json: &[u8]) -> bool {
    let document: Option<Value> = serde_json::from_slice(json).ok();
    document.is_some_and(|document| document["deleted"] == Value::Bool(true))
}

fn revision(json: &[u8]) -> Option<u64> {
    let document: Value = serde_json::from_slice(json).ok()?;
    document["revision"].as_u64()
}

/// Returns why submissions and totals of the definition cannot be represented, if they cannot.
fn unusable(budget: &Budget) -> Option<String> {
    let found = budget.categories.len();
    if !(MIN_CATEGORIES..=MAX_CATEGORIES).contains(&found) {
        return Some(format!(
            "it has {found} categories, and this release takes {MIN_CATEGORIES} to {MAX_CATEGORIES}"
        ));
    }
    let mut seen = BTreeSet::new();
    let twice = budget.categories.iter().find(|category| !seen.insert(&category.id));
    twice.map(|category| format!("it has the category `{}` twice", category.id))
}
