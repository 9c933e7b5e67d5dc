//! One process under overload: readers who wait do not keep a person from submitting.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use running::{Running, start_with};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(30);
const AGGREGATE: &str = "/v1/budgets/taxes/aggregate";
const SUBMISSION: &str = r#"{"person":"p-1","allocation":{"health":40,"education":60}}"#;

/// Sends a read that waits for a submission which nobody has sent.
fn wait_for_submission(running: &Running) -> TcpStream {
    let address = running.url.strip_prefix("http://").unwrap();
    let mut reader = TcpStream::connect(address).unwrap();
    let head = format!(
        "GET {AGGREGATE} HTTP/1.1\r\nhost: {address}\r\nconsistency-token: 0.40000000\r\nprefer: wait=10\r\n\r\n"
    );
    reader.write_all(head.as_bytes()).unwrap();
    reader
}

/// Returns the status of a response.
fn status(running: &Running, path: &str, arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]);
    curl.args(arguments).arg(format!("{}{path}", running.url));
    String::from_utf8(curl.output().unwrap().stdout).unwrap()
}

fn post(body: &str) -> [&str; 4] {
    ["-H", "content-type: application/json", "-d", body]
}

fn sample(running: &Running, name: &str) -> u64 {
    let metrics = Command::new("curl").args(["-s", &format!("{}/metrics", running.url)]).output();
    let text = String::from_utf8(metrics.unwrap().stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
}

fn until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < TIMEOUT, "the condition never held");
    }
}

#[test]
fn a_person_submits_while_readers_wait_for_all_requests_that_reads_may_have() {
    let data = TempDir::new().unwrap();
    let running = start_with(data.path(), &["http.max_requests=4"]);
    let readers: Vec<TcpStream> = (0..3).map(|_| wait_for_submission(&running)).collect();
    until(|| sample(&running, "allocator_api_waiting_reads") == 3);

    let batch = format!("[{SUBMISSION}]");
    assert_eq!(status(&running, AGGREGATE, &[]), "503");
    assert_eq!(status(&running, "/", &[]), "503");
    assert_eq!(status(&running, "/v1/budgets/taxes/submissions/batch", &post(&batch)), "503");
    let token = running.authorization();
    assert_eq!(status(&running, "/v1/admin/whoami", &["-H", &token]), "200");
    assert_eq!(status(&running, "/v1/budgets/taxes/submissions", &post(SUBMISSION)), "202");
    for (class, shed) in [("batch", 1), ("read", 1), ("page", 1), ("submission", 0)] {
        let name = format!("allocator_limits_shed_requests_total{{class=\"{class}\"}}");
        assert_eq!(sample(&running, &name), shed, "{class}");
    }

    drop(readers);
    until(|| status(&running, AGGREGATE, &[]) == "200");
}
