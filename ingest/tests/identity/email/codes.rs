//! One-time codes: whom a code lets in, how often, and for how long.

use std::sync::atomic::Ordering;

use http::Method;
use schemas::BudgetId;

use super::{ADDRESS, Mailing, wrong_codes};
use crate::service::{ALLOCATION, ME, SUBMITTER, bearer, subject};
use crate::support::SUBMISSIONS;

#[tokio::test]
async fn a_code_from_the_mail_opens_one_session_of_the_mailboxs_person() {
    let mailing = Mailing::new(&[]).await;
    let code = mailing.code("Zebra.Quokka+vote@EXAMPLE.org", 1).await;
    assert_eq!(mailing.smtp.mails()[0].recipients, [format!("<{ADDRESS}>")]);

    let opened = mailing.enter("ZEBRA.quokka@example.org", &code).await;
    assert_eq!(opened.status.as_u16(), 200);
    assert_eq!(opened.header("cache-control"), Some("no-store"));
    let token = bearer(opened.json()["token"].as_str().unwrap());
    mailing.enter(ADDRESS, &code).await.problem(401, "unauthorized");

    let authorization = [("authorization", token.as_str())];
    let service = &mailing.service;
    service.send(Method::PUT, ME, &authorization, ALLOCATION).await.accepted();
    service.send(Method::DELETE, ME, &authorization, "").await.accepted();
    let submitter = bearer(SUBMITTER);
    let named = r#"{"person":"Zebra.Quokka+x@Example.org","allocation":{"health":100}}"#;
    let on_behalf = [("authorization", submitter.as_str())];
    service.send(Method::POST, SUBMISSIONS, &on_behalf, named).await.accepted();
    let nobody = named.replace("Example.org", "localhost");
    let response = service.send(Method::POST, SUBMISSIONS, &on_behalf, &nobody).await;
    response.problem(400, "malformed");
    assert_eq!(service.persons(), vec![subject("email", ADDRESS); 3]);
    let other = named.replace("Zebra", "okapi");
    let response = service.send(Method::POST, SUBMISSIONS, &authorization, &other).await;
    response.problem(403, "forbidden");
    let response = service.send(Method::POST, SUBMISSIONS, &authorization, &nobody).await;
    response.problem(403, "forbidden");
    service.send(Method::PUT, ME, &[], ALLOCATION).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn a_wrong_used_denied_or_unknown_code_gets_the_same_answer() {
    let mailing = Mailing::new(&[("email.denied_domains", "evil.example")]).await;
    let used = mailing.code(ADDRESS, 1).await;
    assert_eq!(mailing.enter(ADDRESS, &used).await.status.as_u16(), 200);
    let code = mailing.code("okapi@example.org", 2).await;
    let wrong = wrong_codes(&code).next().unwrap();
    mailing.ask("a@evil.example").await;
    let mut answers = Vec::new();
    for (address, otp) in [
        (ADDRESS, used.as_str()),
        ("okapi@example.org", wrong),
        ("unknown@example.org", "123456"),
        ("a@evil.example", "123456"),
    ] {
        let response = mailing.enter(address, otp).await;
        assert_eq!(response.header("set-cookie"), None);
        answers.push((response.problem(401, "unauthorized"), response.headers.len()));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn a_code_is_bound_to_its_budget_and_its_address() {
    let mailing = Mailing::new(&[]).await;
    let definitions = &mailing.service.harness.definitions;
    let mut other = schemas::Budget::clone(&definitions.get("taxes").unwrap());
    other.id = BudgetId::parse("parks").unwrap();
    definitions.put(other);
    let code = mailing.code(ADDRESS, 1).await;
    let elsewhere = "/v1/budgets/parks/session";
    let body = format!(r#"{{"email":"{ADDRESS}","otp":"{code}"}}"#);
    let response = mailing.service.send(Method::POST, elsewhere, &[], &body).await;
    response.problem(401, "unauthorized");
    mailing.enter("okapi@example.org", &code).await.problem(401, "unauthorized");
    assert_eq!(mailing.enter(ADDRESS, &code).await.status.as_u16(), 200);
}

#[tokio::test]
async fn five_wrong_tries_void_a_code_and_a_new_one_lets_its_owner_in_at_once() {
    let mailing = Mailing::new(&[]).await;
    let first = mailing.code(ADDRESS, 1).await;
    for wrong in wrong_codes(&first).take(5) {
        mailing.enter(ADDRESS, wrong).await.problem(401, "unauthorized");
    }
    mailing.enter(ADDRESS, &first).await.problem(401, "unauthorized");
    let second = mailing.code(ADDRESS, 2).await;
    for wrong in wrong_codes(&second).take(4) {
        mailing.enter(ADDRESS, wrong).await.problem(401, "unauthorized");
    }
    assert_eq!(mailing.enter(ADDRESS, &second).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_new_code_replaces_the_old_one_and_a_throttled_request_leaves_it() {
    let mailing = Mailing::new(&[]).await;
    let first = mailing.code(ADDRESS, 1).await;
    let second = mailing.code(ADDRESS, 2).await;
    if first != second {
        mailing.enter(ADDRESS, &first).await.problem(401, "unauthorized");
    }
    let third = mailing.code(ADDRESS, 3).await;
    mailing.ask(ADDRESS).await;
    mailing.until_counted("throttled", 1).await;
    assert_eq!(mailing.enter(ADDRESS, &third).await.status.as_u16(), 200);
}

#[tokio::test]
async fn without_the_store_of_codes_both_steps_are_503_and_nobody_gets_in() {
    let mailing = Mailing::new(&[]).await;
    let code = mailing.code(ADDRESS, 1).await;
    let failing = &mailing.service.harness.codes.failing;
    failing.store(true, Ordering::Relaxed);
    for response in [mailing.ask(ADDRESS).await, mailing.enter(ADDRESS, &code).await] {
        response.problem(503, "unavailable");
        assert_eq!(response.header("retry-after"), Some("1"));
        assert_eq!(response.header("set-cookie"), None);
    }
    failing.store(false, Ordering::Relaxed);
    assert_eq!(mailing.enter(ADDRESS, &code).await.status.as_u16(), 200);
}
