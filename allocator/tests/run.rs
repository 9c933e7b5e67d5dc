//! `allocator run` as a new user runs it.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use running::{Running, command, shell, start, start_with};
use serde_json::Value;
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(30);

fn signal(running: &Running, name: &str) {
    let id = running.child.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

fn exit_code(running: &mut Running) -> Option<i32> {
    let started = Instant::now();
    loop {
        if let Some(status) = running.child.try_wait().unwrap() {
            return status.code();
        }
        assert!(started.elapsed() < TIMEOUT, "the process does not end");
        std::thread::yield_now();
    }
}

/// Waits until `people` are counted and returns the aggregate.
fn wait_for_people(url: &str, people: u64) -> Value {
    let started = Instant::now();
    loop {
        let aggregate = shell(&format!("curl -s {url}/v1/budgets/taxes/aggregate"));
        if aggregate["people"] == people {
            return aggregate;
        }
        assert!(started.elapsed() < TIMEOUT, "{aggregate}");
    }
}

fn total(aggregate: &Value, id: &str) -> u64 {
    let categories = aggregate["categories"].as_array().unwrap();
    let category = categories.iter().find(|category| category["id"] == id).unwrap();
    category["total_basis_points"].as_u64().unwrap()
}

#[test]
fn the_printed_commands_work_as_printed_without_pauses() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let [submit, person, aggregate] = running.commands.as_slice() else {
        panic!("expected three commands")
    };
    assert_eq!(shell(submit)["status"], "accepted");
    assert_eq!(shell(person)["allocation"]["education"], 35.5);
    assert_eq!(shell(aggregate)["budget"], "taxes");
    let aggregate = wait_for_people(&running.url, 1);
    assert_eq!(total(&aggregate, "health"), 4000);
    assert_eq!(total(&aggregate, "defence"), 2450);
}

#[test]
fn a_locked_data_directory_is_rejected_and_the_first_process_continues() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let Output { status, stderr, .. } = command(data.path()).output().unwrap();
    assert_eq!(status.code(), Some(1));
    let stderr = String::from_utf8(stderr).unwrap();
    let expected = format!("another allocator (process {}) runs on the data", running.child.id());
    assert!(stderr.contains(&expected), "{stderr}");
    assert_eq!(shell(&running.commands[0])["status"], "accepted");
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
    let aggregate = wait_for_people(&third.url, 8);
    assert_eq!(total(&aggregate, "health"), 80_000);
}

