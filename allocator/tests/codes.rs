//! Personal codes: printed by the command, accepted by the service, and one person each.
#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::path::Path;
use std::process::{Command, Output};

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
    let dir = format!("sqlite.dir={}", data.display());
    Command::new(env!("CARGO_BIN_EXE_allocator"))
        .args(["codes", "--set", &dir])
        .args(arguments)
        .current_dir(data)
        .output()
        .unwrap()
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
