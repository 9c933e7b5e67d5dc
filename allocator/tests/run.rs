//! `allocator run` as somebody who tries the product meets it.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::cell::Cell;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use running::{Running, command, shell, start, start_with};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

fn signal(running: &Running, name: &str) {
    let id = running.child.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

fn exit_code(running: &mut Running) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = running.child.try_wait().unwrap() {
            return status.code();
        }
        assert!(began.elapsed() < PATIENCE, "it does not end");
        std::thread::yield_now();
    }
}

/// The aggregate once so many people are counted.
fn aggregate_of(url: &str, people: u64) -> Value {
    let began = Instant::now();
    loop {
        let aggregate = shell(&format!("curl -s {url}/v1/budgets/taxes/aggregate"));
        if aggregate["people"] == people {
            return aggregate;
        }
        assert!(began.elapsed() < PATIENCE, "{aggregate}");
    }
}

fn total(aggregate: &Value, id: &str) -> u64 {
    let categories = aggregate["categories"].as_array().unwrap();
    let category = categories.iter().find(|category| category["id"] == id).unwrap();
    category["total_basis_points"].as_u64().unwrap()
}

#[test]
fn the_printed_lines_work_as_printed_and_at_once() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let [submit, person, aggregate] = running.lines.as_slice() else { panic!("three lines") };
    assert_eq!(shell(submit)["status"], "accepted");
    assert_eq!(shell(person)["allocation"]["education"], 35.5);
    assert_eq!(shell(aggregate)["budget"], "taxes");
    let aggregate = aggregate_of(&running.url, 1);
    assert_eq!(total(&aggregate, "health"), 4000);
    assert_eq!(total(&aggregate, "defence"), 2450);
}

#[test]
fn a_folder_that_is_in_use_is_refused_and_the_first_goes_on() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let Output { status, stderr, .. } = command(data.path()).output().unwrap();
    assert_eq!(status.code(), Some(1));
    let why = String::from_utf8(stderr).unwrap();
    let expected = format!("another allocator (process {}) runs on the data", running.child.id());
    assert!(why.contains(&expected), "{why}");
    assert_eq!(shell(&running.lines[0])["status"], "accepted");
}

#[test]
fn after_sigterm_and_after_sigkill_everything_acknowledged_is_counted_once() {
    let data = TempDir::new().unwrap();
    let submit = |url: &str, person: u32| {
        let body = format!(r#"{{"person": "p-{person}", "allocation": {{"health": 100}}}}"#);
        let line = format!(
            "curl -s -X POST {url}/v1/budgets/taxes/submissions -H 'Content-Type: application/json' -d '{body}'"
        );
        assert_eq!(shell(&line)["status"], "accepted");
    };
    let mut first = start(data.path());
    (0..5).for_each(|person| submit(&first.url, person));
    signal(&first, "-TERM");
    assert_eq!(exit_code(&mut first), Some(0));

    let mut second = start(data.path());
    (3..8).for_each(|person| submit(&second.url, person));
    signal(&second, "-KILL");
    assert_eq!(exit_code(&mut second), None);

    let third = start(data.path());
    let aggregate = aggregate_of(&third.url, 8);
    assert_eq!(total(&aggregate, "health"), 80_000);
}

#[test]
fn a_wrong_configuration_is_refused_with_every_fault() {
    let data = TempDir::new().unwrap();
    let mut command = command(data.path());
    command.args(["--set", "log.kind=paper", "--set", "alocator.listen=x"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains("log.kind") && why.contains("did you mean allocator.listen?"), "{why}");
}

const VIEWER: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";
const ADMIN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// By `printf %s TOKEN | sha256sum`.
const TOKENS_FILE: &str = "\
vera viewer sha256:d71af2bc53398568e2aff5639f499ff0add6177253dbabccfe931459470856a7
anna admin sha256:3ba3f5f43b92602683c19aee62a20342b084dd5971ddd33808d81a328879a547
";
const BUDGET: &str =
    r#"{"name":"Park","categories":[{"id":"a","name":"A"},{"id":"b","name":"B"}]}"#;

/// A request of an administrator: status, headers and body, as `curl` shows them.
fn administer(running: &Running, method: &str, path: &str, headers: &[&str]) -> (u16, String) {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-i", "-X", method, "-H", "content-type: application/json"]);
    if method == "PUT" {
        curl.args(["-d", BUDGET]);
    }
    curl.args(headers.iter().flat_map(|header| ["-H", header]));
    let output = curl.arg(format!("{}{path}", running.url)).output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).to_lowercase();
    let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("{output:?}"));
    (status.parse().unwrap(), answer)
}

