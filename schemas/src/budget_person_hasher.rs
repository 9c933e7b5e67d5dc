//! Computes the keys of one budget's persons, from the secrets of the deployment and of the budget.

use std::fmt;

use jiff::Timestamp;
use ring::hmac;

use crate::{Budget, BudgetId, PersonId, PersonKey, PersonSaltState, PersonSecret, SubmissionId};

/// The budget's salt is destroyed: the keys of its persons cannot be derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the budget's persons were forgotten at {at}")]
pub struct PersonsForgotten {
    /// When the salt was destroyed.
    pub at: Timestamp,
}

/// Computes the keys of one budget's persons.
#[derive(Clone)]
pub struct BudgetPersonHasher {
    key: hmac::Key,
    budget: BudgetId,
}

impl BudgetPersonHasher {
    /// The budget whose persons these are.
    pub fn budget(&self) -> &BudgetId {
        &self.budget
    }

    /// Computes the key of a person: HMAC-SHA-256 of budget, a zero byte (which no slug has) and the id with its
    /// issuer, truncated to 128 bits.
    pub fn key(&self, person: &PersonId) -> PersonKey {
        PersonKey::from_bytes(self.digest(&[person.key_input()]))
    }

    /// Derives a submission id from an `Idempotency-Key` that is not a UUID, or from an id that must not be in the log.
    /// The same key of the same person gives the same id; one without a person is shared by everyone who sends the key.
    pub fn submission_id(&self, person: Option<&PersonId>, idempotency_key: &str) -> SubmissionId {
        // The separators distinguish these from person keys, and one from the other: person ids have no control
        // characters.
        let person = person.map(|person| [b"\x02", person.key_input()]);
        let parts = [
            person.as_ref().map_or(&[][..], |parts| parts),
            &[b"\x01", idempotency_key.as_bytes()],
        ];
        let digest = self.digest(&parts.concat());
        SubmissionId(uuid::Builder::from_custom_bytes(digest).into_uuid())
    }

    fn digest(&self, text: &[&[u8]]) -> [u8; PersonKey::BYTES] {
        let mut hash = hmac::Context::with_key(&self.key);
        hash.update(self.budget.as_str().as_bytes());
        hash.update(b"\0");
        text.iter().for_each(|part| hash.update(part));
        let mut cut = [0; PersonKey::BYTES];
        cut.copy_from_slice(&hash.sign().as_ref()[..PersonKey::BYTES]);
        cut
    }
}

impl fmt::Debug for BudgetPersonHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BudgetPersonHasher(hidden)")
    }
}

impl PersonSecret {
    /// Returns what computes the keys of a budget's persons.
    ///
    /// # Errors
    /// When the budget's persons are forgotten.
    pub fn for_budget(&self, budget: &Budget) -> Result<BudgetPersonHasher, PersonsForgotten> {
        let key = match &budget.person_salt {
            PersonSaltState::DeploymentOnly => self.0.clone(),
            PersonSaltState::Salted(salt) => {
                // The key of no person has this input, as budget ids are not empty.
                let input = [b"\0budget\0", budget.id.as_str().as_bytes(), b"\0", salt.as_bytes()];
                hmac::Key::new(hmac::HMAC_SHA256, self.sign(&input).as_ref())
            }
            PersonSaltState::Forgotten { at } => return Err(PersonsForgotten { at: *at }),
        };
        Ok(BudgetPersonHasher { key, budget: budget.id.clone() })
    }
}
