//! Reloading the admin tokens file while `allocator run` runs.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use running::{Running, start_with};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(30);
const VERA: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";
const ANNA: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Hash by `printf %s TOKEN | sha256sum`.
const VERA_LINE: &str =
    "vera viewer sha256:d71af2bc53398568e2aff5639f499ff0add6177253dbabccfe931459470856a7\n";
const ANNA_LINE: &str =
    "anna admin sha256:3ba3f5f43b92602683c19aee62a20342b084dd5971ddd33808d81a328879a547\n";

/// Gets a page with a token and returns its body.
fn get(running: &Running, path: &str, token: &str) -> String {
    let header = format!("authorization: Bearer {token}");
    let url = format!("{}{path}", running.url);
    let output = Command::new("curl").args(["-s", "-H", &header, &url]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn is_authorized(running: &Running, token: &str) -> bool {
    get(running, "/v1/admin/whoami", token).contains("\"role\"")
}

/// Waits for a condition, polling slowly enough for the rate limits.
fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < TIMEOUT, "never {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_removed_token_is_revoked_and_an_invalid_file_changes_nothing() {
    let data = TempDir::new().unwrap();
    let file = data.path().join("admin.tokens");
    std::fs::write(&file, [VERA_LINE, ANNA_LINE].concat()).unwrap();
    let setting = format!("admin.tokens_file={}", file.display());
    let settings =
        [&*setting, "admin.failures_per_minute=100000", "admin.requests_per_minute=100000"];
    let running = start_with(data.path(), &settings);
    assert!(is_authorized(&running, VERA) && is_authorized(&running, ANNA));

    std::fs::write(&file, ANNA_LINE).unwrap();
    until("revoked", || !is_authorized(&running, VERA));
    assert!(is_authorized(&running, ANNA));

    let is_invalid = |invalid: u8| {
        let sample = format!("allocator_admin_tokens_file_wrong {invalid}\n");
        get(&running, "/metrics", "").contains(&sample)
    };
    assert!(is_invalid(0));
    std::fs::write(&file, "anna root\n").unwrap();
    until("reported as invalid", || is_invalid(1));
    assert!(is_authorized(&running, ANNA) && !is_authorized(&running, VERA));
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, VERA_LINE).unwrap();
    until("granted again", || is_authorized(&running, VERA));
    assert!(!is_authorized(&running, ANNA) && is_invalid(0));
}

#[test]
fn the_same_machine_sends_batches_until_the_file_has_a_submitter() {
    let data = TempDir::new().unwrap();
    let running = start_with(data.path(), &[]);
    let status = |header: &str| {
        let url = format!("{}/v1/budgets/taxes/submissions/batch", running.url);
        let batch = r#"[{"person":"p-1","allocation":{"health":100}}]"#;
        let mut curl = Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", batch, &url]);
        curl.args(["-H", "content-type: application/json", "-H", header]);
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    };
    let authorization = format!("authorization: Bearer {VERA}");
    assert_eq!(status("accept: */*"), "200");
    assert_eq!(status("x-forwarded-for: 192.0.2.1"), "401");
    assert_eq!(status(&authorization), "401");

    let file = data.path().join("admin.tokens");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + &VERA_LINE.replace("viewer", "submitter")).unwrap();
    until("without a right", || status("accept: */*") == "401");
    assert_eq!(status(&authorization), "200");
    assert_eq!(status(&running.authorization()), "200");
}
