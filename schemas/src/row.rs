//! Person rows: the rows of the `allocations` table.

use prost::Message;

use crate::proto::PersonState;
use crate::{BudgetId, Offset, PersonKey, SubmissionFingerprint};

/// Number of a person's latest submission ids by which the fold detects duplicates. An older duplicate in the log
/// counts as a new submission; ingest's idempotency store detects most of those earlier.
pub const RECENT_SUBMISSIONS: usize = 3;

/// Number of buckets for the people of a partition. Bounds the size of a Scylla partition. Part of the stored format.
const BUCKETS: u8 = 64;

/// Returns the bucket of a person's row.
pub fn bucket_of(person: &PersonKey) -> u8 {
    // The last byte: the fold's hash table uses the first eight.
    person.as_bytes()[PersonKey::BYTES - 1] % BUCKETS
}

/// All buckets.
pub fn buckets() -> impl Iterator<Item = u8> + Clone {
    0..BUCKETS
}

/// A person's current allocation in one budget, as of one offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonRow {
    /// The person.
    pub person: PersonKey,
    /// The budget.
    pub budget: BudgetId,
    /// Offset of the record that last changed the row.
    pub offset: Offset,
    /// Latest shares; empty once withdrawn.
    pub basis_points: Vec<u16>,
    /// An administrator has annulled the person: the shares do not count.
    pub annulled: bool,
    /// Latest submission ids, newest first.
    pub recent: [Option<SubmissionFingerprint>; RECENT_SUBMISSIONS],
}

/// A stored row that cannot be decoded: damage, never invalid input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a row of the allocations table is damaged: {0}")]
pub struct PersonRowFault(&'static str);

impl PersonRow {
    /// Encodes the `state` column.
    pub fn encode_state(&self) -> Vec<u8> {
        PersonState {
            budget: self.budget.as_str().to_owned(),
            offset: self.offset.0,
            basis_points: self.basis_points.iter().copied().map(u32::from).collect(),
            recent_submissions: self
                .recent
                .iter()
                .flatten()
                .map(|fingerprint| fingerprint.0)
                .collect(),
            annulled: self.annulled,
        }
        .encode_to_vec()
    }

    /// Decodes a row from its `person` and `state` columns.
    ///
    /// # Errors
    /// When the bytes are not what [`PersonRow::encode_state`] writes.
    pub fn decode(person: &[u8], state: &[u8]) -> Result<Self, PersonRowFault> {
        PersonRowDecoder::default().decode(person, state)
    }
}

/// Decodes one row after the other, and keeps its memory in between: a takeover decodes millions.
#[derive(Debug, Default)]
pub struct PersonRowDecoder(PersonState);

impl PersonRowDecoder {
    /// Decodes a row as [`PersonRow::decode`] does.
    ///
    /// # Errors
    /// When the bytes are not what [`PersonRow::encode_state`] writes.
    pub fn decode(&mut self, person: &[u8], state: &[u8]) -> Result<PersonRow, PersonRowFault> {
        let person = person.try_into().map_err(|_| PersonRowFault("the person key's length"))?;
        self.0.clear();
        self.0.merge(state).map_err(|_| PersonRowFault("the state's bytes"))?;
        let state = &self.0;
        if !state.basis_points.is_empty() {
            crate::allocation::check_shares(&state.basis_points)
                .map_err(|_| PersonRowFault("the allocation"))?;
        }
        if state.recent_submissions.len() > RECENT_SUBMISSIONS {
            return Err(PersonRowFault("the number of submission ids"));
        }
        let mut recent = [None; RECENT_SUBMISSIONS];
        for (slot, fingerprint) in recent.iter_mut().zip(&state.recent_submissions) {
            *slot = Some(SubmissionFingerprint(*fingerprint));
        }
        Ok(PersonRow {
            person: PersonKey::from_bytes(person),
            budget: BudgetId::parse(&state.budget)
                .map_err(|_| PersonRowFault("the budget's id"))?,
            offset: Offset(state.offset),
            basis_points: state.basis_points.iter().map(|share| *share as u16).collect(),
            annulled: state.annulled,
            recent,
        })
    }
}
