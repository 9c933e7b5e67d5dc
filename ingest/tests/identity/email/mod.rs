//! Persons by e-mail: one-time codes over a real SMTP conversation, and what nobody learns from them.

mod codes;
mod delivery;
mod forms;
mod limits;
mod requests;

use std::time::Duration;

use http::Method;
use schemas::IdentityRule;

use crate::service::{SESSION, Service};
use crate::smtp_server::SmtpServer;
use crate::support::TestResponse;

const ADDRESS: &str = "zebra.quokka@example.org";

/// Codes that are wrong with certainty, since codes are sent without these.
const WRONG: [&str; 5] = ["000000", "111111", "222222", "333333", "444444"];

/// A service that sends its mails to a server of the test.
struct Mailing {
    service: Service,
    smtp: SmtpServer,
}

impl Mailing {
    async fn new(settings: &[(&str, &str)]) -> Self {
        Self::with_query("", settings).await
    }

    /// Starts a service whose URL of the SMTP server has a query.
    async fn with_query(query: &str, settings: &[(&str, &str)]) -> Self {
        let smtp = SmtpServer::start().await;
        let url = smtp.url() + query;
        let own = [
            ("email.smtp_url", url.as_str()),
            ("email.from", "Town <noreply@town.example>"),
            ("limits.sign_in", "off"),
            ("admin.failures_per_minute", "1000"),
        ];
        let service = Service::with(IdentityRule::Email, &[&own, settings].concat());
        Self { service, smtp }
    }

    async fn post(&self, body: &str) -> TestResponse {
        self.service.send(Method::POST, SESSION, &[], body).await
    }

    async fn ask(&self, address: &str) -> TestResponse {
        self.post(&format!(r#"{{"email":"{address}"}}"#)).await
    }

    async fn enter(&self, address: &str, otp: &str) -> TestResponse {
        self.post(&format!(r#"{{"email":"{address}","otp":"{otp}"}}"#)).await
    }

    /// Asks for a code, and returns that of the mail with this number.
    async fn code(&self, address: &str, number: usize) -> String {
        assert_eq!(self.ask(address).await.status.as_u16(), 202);
        self.smtp.nth_mail(number).await.code()
    }

    fn metric(&self, series: &str) -> u64 {
        let text = String::from_utf8(self.service.harness.metrics.render()).unwrap();
        let name = format!("allocator_{series} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
    }

    /// Waits until so many mails have this outcome.
    async fn until_counted(&self, outcome: &str, mails: u64) {
        let series = format!("ingest_emails_total{{outcome=\"{outcome}\"}}");
        for _ in 0..6_000 {
            if self.metric(&series) == mails {
                return;
            }
            // The background task announces nothing: a pause between two looks.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{outcome}: {}", self.metric(&series));
    }
}

fn wrong_codes(code: &str) -> impl Iterator<Item = &'static str> {
    let code = code.to_owned();
    WRONG.into_iter().chain(["555555"]).filter(move |wrong| *wrong != code)
}

/// Decodes quoted-printable; other texts have no `=XX`.
fn decoded(text: &str) -> String {
    let text = text.replace("=\n", "");
    let mut bytes = Vec::new();
    let mut pieces = text.split('=');
    bytes.extend(pieces.next().unwrap_or_default().bytes());
    for piece in pieces {
        match piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(piece[2..].bytes());
            }
            None => bytes.extend(format!("={piece}").bytes()),
        }
    }
    String::from_utf8(bytes).unwrap()
}
