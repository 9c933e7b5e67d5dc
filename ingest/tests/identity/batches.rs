//! Who may send a batch: services and administrators alone, whatever a budget's identity rule.

use http::Method;
use runtime::admin::{Role, TokensFile};
use schemas::IdentityRule;

use crate::service::{ADMIN, ALLOCATION, SUBMITTER, Service, VIEWER, bearer, code, subject};
use crate::support::{BATCH, GOOD, Harness, SUBMISSIONS, key};
use crate::{CLIENT, COOKIE, OURS};

const RULES: [IdentityRule; 6] = [
    IdentityRule::Required,
    IdentityRule::Optional,
    IdentityRule::Anonymous,
    IdentityRule::Code,
    IdentityRule::Email,
    IdentityRule::Token,
];

/// Returns the lines of a file, and what keeps the file.
fn tokens_file(lines: &[String]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    file
}

fn harness_with(lines: &[String]) -> (Harness, tempfile::NamedTempFile) {
    let file = tokens_file(lines);
    let harness = Harness::with(1_000, &[("admin.tokens_file", file.path().to_str().unwrap())]);
    (harness, file)
}

#[tokio::test]
async fn under_every_identity_rule_a_batch_needs_a_service_or_an_administrator() {
    for rule in RULES {
        let service = Service::new(rule);
        for headers in [&[][..], &[CLIENT], &[COOKIE, OURS]] {
            let refused = service.send(Method::POST, BATCH, headers, "[]").await;
            refused.problem(401, "unauthorized");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
            let detail = refused.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("`submitter`") && detail.contains("admin.tokens_file"));
        }
        let viewer = bearer(VIEWER);
        let refused = service.send(Method::POST, BATCH, &[("authorization", &viewer)], "[]").await;
        refused.problem(403, "forbidden");
        let wrong = service.send(Method::POST, BATCH, &[("authorization", "Bearer x")], "[]").await;
        wrong.problem(401, "unauthorized");
        assert_eq!(wrong.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
        assert!(service.harness.log.records.lock().is_empty());
        for token in [SUBMITTER, ADMIN] {
            let token = bearer(token);
            let headers = [("authorization", token.as_str()), CLIENT];
            let accepted = service.send(Method::POST, BATCH, &headers, "[]").await;
            assert_eq!(accepted.status, 200, "{rule:?}");
        }
    }
}

#[tokio::test]
async fn the_batch_of_a_stranger_is_refused_whatever_its_budget_and_body() {
    let service = Service::new(IdentityRule::Required);
    let other = "/v1/budgets/no-such/submissions/batch";
    let good = format!("[{GOOD}]");
    for (number, (path, body)) in [(BATCH, "{"), (BATCH, &*good), (other, "[]")].iter().enumerate()
    {
        service.send(Method::POST, path, &[CLIENT], body).await.problem(401, "unauthorized");
        assert_eq!(service.harness.counted("invalid"), number as u64 + 1);
    }
}

#[tokio::test]
async fn without_a_submitters_token_the_same_machine_sends_batches_where_clients_name_persons() {
    let (harness, _file) = harness_with(&[TokensFile::line("anna", Role::Admin, ADMIN)]);
    let batch = format!("[{GOOD}]");
    for rule in RULES {
        harness.edit_budget(|budget| budget.identity = rule);
        for sign in [CLIENT, ("via", "1.1 proxy"), ("origin", "https://town.example"), COOKIE] {
            let refused = harness.post_with(BATCH, &[sign], batch.clone()).await;
            refused.problem(401, "unauthorized");
        }
        let local = harness.post(BATCH, batch.clone()).await;
        if rule.is_named_by_client() {
            assert_eq!(local.status, 200, "{rule:?}");
        } else {
            // Any account of the machine could replace what a person has proven to be theirs.
            local.problem(401, "unauthorized");
        }
    }
    let persons: Vec<_> = harness.logged().into_iter().map(|(person, _)| person).collect();
    assert_eq!(persons, [key("p-1"), key("p-1")]);
    harness.post("/v1/budgets/absent/submissions/batch", batch).await.problem(404, "not-found");
}

#[tokio::test]
async fn without_a_tokens_file_the_same_machine_sends_batches_as_an_administrator() {
    let harness = Harness::new();
    harness.edit_budget(|budget| budget.identity = IdentityRule::Code);
    assert_eq!(harness.post(BATCH, format!("[{GOOD}]")).await.status, 200);
    let persons: Vec<_> = harness.logged().into_iter().map(|(person, _)| person).collect();
    assert_eq!(persons, [subject("code", "p-1")]);
}

#[tokio::test]
async fn the_token_of_a_service_is_for_the_budgets_of_its_line_alone() {
    let line = |budget: &str| {
        format!("{} budgets=parks,{budget}", TokensFile::line("load", Role::Submitter, SUBMITTER))
    };
    let token = bearer(SUBMITTER);
    let headers = [("authorization", token.as_str())];
    let batch = format!("[{GOOD}]");
    for rule in [IdentityRule::Required, IdentityRule::Code] {
        let (harness, _file) = harness_with(&[line("roads")]);
        harness.edit_budget(|budget| budget.identity = rule);
        let person = format!("{SUBMISSIONS}/p-1");
        harness.post_with(BATCH, &headers, batch.clone()).await.problem(403, "forbidden");
        harness.post_with(SUBMISSIONS, &headers, GOOD).await.problem(403, "forbidden");
        harness.delete(&person, &headers).await.problem(403, "forbidden");
        assert!(harness.log.records.lock().is_empty());

        let (harness, _file) = harness_with(&[line("taxes")]);
        harness.edit_budget(|budget| budget.identity = rule);
        assert_eq!(harness.post_with(BATCH, &headers, batch.clone()).await.status, 200);
        harness.post_with(SUBMISSIONS, &headers, GOOD).await.accepted();
        harness.delete(&person, &headers).await.accepted();
    }
}

#[tokio::test]
async fn a_persons_session_sends_no_batch() {
    let service = Service::new(IdentityRule::Code);
    let own = bearer(&service.session(&[], &format!(r#"{{"code":"{}"}}"#, code(1))).await);
    let headers = [("authorization", own.as_str())];
    let batch = format!("[{ALLOCATION}]");
    service.send(Method::POST, BATCH, &headers, &batch).await.problem(403, "forbidden");
    assert!(service.harness.log.records.lock().is_empty());
}
