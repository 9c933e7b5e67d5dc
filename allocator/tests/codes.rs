//! Personal codes: printed by the command, accepted by the service, and one person each.
#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use running::{Running, shell, start};
use tempfile::TempDir;

const DEFINITION: &str = r#"{"name": "Parks?", "categories": [{"id": "trees", "name": "Trees"}, {"id": "benches", "name": "Benches"}], "identity": "code"}"#;

fn define(running: &Running, id: &str, definition: &str) {
    let defined = shell(&format!(
        "curl -s -X PUT {}/v1/budgets/{id} -H '{}' -H 'content-type: application/json' -d '{definition}'",
        running.url,
        running.authorization(),
    ));
    assert_eq!(defined["id"], id, "{defined}");
}

fn codes(data: &Path, arguments: &[&str]) -> Output {
    command(data, &["codes"], arguments)
}

fn revoke(data: &Path, arguments: &[&str]) -> Output {
    command(data, &["codes", "revoke"], arguments)
}

fn command(data: &Path, command: &[&str], arguments: &[&str]) -> Output {
    let dir = format!("sqlite.dir={}", data.display());
    Command::new(env!("CARGO_BIN_EXE_allocator"))
        .args(command)
        .args(["--set", &dir])
        .args(arguments)
        .current_dir(data)
        .output()
        .unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_printed_code_is_one_person_and_its_session_reads_what_it_sent() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    define(&running, "parks", DEFINITION);
    let output = codes(data.path(), &["--budget", "parks", "--count", "3", "--format", "csv"]);
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!((lines.len(), lines[0]), (4, "serial,code"));
    let (_, code) = lines[1].split_once(',').unwrap();
    let budget = format!("{}/v1/budgets/parks", running.url);
    let session = shell(&format!(
        "curl -s {budget}/session -H 'content-type: application/json' -d '{{\"code\": \"{code}\"}}'"
    ));
    let token = session["token"].as_str().unwrap();
    let submit = |share: u32| {
        shell(&format!(
            "curl -s -X PUT {budget}/submissions/me -H 'authorization: Bearer {token}' -H 'content-type: application/json' \
             -d '{{\"allocation\": {{\"trees\": {share}, \"benches\": {}}}}}'",
            100 - share
        ))
    };
    assert_eq!(submit(30)["status"], "accepted");
    let receipt = submit(40)["receipt"].as_str().unwrap().to_owned();
    let own = shell(&format!(
        "curl -s '{budget}/submissions/me?at_least={receipt}' -H 'prefer: wait=10' -H 'authorization: Bearer {token}'"
    ));
    assert_eq!(own["allocation"]["trees"], 40, "{own}");
    let aggregate =
        shell(&format!("curl -s '{budget}/aggregate?at_least={receipt}' -H 'prefer: wait=10'"));
    assert_eq!(aggregate["people"], 1, "{aggregate}");
    drop(running);
}

