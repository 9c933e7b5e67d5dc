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

/// A folder on a network that is gone hangs like this.
#[test]
fn a_process_ends_although_something_hangs() {
    let began = std::time::Instant::now();
    let (release, hangs) = std::sync::mpsc::channel::<()>();
    let code = runtime::process::run(async {
        tokio::task::spawn_blocking(move || hangs.recv());
        tokio::task::yield_now().await;
        std::process::ExitCode::SUCCESS
    });
    assert_eq!(code, std::process::ExitCode::SUCCESS);
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    drop(release);
}
