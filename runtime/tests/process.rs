//! Signals, log metrics and the end of a process.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

mod support;

use std::process::Command;

use runtime::metrics::Metrics;
use runtime::shutdown;
use runtime::telemetry::{self, LogFormat, TelemetryConfig};
use support::within;

#[tokio::test]
async fn sigterm_cancels_the_token_and_its_clones() {
    let token = shutdown::listen().clone();
    assert!(!token.is_cancelled());
    let this = std::process::id().to_string();
    assert!(Command::new("kill").args(["-TERM", &this]).status().unwrap().success());
    within(token.cancelled()).await;
}

#[test]
fn the_counter_of_dropped_log_lines_is_exported_from_zero() {
    let guard =
        telemetry::init(&TelemetryConfig { format: LogFormat::Json, filter: "info".into() });
    let metrics = Metrics::new("test");
    guard.expose(&metrics).unwrap();
    assert!(guard.expose(&metrics).is_err(), "the metric is registered once");
    let text = String::from_utf8(metrics.render()).unwrap();
    assert!(text.contains("\nallocator_log_lines_lost_total 0\n"), "{text}");
}

/// Simulates a thread blocked by an unreachable network file system.
#[test]
fn a_process_ends_despite_a_blocked_thread() {
    let started = std::time::Instant::now();
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let code = runtime::process::run(async {
        tokio::task::spawn_blocking(move || blocked.recv());
        tokio::task::yield_now().await;
        std::process::ExitCode::SUCCESS
    });
    assert_eq!(code, std::process::ExitCode::SUCCESS);
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    drop(release);
}
