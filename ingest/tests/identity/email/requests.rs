//! Requests for a code: which are refused, and what nobody learns from the answer.

use http::Method;
use schemas::IdentityRule;

use super::{ADDRESS, Mailing};
use crate::service::SESSION;

#[tokio::test]
async fn every_address_gets_the_same_answer_and_only_an_allowed_one_a_mail() {
    let lists = [
        ("email.allowed_domains", "example.org,*.example.org"),
        ("email.denied_domains", "evil.example.org"),
    ];
    let mailing = Mailing::new(&lists).await;
    let mut answers = Vec::new();
    for address in [
        "a@elsewhere.example",
        "a@evil.example.org",
        "a@no-such-domain.invalid",
        ADDRESS,
        ADDRESS,
        ADDRESS,
        // Throttled from here on.
        ADDRESS,
        ADDRESS,
        "okapi@sub.example.org",
    ] {
        let response = mailing.ask(address).await;
        let mut headers = response.headers.clone();
        for changing in ["x-request-id", "date"] {
            headers.remove(changing);
        }
        answers.push((response.status.as_u16(), headers, response.body));
    }
    assert_eq!(answers[0].0, 202);
    let same = answers[0].clone();
    assert!(answers.iter().all(|answer| *answer == same), "{answers:?}");

    mailing.until_counted("sent", 4).await;
    mailing.until_counted("denied", 3).await;
    mailing.until_counted("throttled", 2).await;
    let recipients: Vec<String> =
        mailing.smtp.mails().into_iter().flat_map(|mail| mail.recipients).collect();
    assert_eq!(recipients.iter().filter(|to| **to == format!("<{ADDRESS}>")).count(), 3);
    assert!(recipients.iter().all(|to| to.ends_with("example.org>") && !to.contains("evil")));
}

#[tokio::test]
async fn malformed_bodies_have_all_faults_and_repeat_nothing() {
    let mailing = Mailing::new(&[]).await;
    for (body, pointers) in [
        ("{}", &["/email"][..]),
        (r#"{"email":7}"#, &["/email"]),
        (r#"{"email":"zebra"}"#, &["/email"]),
        (r#"{"email":"zebra@localhost","otp":"77x77"}"#, &["/email", "/otp"]),
        (r#"{"otp":"777777"}"#, &["/email"]),
        (r#"{"email":"zebra@example.org","otp":"7777777"}"#, &["/otp"]),
        (r#"{"email":"zebra@example.org","otp":""}"#, &["/otp"]),
        (r#"{"email":"zebra@example.org","code":"7777"}"#, &["/code"]),
        (r#"{"email":"zebra@example.org\r\nBcc: a@example.org"}"#, &["/email"]),
        ("[]", &[""]),
        ("zebra", &[""]),
    ] {
        let response = mailing.post(body).await;
        response.problem(400, "malformed");
        assert_eq!(response.pointers(), pointers, "{body}");
        let mut problem = response.json();
        // The request's id is random, and may have any two digits.
        problem.as_object_mut().unwrap().remove("instance").unwrap();
        let text = problem.to_string();
        assert!(!text.contains("zebra") && !text.contains("77"), "{text}");
    }
    let long = format!(r#"{{"email":"{}@example.org"}}"#, "a".repeat(10_000));
    mailing.post(&long).await.problem(400, "malformed");
    assert_eq!(mailing.smtp.attempts(), 0);
    // In a budget of another rule an address is no member.
    mailing.service.harness.edit_budget(|budget| budget.identity = IdentityRule::Code);
    let response = mailing.ask(ADDRESS).await;
    response.problem(400, "malformed");
}

#[tokio::test]
async fn a_budget_with_persons_by_email_needs_an_smtp_server() {
    const BODY: &str = r#"{"name":"New","categories":[{"id":"a","name":"A"},{"id":"b","name":"B"}],"identity":"email"}"#;
    let without = crate::support::Harness::new();
    let json = [("content-type", "application/json")];
    let response = without.send(Method::PUT, "/v1/budgets/new", &json, BODY).await;
    response.problem(422, "invalid-budget");
    assert_eq!(response.pointers(), ["/identity"]);
    // Another process may have one.
    without.edit_budget(|budget| budget.identity = IdentityRule::Email);
    let response = without.post(SESSION, format!(r#"{{"email":"{ADDRESS}"}}"#)).await;
    response.problem(503, "unavailable");

    let smtp = [("email.smtp_url", "smtp://127.0.0.1:1"), ("email.from", "a@town.example")];
    let with = crate::support::Harness::with(1_000, &smtp);
    let response = with.send(Method::PUT, "/v1/budgets/new", &json, BODY).await;
    assert_eq!(response.status.as_u16(), 201);
    assert_eq!(response.json()["identity"], "email");
}
