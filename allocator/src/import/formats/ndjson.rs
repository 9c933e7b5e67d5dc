//! A submission's JSON on each line, as `POST /v1/budgets/{budget}/submissions` takes it.

use std::io::BufRead;

use schemas::PersonName;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::import::ballot::{Ballot, Name, Split};
use crate::import::file::{Entry, FileIdentity, Line, Lines, ReadError, Refusal};

/// A file of submissions, read as far as the next line.
pub struct Ndjson<R> {
    lines: Lines<R>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    person: Option<String>,
    submission_id: Option<Uuid>,
    /// The server judges it: it knows the budget.
    allocation: Box<RawValue>,
}

impl<R: BufRead> Ndjson<R> {
    /// Begins at the reader's place.
    pub fn open(reader: R) -> Self {
        Self { lines: Lines::new(reader) }
    }

    /// The next submission; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read any further.
    pub fn next_ballot(&mut self) -> Result<Option<Entry<Ballot>>, ReadError> {
        let Some(line) = self.lines.next_filled_line()? else { return Ok(None) };
        let number = line.number;
        Ok(Some(ballot(line).map_err(|detail| Refusal { line: number, detail })))
    }

    /// The identity of what was read so far; the file's, at its end.
    pub fn identity(&self) -> FileIdentity {
        self.lines.identity()
    }
}

fn ballot(line: Line<'_>) -> Result<Ballot, String> {
    let body: Body = serde_json::from_str(line.text).map_err(|error| {
        // Where it is, without what is there: the error's own text may repeat the person.
        let what = if error.is_data() { "not a submission" } else { "not JSON" };
        format!("is {what}: see its byte {}", error.column())
    })?;
    let person = body.person.as_deref().map(PersonName::parse).transpose();
    Ok(Ballot {
        line: line.number,
        person: person.map_err(|fault| format!("the person {fault}"))?,
        name: body.submission_id.map_or(Name::Line(line.number), Name::Given),
        split: Split::Verbatim(body.allocation),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(line: &str) -> Entry<Ballot> {
        Ndjson::open(line.as_bytes()).next_ballot().unwrap().unwrap()
    }

    #[test]
    fn a_line_is_a_submission_whose_allocation_is_left_to_the_server() {
        let ballot = only(r#"{"person":"p","allocation":{"a":1e2}}"#).unwrap();
        assert!(matches!(&ballot.split, Split::Verbatim(raw) if raw.get() == r#"{"a":1e2}"#));
        assert!(ballot.name == Name::Line(1));
        let named =
            only(r#"{"allocation":1,"submission_id":"0198d2a5-0000-7000-8000-000000000001"}"#);
        assert!(matches!(named.unwrap().name, Name::Given(_)));
    }

    #[test]
    fn a_line_that_is_no_submission_is_refused_without_repeating_it() {
        let lines = [
            r#"{"person":"secret""#,
            r#"{"person":7,"allocation":{}}"#,
            r#"{"person":"secret"}"#,
            r#"{"person":"secret","person":"secret","allocation":{}}"#,
            r#"{"person":"secret","allocation":{},"more":1}"#,
            r#"{"person":"secret\u0007","allocation":{}}"#,
            r#"["secret"]"#,
        ];
        for line in lines {
            let refusal = only(line).unwrap_err();
            assert_eq!(refusal.line, 1);
            assert!(!refusal.detail.contains("secret"), "{}", refusal.detail);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_the_reader(text in r#"[{}"\\\[\]:,a-z0-9 ]{1,80}"#) {
            let _ = Ndjson::open(text.as_bytes()).next_ballot();
        }
    }
}