#[test]
fn codes_are_not_printed_where_they_would_be_worth_nothing() {
    let data = TempDir::new().unwrap();
    let _running = start(data.path());
    for (arguments, reason) in [
        (["--budget", "parks", "--count", "1"], "there is no budget `parks`"),
        (["--budget", "taxes", "--count", "1"], "another identity rule"),
        (["--budget", "taxes", "--count", "33554433"], "serial numbers end at 33554431"),
    ] {
        let output = codes(data.path(), &arguments);
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_revoked_code_and_its_session_are_refused_by_the_running_service_and_its_answer_stays() {
    const KNOWN_WITHIN: Duration = Duration::from_secs(1);
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    define(&running, "parks", DEFINITION);
    let printed = text(codes(data.path(), &["--budget", "parks", "--count", "3"]).stdout);
    let codes: Vec<&str> =
        printed.lines().skip(1).map(|line| line.split_once(',').unwrap().1).collect();
    let budget = format!("{}/v1/budgets/parks", running.url);
    let session = |code: &str| {
        shell(&format!(
            "curl -s {budget}/session -H 'content-type: application/json' -d '{{\"code\": \"{code}\"}}'"
        ))
    };
    let token = session(codes[0])["token"].as_str().unwrap().to_owned();
    let submit = || {
        shell(&format!(
            "curl -s -X PUT {budget}/submissions/me -H 'authorization: Bearer {token}' -H 'content-type: application/json' \
             -d '{{\"allocation\": {{\"trees\": 30, \"benches\": 70}}}}'",
        ))
    };
    let receipt = submit()["receipt"].as_str().unwrap().to_owned();

    let file = data.path().join("lost.csv");
    let line = format!("serial,code\n1,{}\n", codes[0]);
    std::fs::write(&file, line).unwrap();
    let file = file.to_str().unwrap();
    let revoked = revoke(data.path(), &["--budget", "parks", "--file", file, "--serial", "9-10"]);
    assert_eq!(text(revoked.stdout), "revoked 3 codes; 3 codes of `parks` are revoked\n");
    let since = Instant::now();
    while submit()["status"] == "accepted" {
        assert!(since.elapsed() < KNOWN_WITHIN, "the session of a revoked code goes on");
    }
    let mut answers = [codes[0], "0000-0000-0000-0000"].map(session);
    for answer in &mut answers {
        assert_eq!(answer["status"], 401, "{answer}");
        answer["instance"].take();
    }
    assert_eq!(answers[0], answers[1]);
    assert!(session(codes[1])["token"].is_string());
    let aggregate =
        shell(&format!("curl -s '{budget}/aggregate?at_least={receipt}' -H 'prefer: wait=10'"));
    assert_eq!(aggregate["people"], 1, "what was submitted stays counted: {aggregate}");
    let again = revoke(data.path(), &["--budget", "parks", "--serial", "1"]);
    assert_eq!(text(again.stdout), "revoked 0 codes; 3 codes of `parks` are revoked\n");
    // Also by the next start.
    drop(running);
    let running = start(data.path());
    let session = shell(&format!(
        "curl -s {}/v1/budgets/parks/session -H 'content-type: application/json' -d '{{\"code\": \"{}\"}}'",
        running.url, codes[0]
    ));
    assert_eq!(session["status"], 401, "{session}");
}

#[test]
fn nothing_is_revoked_by_a_wrong_command_and_no_code_is_printed_by_it() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    for id in ["parks", "roads"] {
        define(&running, id, DEFINITION);
    }
    let printed = text(codes(data.path(), &["--budget", "roads", "--count", "2"]).stdout);
    let (file, missing) = (data.path().join("roads.csv"), data.path().join("missing.csv"));
    std::fs::write(&file, &printed).unwrap();
    let (file, missing) = (file.to_str().unwrap(), missing.to_str().unwrap());
    for (arguments, reason) in [
        (&["--budget", "parks", "--file", file][..], "line 2 is neither"),
        (&["--budget", "parks", "--file", missing], "missing.csv"),
        (&["--budget", "parks", "--serial", "1,x"], "expected serial numbers and ranges"),
        (&["--budget", "parks", "--serial", "33554432"], "serial numbers end at 33554431"),
        (&["--budget", "parks"], "--serial"),
        (&["--budget", "taxes", "--serial", "1"], "another identity rule"),
        (&["--budget", "woods", "--serial", "1"], "there is no budget `woods`"),
    ] {
        let output = revoke(data.path(), arguments);
        let error = text(output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
        assert!(error.contains(reason), "{arguments:?}: {error}");
        let code = printed.lines().nth(1).unwrap().split_once(',').unwrap().1;
        assert!(!error.contains(code), "{error}");
    }
    let revoked = revoke(data.path(), &["--budget", "parks", "--serial", "1"]);
    assert_eq!(text(revoked.stdout), "revoked 1 codes; 1 codes of `parks` are revoked\n");
}
