//! The Kafka record: encodes and decodes submissions. Decoding reuses its buffers, so that the fold's hot path does not
//! allocate.

use prost::Message;
use uuid::Uuid;

use crate::allocation::check_shares;
use crate::proto::{self, SubmissionKind, SubmissionRecord};
use crate::submission::submission_digest;
use crate::{
    Action, AllocationFault, AnnulmentAction, AnnulmentId, BudgetId, Marker, MarkerKind, PersonKey,
    PublishStep, Submission, SubmissionFingerprint, SubmissionId,
};

/// Version of the record layout. Other versions are rejected.
pub const RECORD_VERSION: u32 = 1;

/// Upper bound of every timestamp: the largest integer that `publish.lua` can print exactly.
const MAX_ACCEPTED_AT_MS: u64 = 100_000_000_000_000;

/// Encodes a submission as a record value. The record key is the person key. [`RecordEncoder`] is faster for many.
pub fn encode_record(submission: &Submission) -> Vec<u8> {
    RecordEncoder::default().encode(submission)
}

/// What the record of a submission says besides its content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordStamp {
    /// No client has chosen the id, so that no client repeats it.
    pub generated_id: bool,
    /// The publish step of the budget's frozen rules, so that the fold needs no definition.
    pub publish_step: PublishStep,
}

/// What the record of an annulment says besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnulmentStamp {
    /// Time of the append, in milliseconds since 1970.
    pub appended_at_ms: u64,
    /// The publish step of the budget's frozen rules, as in [`RecordStamp`].
    pub publish_step: PublishStep,
}

/// Encodes records with reused buffers.
#[derive(Debug, Default)]
pub struct RecordEncoder {
    wire: SubmissionRecord,
}

impl RecordEncoder {
    /// Encodes a submission as a record value. The record key is the person key.
    pub fn encode(&mut self, submission: &Submission) -> Vec<u8> {
        self.encode_stamped(submission, RecordStamp::default())
    }

    /// Encodes a submission whose id no client has chosen, so that no client repeats it.
    pub fn encode_with_generated_id(&mut self, submission: &Submission) -> Vec<u8> {
        self.encode_stamped(
            submission,
            RecordStamp { generated_id: true, ..RecordStamp::default() },
        )
    }

    /// Encodes a marker of a budget as a record value. The record key is [`Marker::key`].
    pub fn encode_marker(
        &mut self,
        budget: &BudgetId,
        marker: Marker,
        id: SubmissionId,
        now_ms: u64,
    ) -> Vec<u8> {
        let wire = self.begin(budget, id.0, now_ms);
        wire.generated_id = true;
        wire.set_kind(SubmissionKind::Withdraw);
        let kind = match marker.kind {
            MarkerKind::Close => proto::MarkerKind::Close,
            MarkerKind::Reopen => proto::MarkerKind::Reopen,
        };
        wire.marker = Some(proto::Marker { kind: kind.into(), revision: marker.revision });
        wire.encode_to_vec()
    }

    /// Encodes that an administrator annuls or restores a person. The record key is the person key.
    pub fn encode_annulment(
        &mut self,
        budget: &BudgetId,
        id: AnnulmentId,
        action: AnnulmentAction,
        stamp: AnnulmentStamp,
    ) -> Vec<u8> {
        let wire = self.begin(budget, id.0, stamp.appended_at_ms);
        wire.generated_id = true;
        wire.publish_step = stamp.publish_step.to_proto();
        wire.set_kind(match action {
            AnnulmentAction::Annul => SubmissionKind::Annul,
            AnnulmentAction::Restore => SubmissionKind::Restore,
        });
        wire.encode_to_vec()
    }

    /// Clears the message, and sets what every record has.
    fn begin(&mut self, budget: &BudgetId, id: Uuid, accepted_at_ms: u64) -> &mut SubmissionRecord {
        let wire = &mut self.wire;
        wire.clear();
        wire.version = RECORD_VERSION;
        wire.budget.push_str(budget.as_str());
        wire.submission_id.extend_from_slice(id.as_bytes());
        wire.accepted_at_ms = accepted_at_ms;
        wire
    }

