//! The file of administrators' tokens, changed while `allocator run` runs.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use running::{Running, start_with};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const VERA: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";
const ANNA: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// By `printf %s TOKEN | sha256sum`.
const OF_VERA: &str =
    "vera viewer sha256:d71af2bc53398568e2aff5639f499ff0add6177253dbabccfe931459470856a7\n";
const OF_ANNA: &str =
    "anna admin sha256:3ba3f5f43b92602683c19aee62a20342b084dd5971ddd33808d81a328879a547\n";

/// What a page answers whoever shows a token.
fn page(running: &Running, path: &str, token: &str) -> String {
    let header = format!("authorization: Bearer {token}");
    let url = format!("{}{path}", running.url);
    let output = Command::new("curl").args(["-s", "-H", &header, &url]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn is_let_in(running: &Running, token: &str) -> bool {
    page(running, "/v1/admin/whoami", token).contains("\"role\"")
}

/// Waits for a condition, and looks seldom enough for the limits.
fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "never {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_token_that_is_taken_back_is_nobodys_soon_and_a_wrong_file_changes_nothing() {
    let data = TempDir::new().unwrap();
    let file = data.path().join("admin.tokens");
    std::fs::write(&file, [OF_VERA, OF_ANNA].concat()).unwrap();
    let setting = format!("admin.tokens_file={}", file.display());
    let settings =
        [&*setting, "admin.failures_per_minute=100000", "admin.requests_per_minute=100000"];
    let running = start_with(data.path(), &settings);
    assert!(is_let_in(&running, VERA) && is_let_in(&running, ANNA));

    std::fs::write(&file, OF_ANNA).unwrap();
    until("taken back", || !is_let_in(&running, VERA));
    assert!(is_let_in(&running, ANNA));

    let is_wrong = |wrong: u8| {
        let sample = format!("allocator_admin_tokens_file_wrong {wrong}\n");
        page(&running, "/metrics", "").contains(&sample)
    };
    assert!(is_wrong(0));
    std::fs::write(&file, "anna root\n").unwrap();
    until("noticed", || is_wrong(1));
    assert!(is_let_in(&running, ANNA) && !is_let_in(&running, VERA));
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, OF_VERA).unwrap();
    until("given back", || is_let_in(&running, VERA));
    assert!(!is_let_in(&running, ANNA) && is_wrong(0));
}
