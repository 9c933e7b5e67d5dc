//! Delivery of mails: their text, retries, and when the server counts as failing.

use std::time::Duration;

use http::Method;

use super::{ADDRESS, Mailing, decoded};
use crate::service::SESSION;
use crate::smtp_server::Attempt;

#[tokio::test]
async fn a_mail_is_in_the_clients_language_and_no_name_of_a_budget_adds_a_header() {
    let mailing = Mailing::new(&[]).await;
    mailing.service.harness.edit_budget(|budget| {
        budget.name = "Parks?\r\nBcc: victim@example.org\r\n\r\nhello".to_owned();
    });
    let body = format!(r#"{{"email":"{ADDRESS}"}}"#);
    for (number, (language, text)) in
        [("de-AT,en;q=0.5", "zehn Minuten"), ("ar", "عشر دقائق"), ("xx", "ten minutes")]
            .into_iter()
            .enumerate()
    {
        let headers = [("accept-language", language)];
        mailing.service.send(Method::POST, SESSION, &headers, &body).await;
        let mail = mailing.smtp.nth_mail(number + 1).await;
        assert!(decoded(&mail.body()).contains(text), "{language}: {}", mail.text);
        assert_eq!(mail.recipients, [format!("<{ADDRESS}>")]);
        let headers = mail.headers();
        assert!(!headers.lines().any(|line| line.starts_with("Bcc")), "{headers}");
        for header in [
            "From: Town <noreply@town.example>",
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
        ] {
            assert!(headers.contains(header), "{headers}");
        }
        assert!(!mail.text.contains("http"), "{}", mail.text);
    }
}

#[tokio::test]
async fn a_mail_is_tried_again_after_a_passing_fault_and_not_after_a_final_one() {
    let mailing = Mailing::new(&[]).await;
    let passing = [
        Attempt::RefuseRecipient(451),
        Attempt::BreakOff,
        Attempt::Delay(Duration::from_millis(200)),
    ];
    mailing.smtp.script(passing);
    let code = mailing.code(ADDRESS, 1).await;
    assert_eq!(mailing.enter(ADDRESS, &code).await.status.as_u16(), 200);
    mailing.until_counted("sent", 1).await;
    assert_eq!(mailing.smtp.attempts(), 3);
    assert_eq!(mailing.metric("ingest_email_failed_attempts_total"), 2);
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 0);

    mailing.smtp.script([Attempt::RefuseRecipient(550)]);
    assert_eq!(mailing.ask("gone@example.org").await.status.as_u16(), 202);
    mailing.until_counted("refused", 1).await;
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 0, "one mailbox is no outage");
    mailing.smtp.script([Attempt::RefuseRecipient(535)]);
    mailing.ask("okapi@example.org").await;
    mailing.until_counted("refused", 2).await;
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 1);
    assert_eq!(mailing.smtp.attempts(), 5);
    assert_eq!(mailing.metric("ingest_emails_pending"), 0);
    let text = String::from_utf8(mailing.service.harness.metrics.render()).unwrap();
    assert!(!text.contains("example.org"), "{text}");
}

#[tokio::test]
async fn the_server_counts_as_failing_after_several_recipients_and_not_after_one() {
    let mailing = Mailing::new(&[]).await;
    mailing.smtp.script([Attempt::RefuseRecipient(554); 5]);
    for refused in 1..=3 {
        mailing.ask(ADDRESS).await;
        mailing.until_counted("refused", refused).await;
    }
    mailing.ask("b@example.org").await;
    mailing.until_counted("refused", 4).await;
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 0);
    mailing.ask("c@example.org").await;
    mailing.until_counted("refused", 5).await;
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 1);
    mailing.code("d@example.org", 1).await;
    mailing.until_counted("sent", 1).await;
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 0);
}

#[tokio::test]
async fn deferred_recipients_have_bounded_retries_and_leave_room_for_new_mails() {
    let mailing = Mailing::new(&[]).await;
    mailing.smtp.defer_domain("slow.example");
    for number in 0..300 {
        mailing.ask(&format!("p{number}@slow.example")).await;
    }
    mailing.until_counted("given_up", 50).await;
    assert_eq!(mailing.metric("ingest_emails_pending"), 250);
    mailing.code(ADDRESS, 1).await;
    mailing.until_counted("sent", 1).await;
    assert_eq!(mailing.metric("ingest_emails_total{outcome=\"dropped\"}"), 0);
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 0);
}

#[tokio::test]
async fn a_server_without_tls_gets_no_address_where_tls_is_required() {
    let mailing = Mailing::with_query("?tls=required", &[]).await;
    assert_eq!(mailing.ask(ADDRESS).await.status.as_u16(), 202);
    mailing.until_counted("refused", 1).await;
    assert_eq!(mailing.smtp.attempts(), 0);
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 1);
}
