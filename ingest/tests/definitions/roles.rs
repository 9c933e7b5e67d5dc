//! Who may change definitions.

use crate::support::{GOOD, Harness, SUBMISSIONS};
use crate::{BODY, NEW, bearer, put, with_admin_tokens};

#[tokio::test]
async fn with_tokens_only_the_admin_role_changes_definitions() {
    let harness = with_admin_tokens();
    let response = put(&harness, NEW, &[], BODY).await;
    response.problem(401, "unauthorized");
    assert_eq!(response.header("www-authenticate"), Some("Bearer"));
    put(&harness, NEW, &[("authorization", &bearer("w"))], BODY).await.problem(401, "unauthorized");
    let response = put(&harness, NEW, &[("authorization", &bearer("o"))], BODY).await;
    let detail = response.problem(403, "forbidden");
    assert!(detail.contains("requires the role admin; otto has the role operator"), "{detail}");
    assert!(harness.definitions.get("new").is_none());
    let response = put(&harness, NEW, &[("authorization", &bearer("a"))], BODY).await;
    assert_eq!(response.status.as_u16(), 201);
    assert_eq!(response.header("x-ratelimit-remaining"), Some("499"));
    // Submissions need no token.
    harness.post(SUBMISSIONS, GOOD).await.accepted();
}

#[tokio::test]
async fn unauthorized_requests_are_rejected_before_the_body_is_parsed() {
    let harness = with_admin_tokens();
    for body in ["{", ""] {
        put(&harness, NEW, &[], body).await.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn without_tokens_only_local_clients_change_definitions() {
    let harness = Harness::new();
    for forwarded in ["192.0.2.7", "127.0.0.1"] {
        let response = put(&harness, NEW, &[("x-forwarded-for", forwarded)], BODY).await;
        response.problem(403, "forbidden");
    }
    assert!(harness.definitions.get("new").is_none());
    let response = put(&harness, NEW, &[], BODY).await;
    assert_eq!(response.status.as_u16(), 201);
}
