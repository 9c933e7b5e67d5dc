//! Runs the examples of the documentation against a fresh deployment, in the order in which a reader meets them.
//!
//! Not run: `make` (it builds), and commands of `processor` (they need servers). A code from a mail or a print is
//! replaced by one of this deployment, or its example must be refused.
#![allow(clippy::unwrap_used)]

#[path = "support/plain_http.rs"]
mod plain_http;
#[path = "support/running.rs"]
mod running;

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use plain_http::Client;
use running::{Running, start_with};
use serde_json::Value;
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const PRINTED_URL: &str = "http://127.0.0.1:8000";
const TIMEOUT: Duration = Duration::from_secs(60);
/// The documents with examples of requests.
const DOCUMENTS: [&str; 4] = [
    "README.md",
    "docs/http.md",
    "docs/operations/administrators.md",
    "docs/operations/export-and-archive.md",
];
/// Fewest commands that are run.
const MIN_EXAMPLES: usize = 10;

/// A command of the documentation, and what is printed under it.
#[derive(Debug)]
struct Example {
    command: String,
    printed: String,
}

/// All commands in the `console` blocks of a document.
fn examples(document: &str) -> Vec<Example> {
    let text = fs::read_to_string(format!("{ROOT}/{document}")).unwrap();
    let mut found: Vec<Example> = Vec::new();
    for block in text.split("```console\n").skip(1) {
        let mut is_begun = false;
        for line in block.split("```").next().unwrap_or_default().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => {
                    is_begun = true;
                    found.push(Example { command: command.to_owned(), printed: String::new() });
                }
                None if is_begun => {
                    found.last_mut().unwrap().printed.push_str(line);
                }
                None => {}
            }
        }
    }
    found
}

/// A deployment in whose directory the examples run.
struct Deployment {
    dir: TempDir,
    running: Running,
}

impl Deployment {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        // Takes no mail: the answer to whoever asks for a code does not wait for it.
        let mail = ["email.smtp_url=smtp://127.0.0.1:1", "email.from=town@example.org"];
        let running = start_with(&data, &mail);
        Self { dir, running }
    }

    fn sh(&self, line: &str) -> Output {
        let token = fs::read_to_string(&self.running.token_file).unwrap();
        let mut sh = Command::new("sh");
        sh.args(["-c", line]).current_dir(self.dir.path()).env("T", token.trim());
        sh.output().unwrap()
    }

    /// Does what the text around an example presupposes.
    fn prepare(&self, command: &str) -> String {
        let command = command.replace(PRINTED_URL, &self.running.url);
        let allocator = env!("CARGO_BIN_EXE_allocator");
        if command.contains("0000-1XXX-XXXX-XXXX") {
            self.define("parks", "code");
            let codes =
                self.sh(&format!("{allocator} codes --budget parks --count 1 --format csv"));
            let codes = String::from_utf8(codes.stdout).unwrap();
            let code = codes.lines().nth(1).and_then(|line| line.split(',').nth(1)).unwrap();
            return command.replace("0000-1XXX-XXXX-XXXX", code);
        }
        if command.contains("/budgets/region/") {
            self.define("region", "email");
        }
        if command.contains("/export?") {
            self.publish_export();
        }
        command.replace("target/tryout/allocator", allocator)
    }

    fn administer(&self, request: (&str, &str), body: &str) -> plain_http::Response {
        let authorization = self.running.authorization().split_once(": ").unwrap().1.to_owned();
        let headers = [("authorization", &*authorization), ("content-type", "application/json")];
        Client::connect(&self.running.url).request(request, &headers, body.as_bytes())
    }

    fn define(&self, budget: &str, rule: &str) {
        let definition = format!(
            r#"{{"name":"Town","identity":"{rule}","categories":[{{"id":"trees","name":"Trees"}},{{"id":"benches","name":"Benches"}}]}}"#
        );
        let defined = self.administer(("PUT", &format!("/v1/budgets/{budget}")), &definition);
        assert!(matches!(defined.status, 200 | 201), "{defined:?}");
    }

    fn publish_export(&self) {
        let job = r#"{"kind":"export","budget":"taxes","format":"csv","publish":true}"#;
        assert_eq!(self.administer(("POST", "/v1/admin/jobs"), job).status, 202);
        let started = Instant::now();
        let export = ("GET", "/v1/budgets/taxes/export?format=csv");
        while self.administer(export, "").status != 200 {
            assert!(started.elapsed() < TIMEOUT, "nothing is published");
        }
    }
}

