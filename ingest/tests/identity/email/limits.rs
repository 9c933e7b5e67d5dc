//! Limits on requests for codes, and on tries.

use http::Method;

use super::{ADDRESS, Mailing, wrong_codes};
use crate::service::SESSION;
use crate::support::lock;

#[tokio::test]
async fn a_client_that_has_failed_too_often_costs_the_owner_of_a_code_no_try() {
    let mailing = Mailing::new(&[("admin.failures_per_minute", "2")]).await;
    let code = mailing.code(ADDRESS, 1).await;
    let stranger = [("x-forwarded-for", "192.0.2.1")];
    let mut statuses = Vec::new();
    for wrong in wrong_codes(&code) {
        let body = format!(r#"{{"email":"{ADDRESS}","otp":"{wrong}"}}"#);
        let response = mailing.service.send(Method::POST, SESSION, &stranger, &body).await;
        statuses.push(response.status.as_u16());
        let form = format!("email={ADDRESS}&otp={wrong}");
        let posted = mailing.service.post_form("session", &stranger, &form).await;
        assert_eq!(posted.header("set-cookie"), None);
    }
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses[1..], [429; 5][..statuses.len() - 1]);
    // A right code is not told from a wrong one.
    let body = format!(r#"{{"email":"{ADDRESS}","otp":"{code}"}}"#);
    let response = mailing.service.send(Method::POST, SESSION, &stranger, &body).await;
    response.problem(429, "rate-limited");
    assert!(response.header("retry-after").is_some());
    assert_eq!(mailing.enter(ADDRESS, &code).await.status.as_u16(), 200);
}

#[tokio::test]
async fn denied_addresses_do_not_fill_the_store_of_codes() {
    let mailing = Mailing::new(&[("email.allowed_domains", "example.org")]).await;
    for number in 0..3_000 {
        mailing.ask(&format!("p{number}@d{number}.example")).await;
    }
    mailing.until_counted("denied", 3_000).await;
    assert!(lock(&mailing.service.harness.codes.slots).len() <= 1_024);
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
