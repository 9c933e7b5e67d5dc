//! A dead letter as it is shown. Whoever may write to the log may have chosen its bytes: they are hexadecimal.

use std::fmt::Write as _;

use schemas::Receipt;
use serde::Serialize;
use storage::log::letters::{Letter, LetterRecord, LetterRecordError, LetterState, Page};

use super::super::rfc3339;

/// So much of a key or value is shown.
const SHOWN_BYTES: usize = 4_096;

#[derive(Debug, Serialize)]
pub(crate) struct ShownPage {
    /// In the order of their places.
    dead_letters: Vec<ShownLetter>,
    /// `after` of the next page; `null`: there is none.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ShownLetter {
    /// Where its record stands: partition.offset.
    id: String,
    partition: u32,
    offset: u64,
    state: &'static str,
    /// Of one that was replayed: where its record stands as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_as: Option<String>,
    reason: String,
    put_at: Option<String>,
    key_bytes: u64,
    value_bytes: u64,
    /// Its bytes, where one letter is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<ShownRecord>,
}

/// The bytes of a letter, or why there are none. At most 4,096 of each are shown.
#[derive(Debug, Serialize)]
pub(super) struct ShownRecord {
    /// In hexadecimal.
    key: Option<String>,
    /// In hexadecimal.
    value: Option<String>,
    /// Why they cannot be shown.
    trouble: Option<String>,
}

impl ShownPage {
    pub(super) fn of(page: &Page) -> Self {
        let letters = page.letters.iter();
        Self {
            dead_letters: letters.map(|(place, letter)| ShownLetter::of(*place, letter)).collect(),
            next: page.next.map(|place| place.to_string()),
        }
    }
}

impl ShownLetter {
    fn of(place: Receipt, letter: &Letter) -> Self {
        let put_away = &letter.put_away;
        let (state, replayed_as) = match letter.state {
            LetterState::Open => ("open", None),
            LetterState::Replaying { .. } => ("replaying", None),
            LetterState::Replayed(copy) => ("replayed", Some(copy.to_string())),
            LetterState::Dropped => ("dropped", None),
        };
        Self {
            id: place.to_string(),
            partition: place.partition.0,
            offset: place.offset.0,
            state,
            replayed_as,
            reason: put_away.reason.clone(),
            put_at: rfc3339(put_away.put_at_ms),
            key_bytes: put_away.key_bytes,
            value_bytes: put_away.value_bytes,
            record: None,
        }
    }

    pub(super) fn with_record(place: Receipt, letter: &Letter, record: ShownRecord) -> Self {
        Self { record: Some(record), ..Self::of(place, letter) }
    }
}

impl ShownRecord {
    /// What stands at the letter's place.
    pub(super) fn of(record: &LetterRecord) -> Self {
        Self { key: Some(hex(&record.key)), value: Some(hex(&record.value)), trouble: None }
    }

    /// It is not there any more.
    pub(super) fn gone(error: &LetterRecordError) -> Self {
        Self { key: None, value: None, trouble: Some(error.to_string()) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(SHOWN_BYTES).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