#[test]
fn an_invalid_configuration_is_rejected_with_every_fault() {
    let data = TempDir::new().unwrap();
    let mut command = command(data.path());
    command.args(["--set", "log.kind=paper", "--set", "alocator.listen=x"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("log.kind") && stderr.contains("did you mean allocator.listen?"),
        "{stderr}"
    );
}

const VIEWER: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";
const ADMIN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Hashes by `printf %s TOKEN | sha256sum`.
const TOKENS_FILE: &str = "\
vera viewer sha256:d71af2bc53398568e2aff5639f499ff0add6177253dbabccfe931459470856a7
anna admin sha256:3ba3f5f43b92602683c19aee62a20342b084dd5971ddd33808d81a328879a547
";
const BUDGET: &str =
    r#"{"name":"Park","categories":[{"id":"a","name":"A"},{"id":"b","name":"B"}]}"#;

/// Sends an admin request and returns the status and `curl -i`'s output in lower case.
fn admin_request(running: &Running, method: &str, path: &str, headers: &[&str]) -> (u16, String) {
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
fn the_first_start_makes_a_token_without_which_nobody_is_an_administrator() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    assert_eq!(running.token_file, data.path().join("admin.token"));
    let token = &*running.authorization();
    let (status, answer) = admin_request(&running, "GET", "/v1/admin/whoami", &[token]);
    assert_eq!(status, 200, "{answer}");
    assert!(answer.ends_with(r#"{"name":"admin","role":"admin"}"#), "{answer}");
    let (status, answer) = admin_request(&running, "GET", "/v1/admin/generations", &[token]);
    assert!(status == 200 && answer.contains(r#""state":"current""#), "{answer}");
    // A proxy on this machine makes everybody's requests local ones.
    for headers in [&[][..], &["x-forwarded-for: 127.0.0.1"], &["origin: http://127.0.0.1"]] {
        for (method, path) in [("GET", "/v1/admin/whoami"), ("PUT", "/v1/budgets/park")] {
            let (status, answer) = admin_request(&running, method, path, headers);
            assert!(status == 401 && answer.contains("/problems/unauthorized"), "{answer}");
        }
    }
    drop(running);
    // The next start keeps it.
    assert_eq!(start(data.path()).authorization(), token);
}

/// Requests a URL with a command that ends with `curl`, and returns the status.
fn status_by(mut curl: Command, url: &str) -> String {
    let output = curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", url]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A proxy on this machine may add no header to the requests of everybody, as nginx does since 1.29.7.
#[test]
fn a_client_of_another_account_is_not_one_of_the_same_machine() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let metrics = format!("{}/metrics", running.url);
    let of_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "curl"];
    let is_root = data.path().metadata().unwrap().uid() == 0;
    let mut curl_of_nobody = Command::new(if is_root { "env" } else { "sudo" });
    if !is_root {
        curl_of_nobody.arg("-n");
    }
    curl_of_nobody.args(of_nobody);
    assert_eq!(status_by(Command::new("curl"), &metrics), "200");
    assert_eq!(status_by(curl_of_nobody, &metrics), "403");
}

#[test]
fn a_requested_audit_runs_and_reports_its_verdict() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let submit = &running.commands[0];
    assert_eq!(shell(submit)["status"], "accepted");
    let url = &running.url;
    let curl = format!("curl -s -H '{}'", running.authorization());
    let job = shell(&format!("{curl} -X POST {url}/v1/admin/audits"));
    assert_eq!((&job["kind"], &job["asked_by"]), (&"audit".into(), &"admin".into()), "{job}");
    let (id, started) = (job["id"].as_str().unwrap(), Instant::now());
    let done = loop {
        let job = shell(&format!("{curl} {url}/v1/admin/jobs/{id}"));
        if !job["ended_at"].is_null() {
            break job;
        }
        assert!(started.elapsed() < TIMEOUT, "{job}");
        // Slow enough for the rate limit.
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(
        (&done["state"], &done["verdict"]),
        (&"succeeded".into(), &"clean".into()),
        "{done}"
    );
}

#[test]
fn roles_and_rate_limits_are_enforced_and_the_log_names_people_but_no_token() {
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
    let bearer = |token: &str| format!("authorization: Bearer {token}");
    let (vera, anna) = (&*bearer(VIEWER), &*bearer(ADMIN));
    let wrong = "wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww";
    let invalid = bearer(wrong);
    let whoami = "/v1/admin/whoami";
    let requests = Cell::new(0);
    let send = |method, path, headers: &[&str]| {
        requests.set(requests.get() + 1);
        let id = format!("x-request-id: request-{}", requests.get());
        admin_request(&running, method, path, &[headers, &[&id]].concat())
    };
    // On a slow machine the limit refills between requests, so the number of requests is not fixed.
    let send_until_429 = |headers: &[&str]| {
        let mut answers = (0..50).map(|_| send("GET", whoami, headers));
        answers.find(|(status, _)| *status == 429).expect("a rate limit").1
    };

    let (status, answer) = send("GET", whoami, &[]);
    assert!(status == 401 && answer.contains("www-authenticate: bearer\r"), "{answer}");
    let (status, answer) = send("GET", whoami, &[&invalid]);
    assert!(status == 401 && answer.contains("error=\"invalid_token\""), "{answer}");

    // From another address, forwarded by a proxy on this machine.
    let remote = "x-forwarded-for: 192.0.2.7";
    let (status, answer) = send("GET", whoami, &[vera, remote]);
    assert!(status == 200 && answer.contains(r#"{"name":"vera","role":"viewer"}"#), "{answer}");
    let park = "/v1/budgets/park";
    let (status, answer) = send("PUT", park, &[vera, remote]);
    assert!(status == 403 && answer.contains("requires the role admin"), "{answer}");
    assert_eq!(send("PUT", park, &[anna, remote]).0, 201);

    // An address with too many failures cannot lock out a valid token.
    let answer = send_until_429(&[&invalid]);
    assert!(answer.contains("ratelimit-policy: \"admin-failures\""), "{answer}");
    assert_eq!(send("GET", whoami, &[anna]).0, 200);

    let answer = send_until_429(&[vera, remote]);
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
    let requests = requests.get();

    signal(&running, "-TERM");
    assert_eq!(exit_code(&mut running), Some(0));
    let log = running.log.take().unwrap().join().unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(" admin: ")).collect();
    assert_eq!(lines.len(), requests, "one line per request: {lines:#?}");
    assert!(!log.contains("192.0.2.7"), "{log}");
    let whoami = r#"method="GET" route="/v1/admin/whoami""#;
    let park = r#"method="PUT" route="/v1/budgets/{budget}""#;
    let vera = r#"name="vera" role="viewer""#;
    for (request, expected) in [
        (1, format!(r#" {whoami} status=401 outcome="unauthorized" id="#)),
        (3, format!(r#" {vera} {whoami} status=200 outcome="done" id="#)),
        (4, format!(r#" {vera} {park} status=403 outcome="forbidden""#)),
        (
            5,
            format!(
                r#" name="anna" role="admin" {park} resource="budget=park" status=201 outcome="done""#
            ),
        ),
        (requests, format!(r#" {vera} {whoami} status=429 outcome="rate_limited""#)),
    ] {
        let id = format!("id=\"request-{request}\"");
        let line = lines.iter().find(|line| line.contains(&id)).unwrap();
        assert!(line.contains(&expected), "{line}");
    }
    let hashes = TOKENS_FILE.lines().map(|line| line.rsplit(':').next().unwrap());
    for secret in hashes.chain([VIEWER, ADMIN, wrong]) {
        assert!(!log.contains(secret), "the log holds {secret}");
    }
}

#[test]
fn an_invalid_tokens_file_is_rejected_with_every_fault_and_without_its_content() {
    let data = TempDir::new().unwrap();
    let file = data.path().join("admin.tokens");
    std::fs::write(&file, format!("vera viewer {VIEWER}\nanna root sha256:00\n")).unwrap();
    let setting = format!("admin.tokens_file={}", file.display());
    let output = command(data.path()).args(["--set", &setting]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("line 1: ") && stderr.matches("line 2: ").count() == 2, "{stderr}");
    assert!(!stderr.contains(VIEWER) && !stderr.contains("root"), "{stderr}");
}