/// The names of all members in an answer, which may be shortened.
fn member_names(printed: &str) -> Vec<&str> {
    let parts: Vec<&str> = printed.split('"').collect();
    let names = parts
        .windows(2)
        .enumerate()
        .filter(|(index, pair)| index % 2 == 1 && pair[1].trim_start().starts_with(':'));
    names.map(|(_, pair)| pair[0]).collect()
}

/// Runs a request of the documentation, and compares status and members with what is printed.
fn run_request(deployment: &Deployment, Example { command, printed }: &Example) {
    let line = deployment.prepare(command);
    let line = line.replacen("curl ", "curl -w '\\n%{http_code}' ", 1);
    let output = deployment.sh(&line);
    assert!(output.status.success(), "{line}: {output:?}");
    let answer = String::from_utf8(output.stdout).unwrap();
    let (answer, status) = answer.rsplit_once('\n').unwrap();
    // Nobody gets the six digits of the example in a mail.
    if command.contains("\"otp\"") {
        assert_eq!(status, "401", "{line}: {answer}");
        return;
    }
    let expected = printed.strip_prefix("HTTP/1.1 ").and_then(|head| head.get(..3));
    assert!(
        expected.map_or(status.starts_with('2'), |expected| expected == status),
        "{line}: {answer}"
    );
    for name in member_names(printed) {
        assert!(answer.contains(&format!("\"{name}\":")), "{name} is missing: {line}: {answer}");
    }
}

#[test]
fn every_example_of_a_request_and_of_the_readme_runs_as_printed() {
    let deployment = Deployment::start();
    let mut run = 0;
    for document in DOCUMENTS {
        for example in examples(document) {
            let command = &example.command;
            if command.starts_with("curl ") {
                run_request(&deployment, &example);
            } else if command.starts_with("target/tryout/allocator ") {
                let output = deployment.sh(&deployment.prepare(command));
                assert!(output.status.success(), "{command}: {output:?}");
            } else {
                let is_known =
                    ["make ", "processor ", "T="].iter().any(|start| command.starts_with(start));
                assert!(is_known, "{document}: nothing runs {command}");
                continue;
            }
            run += 1;
        }
    }
    assert!(run >= MIN_EXAMPLES, "{run}");
}

#[test]
fn every_document_whose_console_has_a_request_is_run() {
    let mut with_requests = Vec::new();
    collect("README.md", &mut with_requests);
    for folder in ["docs", "docs/operations"] {
        for entry in fs::read_dir(format!("{ROOT}/{folder}")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                collect(&format!("{folder}/{name}"), &mut with_requests);
            }
        }
    }
    with_requests.sort_unstable();
    let mut documents = DOCUMENTS.to_vec();
    documents.sort_unstable();
    assert_eq!(with_requests, documents);
}

fn collect(document: &str, found: &mut Vec<String>) {
    if examples(document).iter().any(|example| example.command.starts_with("curl ")) {
        found.push(document.to_owned());
    }
}

/// Bodies of requests in `docs/http.md` that are no `curl` line, with the request and its status.
const BODIES: [(&str, &str, &str, u16); 3] = [
    (
        r#"{"person": "p-1", "allocation": {"health": 40, "education": 35.5, "defence": 24.5}}"#,
        "POST",
        "/v1/budgets/taxes/submissions",
        202,
    ),
    (r#"{"kind": "rebuild", "dry_run": true, "priority": "high"}"#, "POST", "/v1/admin/jobs", 202),
    (
        r#"{"network": "9f86d081884c7d65", "from": "2026-11-30T14:00:00Z", "until": "2026-11-30T14:20:00Z", "reason": "600 ballots of one machine", "dry_run": true}"#,
        "POST",
        "/v1/admin/budgets/taxes/annulments",
        202,
    ),
];

#[test]
fn the_described_bodies_of_requests_are_accepted() {
    let text = fs::read_to_string(format!("{ROOT}/docs/http.md")).unwrap();
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let deployment = Deployment::start();
    for (body, method, path, status) in BODIES {
        assert!(text.contains(body), "docs/http.md has no {body}");
        let response = deployment.administer((method, path), body);
        assert_eq!(response.status, status, "{response:?}");
        assert!(serde_json::from_str::<Value>(&response.body).is_ok());
    }
}
