//! A person's row in the `allocations` table.

use prost::Message;

use crate::proto::PersonState;
use crate::{BudgetId, Offset, PersonKey, SubmissionFingerprint};

/// How many of a person's latest submission ids the fold remembers. A repetition of an older one that comes through
/// the log counts as a new submission; ingest's own memory of ids stands before that.
pub const RECENT_SUBMISSIONS: usize = 3;

/// The buckets that a partition's people are spread over, so that no Scylla partition grows without bound. Part of
/// the stored format.
const BUCKETS: u8 = 64;

/// The bucket of a person's row.
pub fn bucket_of(person: &PersonKey) -> u8 {
    // The last byte: the first four decide about the partition no more than any other, but the table index of the
    // fold uses the first eight.
    person.as_bytes()[PersonKey::BYTES - 1] % BUCKETS
}

/// Every bucket.
pub fn buckets() -> impl Iterator<Item = u8> + Clone {
    0..BUCKETS
}

/// A person's state as of one offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonRow {
    /// Who.
    pub person: PersonKey,
    /// In which budget.
    pub budget: BudgetId,
    /// The record that the state follows from.
    pub offset: Offset,
    /// Shares that count now; empty once withdrawn.
    pub basis_points: Vec<u16>,
    /// The latest submissions, newest first.
    pub recent: [Option<SubmissionFingerprint>; RECENT_SUBMISSIONS],
}

/// A stored row that cannot be: damage, never bad input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a row of the allocations table is damaged: {0}")]
pub struct PersonRowFault(&'static str);

impl PersonRow {
    /// The `state` column.
    pub fn encode_state(&self) -> Vec<u8> {
        PersonState {
            budget: self.budget.as_str().to_owned(),
            offset: self.offset.0,
            basis_points: self.basis_points.iter().copied().map(u32::from).collect(),
            recent_submissions: self.recent.iter().flatten().map(|print| print.0).collect(),
        }
        .encode_to_vec()
    }

    /// Reads a row back from its two columns.
    ///
    /// # Errors
    /// When the bytes are not what [`PersonRow::encode_state`] writes.
    pub fn decode(person: &[u8], state: &[u8]) -> Result<Self, PersonRowFault> {
        let person = person.try_into().map_err(|_| PersonRowFault("the person key's length"))?;
        let state = PersonState::decode(state).map_err(|_| PersonRowFault("the state's bytes"))?;
        if !state.basis_points.is_empty() {
            crate::allocation::check_shares(&state.basis_points)
                .map_err(|_| PersonRowFault("the allocation"))?;
        }
        if state.recent_submissions.len() > RECENT_SUBMISSIONS {
            return Err(PersonRowFault("the number of submission ids"));
        }
        let mut recent = [None; RECENT_SUBMISSIONS];
        for (place, print) in recent.iter_mut().zip(&state.recent_submissions) {
            *place = Some(SubmissionFingerprint(*print));
        }
        Ok(Self {
            person: PersonKey::from_bytes(person),
            budget: BudgetId::parse(&state.budget)
                .map_err(|_| PersonRowFault("the budget's id"))?,
            offset: Offset(state.offset),
            basis_points: state.basis_points.iter().map(|share| *share as u16).collect(),
            recent,
        })
    }
}
