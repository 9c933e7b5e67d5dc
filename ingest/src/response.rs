//! Writes response bodies and headers directly as bytes: a batch response holds up to a thousand results.

use std::io::Write;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode_byte, utf8_percent_encode};
use runtime::problem::Problem;
use schemas::{BudgetId, PersonId, ReceiptSigner, RecordAddress, SubmissionId};
use uuid::fmt::Hyphenated;

const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Initial capacity for one accepted item of a batch response, in bytes.
pub(crate) const ACCEPTED_ITEM_BYTES: usize = 208;

/// Characters of a path segment that need escapes: all but the unreserved ones of RFC 3986.
const SEGMENT_ESCAPES: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A submission or withdrawal that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AcceptedSubmission {
    pub id: SubmissionId,
    pub address: RecordAddress,
    /// Whether an earlier request appended it.
    pub repeated: bool,
    /// Whether it is known that the id had not been used before, or for what.
    pub id_checked: bool,
}

/// Builds the response to a submission or withdrawal that is in the log.
pub(crate) fn accepted(
    budget: &BudgetId,
    person: &PersonPath,
    submission: &AcceptedSubmission,
    signer: &ReceiptSigner,
) -> Response {
    let token = signer.sign(budget, submission.address).to_string();
    let mut body = Vec::with_capacity(ACCEPTED_ITEM_BYTES);
    body.extend_from_slice(br#"{"status":"accepted""#);
    write_receipt(&mut body, budget, submission, &token);
    body.push(b'}');
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    // Both texts are ASCII by construction.
    if let Ok(location) = HeaderValue::from_str(&location(budget, person, &token)) {
        headers.insert(LOCATION, location);
    }
    if let Ok(token) = HeaderValue::from_str(&token) {
        headers.insert(CONSISTENCY_TOKEN, token);
    }
    if submission.repeated {
        headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// Writes the result of an accepted batch item.
pub(crate) fn write_accepted_item(
    body: &mut Vec<u8>,
    budget: &BudgetId,
    submission: &AcceptedSubmission,
    signer: &ReceiptSigner,
) {
    body.extend_from_slice(br#"{"status":202"#);
    let token = signer.sign(budget, submission.address).to_string();
    write_receipt(body, budget, submission, &token);
    if submission.repeated {
        body.extend_from_slice(br#","replayed":true"#);
    }
    body.push(b'}');
}

/// Writes the problem of a rejected batch item. `id` is the submission id that a retry must repeat, if any.
pub(crate) fn write_problem_item(body: &mut Vec<u8>, problem: &Problem, id: Option<SubmissionId>) {
    // Writing to a Vec cannot fail.
    let _ = write!(body, r#"{{"status":{}"#, problem.status().as_u16());
    if let Some(id) = id {
        write_id(body, id);
    }
    body.extend_from_slice(br#","problem":"#);
    let _ = serde_json::to_writer(&mut *body, problem);
    body.push(b'}');
}

fn write_receipt(
    body: &mut Vec<u8>,
    budget: &BudgetId,
    submission: &AcceptedSubmission,
    token: &str,
) {
    let address = submission.address;
    write_id(body, submission.id);
    body.extend_from_slice(br#","budget":""#);
    // A budget id is a slug, which needs no JSON escapes.
    body.extend_from_slice(budget.as_str().as_bytes());
    body.extend_from_slice(br#"","partition":"#);
    write_number(body, address.partition.0.into());
    body.extend_from_slice(br#","offset":"#);
    write_number(body, address.offset.0);
    body.extend_from_slice(br#","receipt":""#);
    body.extend_from_slice(token.as_bytes());
    body.push(b'"');
    if !submission.id_checked {
        body.extend_from_slice(br#","id_checked":false"#);
    }
}

fn write_number(body: &mut Vec<u8>, number: u64) {
    body.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn write_id(body: &mut Vec<u8>, id: SubmissionId) {
    let mut text = [0; Hyphenated::LENGTH];
    body.extend_from_slice(br#","submission_id":""#);
    body.extend_from_slice(id.0.hyphenated().encode_lower(&mut text).as_bytes());
    body.push(b'"');
}

/// The last segment of the path of a person's allocation.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PersonPath(String);

impl PersonPath {
    /// Names the person who asks.
    pub fn me() -> Self {
        Self("me".to_owned())
    }

    /// Names a person by the id that the client knows.
    pub fn of(person: &PersonId) -> Self {
        let person = person.reveal();
        if matches!(person, "batch" | "me") {
            // Unescaped, a person with this id would collide with another route.
            return Self(person.bytes().map(percent_encode_byte).collect());
        }
        Self(utf8_percent_encode(person, SEGMENT_ESCAPES).to_string())
    }
}

/// The path and query of a person's allocation, once it includes the submission of the receipt.
fn location(budget: &BudgetId, person: &PersonPath, receipt: &str) -> String {
    let mut path = String::with_capacity(64 + person.0.len());
    path.push_str("/v1/budgets/");
    path.push_str(budget.as_str());
    path.push_str("/submissions/");
    path.push_str(&person.0);
    // A receipt has hexadecimal digits, dots and a hyphen only, which need no escapes.
    path.push_str("?at_least=");
    path.push_str(receipt);
    path
}

/// Builds a response from a finished JSON body.
pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, JSON)], body).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn location_of(person: &str) -> String {
        let (budget, person) =
            (BudgetId::parse("taxes").unwrap(), PersonId::parse(person).unwrap());
        location(&budget, &PersonPath::of(&person), "3.42")
    }

    #[test]
    fn a_location_escapes_any_person_into_one_segment_that_matches_no_other_route() {
        assert_eq!(location_of("p-1"), "/v1/budgets/taxes/submissions/p-1?at_least=3.42");
        assert_eq!(
            location_of("a/b c%é"),
            "/v1/budgets/taxes/submissions/a%2Fb%20c%25%C3%A9?at_least=3.42"
        );
        assert_eq!(
            location_of("batch"),
            "/v1/budgets/taxes/submissions/%62%61%74%63%68?at_least=3.42"
        );
        assert_eq!(location_of("me"), "/v1/budgets/taxes/submissions/%6D%65?at_least=3.42");
        let budget = BudgetId::parse("taxes").unwrap();
        let own = location(&budget, &PersonPath::me(), "3.42");
        assert_eq!(own, "/v1/budgets/taxes/submissions/me?at_least=3.42");
    }
}
