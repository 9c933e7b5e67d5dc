//! Budgets that are deleted.

use http::Method;

use crate::support::{GOOD, Harness, SUBMISSIONS};
use crate::{BODY, NEW, bearer, delete, put, with_admin_tokens};

#[tokio::test]
async fn a_budget_without_submissions_can_be_deleted_and_defined_anew() {
    let harness = Harness::new();
    put(&harness, NEW, &[], BODY).await;
    let path = format!("{NEW}/submissions");
    // A withdrawal of nobody does not keep it.
    harness.send(Method::DELETE, &format!("{path}/nobody"), &[], String::new()).await;
    let response = delete(&harness, NEW, &[]).await;
    assert_eq!((response.status.as_u16(), response.body.len()), (204, 0));
    harness.post(&path, GOOD).await.problem(404, "not-found");
    delete(&harness, NEW, &[]).await.problem(404, "not-found");
    delete(&harness, "/v1/budgets/No%20slug", &[]).await.problem(404, "not-found");
    let defined = put(&harness, NEW, &[], BODY).await;
    // Revisions continue, for processes that have missed the deletion.
    assert_eq!((defined.status.as_u16(), defined.json()["revision"].clone()), (201, 3.into()));
}

#[tokio::test]
async fn a_budget_with_submissions_is_not_deleted() {
    let harness = Harness::new();
    harness.post(SUBMISSIONS, GOOD).await.accepted();
    delete(&harness, "/v1/budgets/taxes", &[]).await.problem(409, "budget-frozen");
    assert!(harness.definitions.get("taxes").is_some());
}

#[tokio::test]
async fn only_administrators_delete_and_only_the_definition_that_they_mean() {
    let harness = with_admin_tokens();
    harness.post(SUBMISSIONS, GOOD).await.accepted();
    let admin = bearer("a");
    put(&harness, NEW, &[("authorization", &admin)], BODY).await;
    delete(&harness, NEW, &[]).await.problem(401, "unauthorized");
    let operator = bearer("o");
    delete(&harness, NEW, &[("authorization", &operator)]).await.problem(403, "forbidden");
    let other = [("authorization", &*admin), ("if-match", "\"x\"")];
    delete(&harness, NEW, &other).await.problem(412, "precondition-failed");
    assert!(harness.definitions.get("new").is_some());
    let response = delete(&harness, NEW, &[("authorization", &admin), ("if-match", "*")]).await;
    assert_eq!(response.status.as_u16(), 204);
}