#[test]
fn without_tokens_who_comes_from_elsewhere_is_no_administrator() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let (status, answer) = administer(&running, "GET", "/v1/admin/whoami", &[]);
    assert_eq!(status, 200, "{answer}");
    assert!(answer.ends_with(r#"{"name":"local","role":"admin"}"#), "{answer}");
    let (status, answer) = administer(&running, "GET", "/v1/admin/generations", &[]);
    assert!(status == 200 && answer.contains(r#""state":"current""#), "{answer}");
    for headers in [["x-forwarded-for: 192.0.2.7"], ["origin: https://evil.example"]] {
        for (method, path) in [("GET", "/v1/admin/whoami"), ("PUT", "/v1/budgets/park")] {
            let (status, answer) = administer(&running, method, path, &headers);
            assert!(status == 403 && answer.contains("/problems/forbidden"), "{answer}");
        }
    }
}

#[test]
fn an_audit_that_is_asked_for_is_done_and_says_what_it_found() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let submit = &running.lines[0];
    assert_eq!(shell(submit)["status"], "accepted");
    let url = &running.url;
    let job = shell(&format!("curl -s -X POST {url}/v1/admin/audits"));
    assert_eq!((&job["kind"], &job["asked_by"]), (&"audit".into(), &"local".into()), "{job}");
    let (id, began) = (job["id"].as_str().unwrap(), Instant::now());
    let done = loop {
        let job = shell(&format!("curl -s {url}/v1/admin/jobs/{id}"));
        if !job["ended_at"].is_null() {
            break job;
        }
        assert!(began.elapsed() < PATIENCE, "{job}");
        // Below the limit of requests.
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(
        (&done["state"], &done["verdict"]),
        (&"succeeded".into(), &"clean".into()),
        "{done}"
    );
}

#[test]
fn with_tokens_each_may_do_what_its_role_allows_and_the_log_says_who_did_what_without_a_token() {
    let data = TempDir::new().unwrap();
    let file = data.path().join("admin.tokens");
    std::fs::write(&file, TOKENS_FILE).unwrap();
    let file = format!("admin.tokens_file={}", file.display());
    let mut running = start_with(
        data.path(),
        &[
            &file,
            "admin.requests_per_minute=4",
            "admin.failures_per_minute=3",
            "telemetry.filter=debug",
        ],
    );
    let shows = |token: &str| format!("authorization: Bearer {token}");
    let (vera, anna) = (&*shows(VIEWER), &*shows(ADMIN));
    let wrong = "wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww";
    let nobody = shows(wrong);
    let whoami = "/v1/admin/whoami";
    let asked = Cell::new(0);
    let ask = |method, path, headers: &[&str]| {
        asked.set(asked.get() + 1);
        let id = format!("x-request-id: request-{}", asked.get());
        administer(&running, method, path, &[headers, &[&id]].concat())
    };
    // However slow the machine is, which gives something back meanwhile.
    let ask_until_429 = |headers: &[&str]| {
        let mut answers = (0..50).map(|_| ask("GET", whoami, headers));
        answers.find(|(status, _)| *status == 429).expect("a limit").1
    };

    let (status, answer) = ask("GET", whoami, &[]);
    assert!(status == 401 && answer.contains("www-authenticate: bearer\r"), "{answer}");
    let (status, answer) = ask("GET", whoami, &[&nobody]);
    assert!(status == 401 && answer.contains("error=\"invalid_token\""), "{answer}");

    // From another address, as a proxy on this machine says.
    let there = "x-forwarded-for: 192.0.2.7";
    let (status, answer) = ask("GET", whoami, &[vera, there]);
    assert!(status == 200 && answer.contains(r#"{"name":"vera","role":"viewer"}"#), "{answer}");
    let park = "/v1/budgets/park";
    let (status, answer) = ask("PUT", park, &[vera, there]);
    assert!(status == 403 && answer.contains("needs the role admin"), "{answer}");
    assert_eq!(ask("PUT", park, &[anna, there]).0, 201);

    // Who guesses is kept out, with a right token too; nobody else is.
    ask_until_429(&[&nobody]);
    let (status, answer) = ask("GET", whoami, &[anna]);
    assert!(status == 429 && answer.contains("ratelimit-policy: \"admin-failures\""), "{answer}");
    assert_eq!(ask("GET", whoami, &[anna, there]).0, 200);

    let answer = ask_until_429(&[vera, there]);
    for header in [
        "retry-after: ",
        "ratelimit-policy: \"admin\";q=4;w=60\r",
        "ratelimit: \"admin\";r=0;t=60\r",
        "x-ratelimit-limit: 4\r",
        "x-ratelimit-remaining: 0\r",
        "x-ratelimit-reset: 60\r",
        "/problems/rate-limited",
    ] {
        assert!(answer.contains(header), "no {header}: {answer}");
    }
    let asked = asked.get();

    signal(&running, "-TERM");
    assert_eq!(exit_code(&mut running), Some(0));
    let log = running.log.take().unwrap().join().unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(" admin: ")).collect();
    assert_eq!(lines.len(), asked, "one line a request: {lines:#?}");
    let whoami = r#"method="GET" route="/v1/admin/whoami""#;
    let park = r#"method="PUT" route="/v1/budgets/{budget}""#;
    let vera = r#"name="vera" role="viewer""#;
    for (request, said) in [
        (1, format!(r#" {whoami} status=401 outcome="unauthorized" client=127.0.0.1"#)),
        (3, format!(r#" {vera} {whoami} status=200 outcome="done" client=192.0.2.7"#)),
        (4, format!(r#" {vera} {park} status=403 outcome="forbidden""#)),
        (
            5,
            format!(
                r#" name="anna" role="admin" {park} resource="budget=park" status=201 outcome="done""#
            ),
        ),
        (asked, format!(r#" {vera} {whoami} status=429 outcome="rate_limited""#)),
    ] {
        let id = format!("id=\"request-{request}\"");
        let line = lines.iter().find(|line| line.contains(&id)).unwrap();
        assert!(line.contains(&said), "{line}");
    }
    let told = TOKENS_FILE.lines().map(|line| line.rsplit(':').next().unwrap());
    for secret in told.chain([VIEWER, ADMIN, wrong]) {
        assert!(!log.contains(secret), "the log holds {secret}");
    }
}

#[test]
fn a_tokens_file_is_refused_with_every_fault_and_without_what_it_holds() {
    let data = TempDir::new().unwrap();
    let file = data.path().join("admin.tokens");
    std::fs::write(&file, format!("vera viewer {VIEWER}\nanna root sha256:00\n")).unwrap();
    let setting = format!("admin.tokens_file={}", file.display());
    let output = command(data.path()).args(["--set", &setting]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains("line 1: ") && why.matches("line 2: ").count() == 2, "{why}");
    assert!(!why.contains(VIEWER) && !why.contains("root"), "{why}");
}
