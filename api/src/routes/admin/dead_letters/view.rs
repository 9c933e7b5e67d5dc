//! JSON views of dead letters. Keys and values are hexadecimal: any writer to the log may have chosen the bytes.

use schemas::RecordAddress;
use serde::Serialize;
use storage::log::dead_letters::{
    DeadLetterPage, DeadLetterRecord, DeadLetterRecordError, DeadLetterState, TrackedDeadLetter,
};
use utoipa::ToSchema;

use crate::rfc3339::rfc3339;

/// Maximum bytes of a key or value in a response.
const MAX_SHOWN_BYTES: usize = 4_096;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterPageView {
    /// Ordered by record address.
    dead_letters: Vec<DeadLetterView>,
    /// `after` of the next page; `null` on the last page.
    next: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterView {
    /// The record's address: partition.offset.
    id: String,
    partition: u32,
    offset: u64,
    state: &'static str,
    /// Address of the record's copy, if the dead letter was replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_as: Option<String>,
    reason: String,
    #[serde(rename = "put_at")]
    appended_at: Option<String>,
    key_bytes: u64,
    value_bytes: u64,
    /// The record's bytes; only in the response for a single dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<RecordBytesView>,
}

/// The bytes of a dead letter's record, or why they cannot be shown. At most 4,096 bytes of each.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RecordBytesView {
    /// In hexadecimal.
    key: Option<String>,
    /// In hexadecimal.
    value: Option<String>,
    /// Why the bytes cannot be shown.
    #[serde(rename = "trouble")]
    missing_reason: Option<String>,
}

impl DeadLetterPageView {
    pub(super) fn of(page: &DeadLetterPage) -> Self {
        let dead_letters = page.letters.iter();
        Self {
            dead_letters: dead_letters
                .map(|(id, letter)| DeadLetterView::of(*id, letter))
                .collect(),
            next: page.next.map(|id| id.to_string()),
        }
    }
}

impl DeadLetterView {
    fn of(id: RecordAddress, dead_letter: &TrackedDeadLetter) -> Self {
        let meta = &dead_letter.meta;
        let (state, replayed_as) = match dead_letter.state {
            DeadLetterState::Open => ("open", None),
            DeadLetterState::Replaying { .. } => ("replaying", None),
            DeadLetterState::Replayed(copy) => ("replayed", Some(copy.to_string())),
            DeadLetterState::Dropped => ("dropped", None),
            DeadLetterState::Unrecognized => ("unrecognized", None),
        };
        Self {
            id: id.to_string(),
            partition: id.partition.0,
            offset: id.offset.0,
            state,
            replayed_as,
            reason: meta.reason.clone(),
            appended_at: rfc3339(meta.appended_at_ms),
            key_bytes: meta.key_bytes,
            value_bytes: meta.value_bytes,
            record: None,
        }
    }

    pub(super) fn with_record(
        id: RecordAddress,
        dead_letter: &TrackedDeadLetter,
        record: RecordBytesView,
    ) -> Self {
        Self { record: Some(record), ..Self::of(id, dead_letter) }
    }
}

impl RecordBytesView {
    /// Shows the bytes of the record.
    pub(super) fn of(record: &DeadLetterRecord) -> Self {
        let shown = |bytes: &[u8]| hex::encode(&bytes[..bytes.len().min(MAX_SHOWN_BYTES)]);
        Self {
            key: Some(shown(&record.key)),
            value: Some(shown(&record.value)),
            missing_reason: None,
        }
    }

    /// Shows that the log no longer holds the record.
    pub(super) fn missing(error: &DeadLetterRecordError) -> Self {
        Self { key: None, value: None, missing_reason: Some(error.to_string()) }
    }
}
