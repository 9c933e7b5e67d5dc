//! The bodies and headers of answers, written straight into bytes: a batch has a thousand of them.

use std::io::Write;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};
use runtime::problem::{Problem, ProblemKind};
use schemas::{BudgetId, LogNumber, PersonName, Receipt, SubmissionId};
use uuid::fmt::Hyphenated;

use crate::service::RETRY_AFTER;

const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An item of a batch that was accepted, in bytes: what room to make for it.
pub(crate) const ACCEPTED_ITEM_BYTES: usize = 192;

/// The answer to a submission or withdrawal that is in the log.
pub(crate) fn accepted(
    budget: &BudgetId,
    person: &PersonName,
    id: SubmissionId,
    receipt: Receipt,
    repeated: bool,
) -> Response {
    let mut body = Vec::with_capacity(ACCEPTED_ITEM_BYTES);
    body.extend_from_slice(br#"{"status":"accepted""#);
    write_receipt(&mut body, budget, id, receipt);
    body.push(b'}');
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    // Both are ASCII by their making.
    if let Ok(location) = HeaderValue::from_str(&location(budget, person)) {
        headers.insert(LOCATION, location);
    }
    if let Ok(token) = HeaderValue::from_str(&receipt.to_string()) {
        headers.insert(CONSISTENCY_TOKEN, token);
    }
    if repeated {
        headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// The same as an item of a batch.
pub(crate) fn write_accepted_item(
    body: &mut Vec<u8>,
    budget: &BudgetId,
    id: SubmissionId,
    receipt: Receipt,
    repeated: bool,
) {
    body.extend_from_slice(br#"{"status":202"#);
    write_receipt(body, budget, id, receipt);
    if repeated {
        body.extend_from_slice(br#","replayed":true"#);
    }
    body.push(b'}');
}

/// A problem as an item of a batch; with the submission's id, where repeating it needs that.
pub(crate) fn write_problem_item(body: &mut Vec<u8>, problem: &Problem, id: Option<SubmissionId>) {
    // Writing to a Vec cannot fail; here and elsewhere.
    let _ = write!(body, r#"{{"status":{}"#, problem.status().as_u16());
    if let Some(id) = id {
        write_id(body, id);
    }
    body.extend_from_slice(br#","problem":"#);
    let _ = serde_json::to_writer(&mut *body, problem);
    body.push(b'}');
}

fn write_receipt(body: &mut Vec<u8>, budget: &BudgetId, id: SubmissionId, receipt: Receipt) {
    write_id(body, id);
    body.extend_from_slice(br#","budget":""#);
    // A slug needs no escapes.
    body.extend_from_slice(budget.as_str().as_bytes());
    body.extend_from_slice(br#"","partition":"#);
    write_number(body, receipt.partition.0.into());
    body.extend_from_slice(br#","offset":"#);
    write_number(body, receipt.offset.0);
    // As its `Display` writes it, which takes longer.
    body.extend_from_slice(br#","receipt":""#);
    if receipt.log > LogNumber::FIRST {
        write_number(body, receipt.log.0.into());
        body.push(b'.');
    }
    write_number(body, receipt.partition.0.into());
    body.push(b'.');
    write_number(body, receipt.offset.0);
    body.push(b'"');
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

/// Where a person's allocation is.
fn location(budget: &BudgetId, person: &PersonName) -> String {
    let person = person.reveal();
    let mut path = String::with_capacity(64 + person.len());
    path.push_str("/v1/budgets/");
    path.push_str(budget.as_str());
    path.push_str("/submissions/");
    for byte in person.bytes() {
        // The person called `batch` would be taken for the route of that name, were nothing of it encoded.
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if plain && person != "batch" {
            path.push(char::from(byte));
        } else {
            path.push('%');
            path.push(hex(byte >> 4));
            path.push(hex(byte & 15));
        }
    }
    path
}

fn hex(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase()
}

/// The log does not take records: nothing was accepted.
pub(crate) fn unavailable(detail: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable)
        .detail(format!("{detail}; nothing was accepted"))
        .retry_after(RETRY_AFTER)
}

/// The log did not say whether it has the record.
pub(crate) fn unknown(id: SubmissionId) -> Problem {
    Problem::new(ProblemKind::Unavailable)
        .detail(format!(
            "the log did not say in time whether it has the submission, so whether it was accepted is unknown; repeat \
             it with \"submission_id\": \"{id}\", and it counts once"
        ))
        .retry_after(RETRY_AFTER)
}

/// The same submission is being handled.
pub(crate) fn in_flight() -> Problem {
    Problem::new(ProblemKind::InFlight)
        .detail("a submission with this id is being handled at this moment; repeat it to get its answer")
        .retry_after(RETRY_AFTER)
}

/// The submission's id came before with something else.
pub(crate) fn reused() -> Problem {
    Problem::new(ProblemKind::KeyReused)
        .detail("this id came before with another person, another allocation or a withdrawal; nothing was accepted")
}

/// A finished JSON body.
pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, JSON)], body).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemas::{Offset, PartitionId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_receipt_is_written_as_its_text_is() {
        for log in [LogNumber::FIRST, LogNumber(7)] {
            let receipt = Receipt { log, partition: PartitionId(3), offset: Offset(1_042) };
            let mut body = b"{".to_vec();
            let (budget, id) = (BudgetId::parse("taxes").unwrap(), SubmissionId(Uuid::nil()));
            write_accepted_item(&mut body, &budget, id, receipt, false);
            let body = String::from_utf8(body).unwrap();
            assert!(body.contains(&format!(r#""receipt":"{receipt}""#)), "{body}");
        }
    }

    fn location_of(person: &str) -> String {
        location(&BudgetId::parse("taxes").unwrap(), &PersonName::parse(person).unwrap())
    }

    #[test]
    fn a_location_holds_any_person_as_one_segment_that_is_no_other_route() {
        assert_eq!(location_of("p-1"), "/v1/budgets/taxes/submissions/p-1");
        assert_eq!(location_of("a/b c%é"), "/v1/budgets/taxes/submissions/a%2Fb%20c%25%C3%A9");
        assert_eq!(location_of("batch"), "/v1/budgets/taxes/submissions/%62%61%74%63%68");
    }
}
