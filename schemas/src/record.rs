//! The Kafka record: a submission to bytes and back. Reading reuses its buffers, so the fold's hot path allocates
//! nothing for a record.

use prost::Message;
use uuid::Uuid;

use crate::allocation::check_shares;
use crate::proto::{SubmissionKind, SubmissionRecord};
use crate::{Action, AllocationFault, PersonKey, Submission, SubmissionFingerprint, SubmissionId};

/// The layout that is written, and the only one that is read.
pub const RECORD_VERSION: u32 = 1;

/// Every time is below it: what the script in Redis can write whole; see `publish.lua`.
const ACCEPTED_BEFORE_MS: u64 = 100_000_000_000_000;

/// A submission as the record's value; its key is the person key. For many, [`RecordEncoder`] is quicker.
pub fn encode_record(submission: &Submission) -> Vec<u8> {
    RecordEncoder::default().encode(submission)
}

/// Writes records one after the other through the same buffers.
#[derive(Debug, Default)]
pub struct RecordEncoder {
    wire: SubmissionRecord,
}

impl RecordEncoder {
    /// A submission as the record's value; its key is the person key.
    pub fn encode(&mut self, submission: &Submission) -> Vec<u8> {
        let wire = &mut self.wire;
        wire.clear();
        wire.version = RECORD_VERSION;
        wire.budget.push_str(submission.budget.as_str());
        wire.submission_id.extend_from_slice(submission.id.0.as_bytes());
        wire.accepted_at_ms = submission.accepted_at_ms;
        match &submission.action {
            Action::Allocate(allocation) => {
                wire.set_kind(SubmissionKind::Allocate);
                wire.basis_points.extend(allocation.basis_points().iter().copied().map(u32::from));
            }
            Action::Withdraw => wire.set_kind(SubmissionKind::Withdraw),
        }
        wire.encode_to_vec()
    }
}

/// Why a record is not a submission of ours. Its text goes to the dead letters, so it holds nothing of the record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The key is not a person key.
    #[error("the key has {0} bytes instead of 16")]
    Key(usize),
    /// The value does not parse.
    #[error("the value is not a SubmissionRecord")]
    Garbage,
    /// Written by a newer, or no known, writer.
    #[error("unknown record version {0}")]
    Version(u32),
    /// The budget's id is none.
    #[error("the budget's id is not a slug")]
    Budget,
    /// The submission's id is none.
    #[error("the submission id is not a UUID")]
    SubmissionId,
    /// No time that ingest has, and more than the copy in Redis can hold.
    #[error("accepted at {0} ms: beyond the year 5138")]
    Time(u64),
    /// Neither an allocation nor a withdrawal.
    #[error("unknown kind {0}")]
    Kind(i32),
    /// A withdrawal with shares.
    #[error("a withdrawal that carries shares")]
    WithdrawalWithShares,
    /// Shares that are no allocation.
    #[error("impossible allocation: {0}")]
    Allocation(#[from] AllocationFault),
}

/// A checked record, borrowed from its decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The budget's id: a slug.
    pub budget: &'a str,
    /// Who said it.
    pub person: PersonKey,
    /// Which submission it is.
    pub submission: SubmissionFingerprint,
    /// When ingest accepted it, in milliseconds since 1970.
    pub accepted_at_ms: u64,
    /// Shares that make 10,000; empty for a withdrawal.
    pub basis_points: &'a [u32],
}

/// Reads records one after the other into the same buffers.
#[derive(Debug, Default)]
pub struct RecordDecoder {
    wire: SubmissionRecord,
}

impl RecordDecoder {
    /// Reads and checks one record.
    ///
    /// # Errors
    /// When it is not one of ours; the next can be read all the same.
    pub fn decode(&mut self, key: &[u8], value: &[u8]) -> Result<RecordView<'_>, RecordFault> {
        let person = key.try_into().map_err(|_| RecordFault::Key(key.len()))?;
        self.wire.clear();
        self.wire.merge(value).map_err(|_| RecordFault::Garbage)?;
        if self.wire.version != RECORD_VERSION {
            return Err(RecordFault::Version(self.wire.version));
        }
        crate::text::check_slug(&self.wire.budget).map_err(|_| RecordFault::Budget)?;
        let id =
            Uuid::from_slice(&self.wire.submission_id).map_err(|_| RecordFault::SubmissionId)?;
        if self.wire.accepted_at_ms >= ACCEPTED_BEFORE_MS {
            return Err(RecordFault::Time(self.wire.accepted_at_ms));
        }
        match SubmissionKind::try_from(self.wire.kind) {
            Ok(SubmissionKind::Allocate) => check_shares(&self.wire.basis_points)?,
            Ok(SubmissionKind::Withdraw) if self.wire.basis_points.is_empty() => {}
            Ok(SubmissionKind::Withdraw) => return Err(RecordFault::WithdrawalWithShares),
            _ => return Err(RecordFault::Kind(self.wire.kind)),
        }
        Ok(RecordView {
            budget: &self.wire.budget,
            person: PersonKey::from_bytes(person),
            submission: SubmissionId(id).fingerprint(),
            accepted_at_ms: self.wire.accepted_at_ms,
            basis_points: &self.wire.basis_points,
        })
    }
}

/// By what a record is known again when its log is checked: a digest of its key and value.
pub fn record_fingerprint(key: &[u8], value: &[u8]) -> u64 {
    let length = (key.len() as u64).to_le_bytes();
    crate::fnv::fnv1a(length.into_iter().chain(key.iter().copied()).chain(value.iter().copied()))
}
