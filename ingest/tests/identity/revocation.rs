//! Revoked codes: refused as wrong ones, with their sessions, and counted on as what they have submitted.

use std::time::Duration;

use http::Method;
use identity::Serial;
use runtime::clock::now_ms;
use runtime::principal::{Session, SessionKey};
use schemas::{BudgetId, IdentityRule, RevokedCodes, StoredRevocations};
use tokio_util::sync::CancellationToken;

use crate::service::{ALLOCATION, ME, OURS, SESSION, SUBMITTER, Service, bearer, code, subject};
use crate::support::{SUBMISSIONS, person_secret};

fn body(code: &str) -> String {
    serde_json::json!({ "code": code }).to_string()
}

fn serial(number: u32) -> String {
    Serial::new(number).unwrap().to_string()
}

#[tokio::test]
async fn a_revoked_code_is_answered_as_a_wrong_one() {
    let service = Service::new(IdentityRule::Code);
    service.session(&[], &body(&code(2))).await;
    service.revoke("2,10-20");
    let wrong = service.send(Method::POST, SESSION, &[], &body("0000-0000-0000-0000")).await;
    let expected = (wrong.problem(401, "unauthorized"), wrong.headers.len());
    for revoked in [2, 10, 15, 20] {
        let refused = service.send(Method::POST, SESSION, &[], &body(&code(revoked))).await;
        let answer = (refused.problem(401, "unauthorized"), refused.headers.len());
        assert_eq!(answer, expected, "{revoked}");
        let form = service.post_form("session", &[], &format!("code={}", code(revoked))).await;
        assert_eq!(form.header("location"), Some("/budgets/taxes/mine?fault=unauthorized"));
        let form =
            service.post_form("submit", &[], &format!("c.health=100&code={}", code(revoked))).await;
        assert!(form.header("location").unwrap().contains("fault=unauthorized"));
        assert_eq!(form.header("set-cookie"), None);
    }
    for valid in [1, 3, 9, 21] {
        service.session(&[], &body(&code(valid))).await;
    }
    assert!(service.persons().is_empty());
}

#[tokio::test]
async fn a_revocation_ends_the_sessions_of_the_code_and_no_others() {
    let service = Service::new(IdentityRule::Code);
    let (one, two) =
        (service.session(&[], &body(&code(1))).await, service.session(&[], &body(&code(2))).await);
    let cookie = |token: &str| format!("allocator_session={token}");
    let (bearers, cookies) = ([bearer(&one), bearer(&two)], [cookie(&one), cookie(&two)]);
    for number in [0, 1] {
        let headers = [("authorization", bearers[number].as_str())];
        service.send(Method::PUT, ME, &headers, ALLOCATION).await.accepted();
    }
    service.revoke("2");
    let (token, cookie) = (bearers[1].as_str(), cookies[1].as_str());
    let by_token = [("authorization", token)];
    for (method, path, body) in [
        (Method::PUT, ME, ALLOCATION),
        (Method::DELETE, ME, ""),
        (Method::POST, SUBMISSIONS, ALLOCATION),
    ] {
        let ended = service.send(method, path, &by_token, body).await;
        ended.problem(401, "unauthorized");
        assert_eq!(ended.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    }
    let by_cookie = [("cookie", cookie), OURS];
    let ended = service.send(Method::PUT, ME, &by_cookie, ALLOCATION).await;
    ended.problem(401, "unauthorized");
    for route in ["submit", "withdraw"] {
        let ended = service.post_form(route, &[("cookie", cookie)], "c.health=100").await;
        assert!(ended.header("location").unwrap().contains("fault=unauthorized"), "{route}");
    }
    let other = [("cookie", cookies[0].as_str()), OURS];
    service.send(Method::PUT, ME, &other, ALLOCATION).await.accepted();
    let (first, second) = (subject("code", &serial(1)), subject("code", &serial(2)));
    assert_eq!(service.persons(), [first, second, first], "what was submitted stays");
    // A service acts for everyone: it may withdraw what the code has submitted.
    let submitter = bearer(SUBMITTER);
    let path = format!("{SUBMISSIONS}/{}", serial(2));
    let headers = [("authorization", submitter.as_str())];
    service.send(Method::DELETE, &path, &headers, "").await.accepted();
}

#[tokio::test]
async fn a_session_whose_subject_is_no_serial_number_is_refused() {
    let service = Service::new(IdentityRule::Code);
    let key = SessionKey::new(&person_secret().derived_secret("sessions"));
    let now_s = now_ms() / 1_000;
    for name in ["", "1", "00001 ", "0000I", "00001\u{3}", "000011", "é000"] {
        let session = Session {
            method: "code",
            subject: name,
            budget: "taxes",
            begins_at_s: now_s,
            ends_at_s: now_s + 100,
        };
        let token = bearer(&key.sign(&session));
        let headers = [("authorization", token.as_str())];
        let refused = service.send(Method::PUT, ME, &headers, ALLOCATION).await;
        refused.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn no_code_is_accepted_while_it_is_unknown_which_are_revoked() {
    let service = Service::new(IdentityRule::Code);
    let token = bearer(&service.session(&[], &body(&code(1))).await);
    let headers = [("authorization", token.as_str())];
    let budget = BudgetId::parse("taxes").unwrap();
    let mut unreadable = RevokedCodes::none();
    unreadable.add(&budget, StoredRevocations::Unreadable);
    for unknown in [RevokedCodes::default(), unreadable] {
        service.harness.revoked.send_replace(unknown);
        let mut answers = Vec::new();
        for code in [&*code(1), "wrong"] {
            let refused = service.send(Method::POST, SESSION, &[], &body(code)).await;
            answers.push(refused.problem(503, "unavailable"));
        }
        assert_eq!(answers[0], answers[1]);
        let refused = service.send(Method::PUT, ME, &headers, ALLOCATION).await;
        refused.problem(503, "unavailable");
    }
    service.harness.revoked.send_replace(RevokedCodes::none());
    service.send(Method::PUT, ME, &headers, ALLOCATION).await.accepted();
}

#[tokio::test]
async fn unreadable_records_of_revoked_codes_are_counted_until_they_are_readable() {
    let service = Service::new(IdentityRule::Code);
    tokio::spawn(service.harness.authorizer.clone().run(CancellationToken::new()));
    let budget = BudgetId::parse("taxes").unwrap();
    let mut unreadable = RevokedCodes::none();
    unreadable.add(&budget, StoredRevocations::Unreadable);
    for (known, count) in [(unreadable, 1), (RevokedCodes::none(), 0)] {
        service.harness.revoked.send_replace(known);
        let line = format!("allocator_identity_revocations_unreadable {count}");
        let counted = async {
            loop {
                let text = String::from_utf8(service.harness.metrics.render()).unwrap();
                if text.lines().any(|counted| counted == line) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), counted).await.unwrap();
    }
}