    /// Encodes a submission with what its record says besides.
    pub fn encode_stamped(&mut self, submission: &Submission, stamp: RecordStamp) -> Vec<u8> {
        let wire = self.begin(&submission.budget, submission.id.0, submission.accepted_at_ms);
        wire.generated_id = stamp.generated_id;
        wire.publish_step = stamp.publish_step.to_proto();
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

/// Why a record is not a valid submission. The message is stored in the dead letter, so it contains no record data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The record key is not a person key.
    #[error("the key has {0} bytes instead of 16")]
    Key(usize),
    /// The value is not valid Protobuf.
    #[error("the value is not a SubmissionRecord")]
    Garbage,
    /// The version of the layout is unknown.
    #[error("unknown record version {0}")]
    Version(u32),
    /// The budget id is invalid.
    #[error("the budget's id is not a slug")]
    Budget,
    /// The submission id is invalid.
    #[error("the submission id is not a UUID")]
    SubmissionId,
    /// The timestamp is larger than Redis can print.
    #[error("accepted at {0} ms: beyond the year 5138")]
    Time(u64),
    /// The kind is unknown.
    #[error("unknown kind {0}")]
    Kind(i32),
    /// The withdrawal has shares.
    #[error("a withdrawal with shares")]
    WithdrawalWithShares,
    /// The annulment has shares, a marker, or an id that a client has chosen.
    #[error("an invalid annulment")]
    Annulment,
    /// The marker has no revision, an unknown kind, or the form of another submission.
    #[error("an invalid marker")]
    Marker,
    /// The shares are invalid.
    #[error("invalid allocation: {0}")]
    Allocation(#[from] AllocationFault),
}

/// A decoded and validated record, borrowed from its decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The budget id: a valid slug.
    pub budget: &'a str,
    /// The person.
    pub person: PersonKey,
    /// The submission id.
    pub submission_id: SubmissionId,
    /// Fingerprint of the submission id.
    pub submission: SubmissionFingerprint,
    /// Time at which ingest accepted the submission, in milliseconds since 1970.
    pub accepted_at_ms: u64,
    /// Shares that add up to 10,000; empty for a withdrawal.
    pub basis_points: &'a [u32],
    /// No client has chosen the id.
    pub generated_id: bool,
    /// The publish step of the budget's rules.
    pub publish_step: PublishStep,
    /// What the record is. A record that is no submission has no shares.
    pub kind: RecordKind,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A submission of the person: an allocation, or a withdrawal if there are no shares.
    Submission,
    /// A marker that closes or reopens the budget in its partition; the person is nobody.
    Marker(Marker),
    /// An administrator annuls or restores the person; the submission id is that of the annulment.
    Annulment(AnnulmentAction),
}

impl RecordView<'_> {
    /// Returns the digest of person and content, as [`Submission::submission_digest`].
    pub fn submission_digest(&self) -> u64 {
        // Validated: each share fits into 16 bits.
        submission_digest(&self.person, self.basis_points.iter().map(|share| *share as u16))
    }
}

/// Decodes records with reused buffers.
#[derive(Debug, Default)]
pub struct RecordDecoder {
    wire: SubmissionRecord,
}

impl RecordDecoder {
    /// Decodes and validates one record.
    ///
    /// # Errors
    /// When the record is not a valid submission. The decoder can decode further records.
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
        if self.wire.accepted_at_ms >= MAX_ACCEPTED_AT_MS {
            return Err(RecordFault::Time(self.wire.accepted_at_ms));
        }
        let kind = self.check_kind()?;
        Ok(RecordView {
            kind,
            budget: &self.wire.budget,
            person: PersonKey::from_bytes(person),
            submission_id: SubmissionId(id),
            submission: SubmissionId(id).fingerprint(),
            accepted_at_ms: self.wire.accepted_at_ms,
            basis_points: &self.wire.basis_points,
            generated_id: self.wire.generated_id,
            publish_step: PublishStep::nearest(self.wire.publish_step.into()),
        })
    }

    fn check_kind(&self) -> Result<RecordKind, RecordFault> {
        let has_shares = !self.wire.basis_points.is_empty();
        let annulment = match SubmissionKind::try_from(self.wire.kind) {
            Ok(SubmissionKind::Allocate) => {
                check_shares(&self.wire.basis_points)?;
                None
            }
            Ok(SubmissionKind::Withdraw) if has_shares => {
                return Err(RecordFault::WithdrawalWithShares);
            }
            Ok(SubmissionKind::Withdraw) => None,
            Ok(SubmissionKind::Annul) => Some(AnnulmentAction::Annul),
            Ok(SubmissionKind::Restore) => Some(AnnulmentAction::Restore),
            Ok(SubmissionKind::Unspecified) | Err(_) => {
                return Err(RecordFault::Kind(self.wire.kind));
            }
        };
        match (annulment, &self.wire.marker) {
            (None, None) => Ok(RecordKind::Submission),
            (None, Some(marker)) => self.check_marker(marker).map(RecordKind::Marker),
            (Some(action), None) if self.wire.generated_id && !has_shares => {
                Ok(RecordKind::Annulment(action))
            }
            (Some(_), _) => Err(RecordFault::Annulment),
        }
    }

    fn check_marker(&self, marker: &proto::Marker) -> Result<Marker, RecordFault> {
        let kind = match proto::MarkerKind::try_from(marker.kind) {
            Ok(proto::MarkerKind::Close) => MarkerKind::Close,
            Ok(proto::MarkerKind::Reopen) => MarkerKind::Reopen,
            Ok(proto::MarkerKind::Unspecified) | Err(_) => return Err(RecordFault::Marker),
        };
        let has_form = self.wire.generated_id && self.wire.basis_points.is_empty();
        if !has_form || marker.revision == 0 {
            return Err(RecordFault::Marker);
        }
        Ok(Marker { kind, revision: marker.revision })
    }
}

/// Computes a digest of a record's key and value, by which a recreated log is detected.
pub fn record_fingerprint(key: &[u8], value: &[u8]) -> u64 {
    let length = (key.len() as u64).to_le_bytes();
    crate::fnv::fnv1a(length.into_iter().chain(key.iter().copied()).chain(value.iter().copied()))
}
