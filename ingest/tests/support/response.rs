//! Responses, and checks of what every response of a kind has.

use http::{HeaderMap, StatusCode};
use schemas::{BudgetId, Receipt, ReceiptProof, RecordAddress};
use serde_json::Value;

use super::person_secret;

pub struct TestResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl TestResponse {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Checks that the response is a complete problem of this kind and returns its detail.
    #[track_caller]
    pub fn problem(&self, status: u16, slug: &str) -> String {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{text}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert!(self.header("x-request-id").is_some());
        let problem = self.json();
        check_problem(&problem, status, slug);
        assert_eq!(problem["instance"].as_str(), self.header("x-request-id"));
        problem["detail"].as_str().unwrap().to_owned()
    }

    /// The pointers of the problem's faults.
    pub fn pointers(&self) -> Vec<String> {
        pointers(&self.json())
    }

    /// Checks the response to an accepted submission and returns its receipt.
    #[track_caller]
    pub fn accepted(&self) -> RecordAddress {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), 202, "{text}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body = self.json();
        assert_eq!(body["status"], "accepted");
        let receipt = check_receipt(&body);
        assert_eq!(self.header("consistency-token"), body["receipt"].as_str());
        receipt
    }
}

#[track_caller]
pub fn check_problem(problem: &Value, status: u16, slug: &str) {
    assert_eq!(problem["type"], format!("/problems/{slug}"), "{problem}");
    assert_eq!(problem["status"], status);
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
}

pub fn pointers(problem: &Value) -> Vec<String> {
    let errors = problem["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

/// Returns the receipt of an accepted submission after checking that the body's fields agree.
#[track_caller]
pub fn check_receipt(body: &Value) -> RecordAddress {
    let text = body["receipt"].as_str().unwrap();
    let presented: Receipt = text.parse().unwrap();
    let taxes = BudgetId::parse("taxes").unwrap();
    assert_eq!(person_secret().receipt_signer().proof(&taxes, presented), ReceiptProof::Signed);
    let receipt = presented.address;
    assert_eq!(body["budget"], "taxes");
    assert_eq!(body["partition"], receipt.partition.0);
    assert_eq!(body["offset"], receipt.offset.0);
    assert_eq!(body["submission_id"].as_str().unwrap().len(), 36);
    receipt
}
