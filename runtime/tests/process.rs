//! What a process gets from outside and gives back: signals, log lines.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

mod support;

use std::process::Command;

use runtime::metrics::Metrics;
use runtime::shutdown;
use runtime::telemetry::{self, LogFormat, TelemetryConfig};
use support::within;

#[tokio::test]
async fn sigterm_is_told_to_everyone_who_holds_the_token() {
    let token = shutdown::listen().clone();
    assert!(!token.is_cancelled());
    let this = std::process::id().to_string();
    assert!(Command::new("kill").args(["-TERM", &this]).status().unwrap().success());
    within(token.cancelled()).await;
}

#[test]
fn lost_log_lines_are_shown_even_when_there_are_none() {
    let guard =
        telemetry::init(&TelemetryConfig { format: LogFormat::Json, filter: "info".into() });
    let metrics = Metrics::new("test");
    guard.expose(&metrics).unwrap();
    assert!(guard.expose(&metrics).is_err(), "once is enough");
    let text = String::from_utf8(metrics.render()).unwrap();
    assert!(text.contains("\nallocator_log_lines_lost_total 0\n"), "{text}");
}
