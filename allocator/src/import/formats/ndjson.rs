//! JSON lines: each line is the body of a `POST /v1/budgets/{budget}/submissions`.

use std::io::BufRead;

use schemas::PersonId;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::import::ballot::{Ballot, BallotAllocation, IdSource};
use crate::import::file::{Entry, FileIdentity, FileReadError, Line, Lines, RejectedEntry};

use super::json_shares::parse_shares;

/// An open file of JSON lines.
pub struct Ndjson<R> {
    lines: Lines<R>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    person: Option<String>,
    submission_id: Option<Uuid>,
    allocation: Box<RawValue>,
}

impl<R: BufRead> Ndjson<R> {
    /// Starts at the reader's current position.
    pub fn open(reader: R) -> Self {
        Self { lines: Lines::new(reader) }
    }

    /// Reads the next submission. `None` at the end.
    ///
    /// # Errors
    /// When the rest of the file cannot be read.
    pub fn next_ballot(&mut self) -> Result<Option<Entry<Ballot>>, FileReadError> {
        let Some(line) = self.lines.next_non_blank_line()? else { return Ok(None) };
        let number = line.at.number;
        Ok(Some(parse_ballot(line).map_err(|detail| RejectedEntry { line: number, detail })))
    }

    /// The identity of the content read so far. At the end, the identity of the file.
    pub fn identity(&self) -> FileIdentity {
        self.lines.identity()
    }
}

fn parse_ballot(line: Line<'_>) -> Result<Ballot, String> {
    let body: Body = serde_json::from_str(line.text).map_err(|error| {
        // Only the position: the error's own text may repeat the person's id.
        let what = if error.is_data() { "not a submission" } else { "not JSON" };
        format!("is {what}, at byte {}", error.column())
    })?;
    let person = body.person.as_deref().map(PersonId::parse).transpose();
    Ok(Ballot {
        line: line.at.number,
        person: person.map_err(|fault| format!("the person {fault}"))?,
        id_source: body.submission_id.map_or(IdSource::Line(line.at), IdSource::Given),
        allocation: BallotAllocation::Verbatim {
            shares: parse_shares(&body.allocation)?,
            json: body.allocation,
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_one(line: &str) -> Entry<Ballot> {
        Ndjson::open(line.as_bytes()).next_ballot().unwrap().unwrap()
    }

    #[test]
    fn the_allocation_of_a_line_is_sent_verbatim() {
        let ballot = parse_one(r#"{"person":"p","allocation":{"a":1e2}}"#).unwrap();
        assert!(
            matches!(&ballot.allocation, BallotAllocation::Verbatim { json, .. } if json.get() == r#"{"a":1e2}"#)
        );
        assert!(matches!(ballot.id_source, IdSource::Line(at) if at.number == 1));
        let with_id = parse_one(
            r#"{"allocation":{"a":100},"submission_id":"0198d2a5-0000-7000-8000-000000000001"}"#,
        );
        assert!(matches!(with_id.unwrap().id_source, IdSource::Given(_)));
    }

    #[test]
    fn an_invalid_line_is_rejected_without_repeating_its_content() {
        let lines = [
            r#"{"person":"secret""#,
            r#"{"person":7,"allocation":{}}"#,
            r#"{"person":"secret"}"#,
            r#"{"person":"secret","person":"secret","allocation":{}}"#,
            r#"{"person":"secret","allocation":{},"more":1}"#,
            r#"{"person":"secret\u0007","allocation":{}}"#,
            r#"["secret"]"#,
            r#"{"person":"secret","allocation":{"a":99}}"#,
        ];
        for line in lines {
            let rejected = parse_one(line).unwrap_err();
            assert_eq!(rejected.line, 1);
            assert!(!rejected.detail.contains("secret"), "{}", rejected.detail);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text in r#"[{}"\\\[\]:,a-z0-9 ]{1,80}"#) {
            let _ = Ndjson::open(text.as_bytes()).next_ballot();
        }
    }
}
