//! Limits on requests for codes, and on tries.

use http::Method;

use super::{ADDRESS, Mailing, wrong_codes};
use crate::service::SESSION;
use crate::support::SUBMISSIONS;

#[tokio::test]
async fn wrong_codes_of_one_client_void_no_code() {
    let mailing = Mailing::new(&[]).await;
    let code = mailing.code(ADDRESS, 1).await;
    let stranger = [("x-forwarded-for", "192.0.2.1")];
    for wrong in wrong_codes(&code) {
        let body = format!(r#"{{"email":"{ADDRESS}","otp":"{wrong}"}}"#);
        let response = mailing.service.send(Method::POST, SESSION, &stranger, &body).await;
        assert_eq!(response.status.as_u16(), 401);
        let form = format!("email={ADDRESS}&otp={wrong}");
        let posted = mailing.service.post_form("session", &stranger, &form).await;
        assert_eq!(posted.header("set-cookie"), None);
    }
    // For this client, a right code is not told from a wrong one.
    let body = format!(r#"{{"email":"{ADDRESS}","otp":"{code}"}}"#);
    let response = mailing.service.send(Method::POST, SESSION, &stranger, &body).await;
    assert!([401, 429].contains(&response.status.as_u16()), "{}", response.status);
    assert_eq!(mailing.enter(ADDRESS, &code).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_right_code_is_accepted_from_an_address_of_too_many_failures_and_a_wrong_one_is_not() {
    let mailing = Mailing::new(&[("admin.failures_per_minute", "2")]).await;
    let code = mailing.code(ADDRESS, 1).await;
    let school = ("x-forwarded-for", "192.0.2.1");
    for _ in 0..5 {
        let guess = [school, ("authorization", "Bearer a-token-that-nobody-has-made-here")];
        let response = mailing.service.send(Method::POST, SUBMISSIONS, &guess, "{}").await;
        assert!([401, 429].contains(&response.status.as_u16()), "{}", response.status);
    }
    let wrong = wrong_codes(&code).next().unwrap();
    let body = |otp: &str| format!(r#"{{"email":"{ADDRESS}","otp":"{otp}"}}"#);
    let response = mailing.service.send(Method::POST, SESSION, &[school], &body(wrong)).await;
    response.problem(429, "rate-limited");
    assert!(response.header("retry-after").is_some());
    let response = mailing.service.send(Method::POST, SESSION, &[school], &body(&code)).await;
    assert_eq!(response.status.as_u16(), 200);
}

#[tokio::test]
async fn denied_addresses_do_not_fill_the_store_of_codes() {
    let mailing = Mailing::new(&[("email.allowed_domains", "example.org")]).await;
    for number in 0..3_000 {
        mailing.ask(&format!("p{number}@d{number}.example")).await;
    }
    mailing.until_counted("denied", 3_000).await;
    assert!(mailing.service.harness.codes.slots.lock().len() <= 1_024);
    let code = mailing.code(ADDRESS, 1).await;
    assert_eq!(mailing.enter(ADDRESS, &code).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_global_limit_bounds_the_requests_for_mails_of_all_clients() {
    let limit = ("limits.extra", "mails global token-bucket 3/60s on=sign-in");
    let mailing = Mailing::new(&[limit]).await;
    let mut statuses = Vec::new();
    for client in 1..=5 {
        let forwarded = format!("192.0.2.{client}");
        let client = [("x-forwarded-for", forwarded.as_str())];
        let body = format!(r#"{{"email":"p{forwarded}@example.org"}}"#);
        let response = mailing.service.send(Method::POST, SESSION, &client, &body).await;
        statuses.push(response.status.as_u16());
    }
    assert_eq!(statuses, [202, 202, 202, 429, 429]);
    let client = [("x-forwarded-for", "192.0.2.9"), ("accept", "application/json")];
    let form = mailing.service.post_form("session", &client, "email=q@example.org").await;
    assert_eq!(form.status.as_u16(), 429);
    mailing.until_counted("sent", 3).await;
    assert_eq!(mailing.smtp.mails().len(), 3);
}
