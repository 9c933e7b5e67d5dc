//! `allocator export`, and the round trip through `allocator import`: the totals are the same.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use running::{Running, shell, start};
use serde_json::{Value, json};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(30);
const PEOPLE: u64 = 200;

fn allocator(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_allocator"));
    command.args(arguments).current_dir(data).output().unwrap()
}

fn export(data: &Path, arguments: &[&str]) -> Output {
    let dir = format!("sqlite.dir={}", data.display());
    let all = [&["export", "--budget", "towns", "--set", &dir], arguments].concat();
    allocator(data, &all)
}

/// Waits until `people` are counted and returns each category's total by id.
fn totals(running: &Running, budget: &str, people: u64) -> Value {
    let started = Instant::now();
    loop {
        let url = &running.url;
        let aggregate = shell(&format!("curl -s {url}/v1/budgets/{budget}/aggregate"));
        if aggregate["people"] == people {
            let categories = aggregate["categories"].as_array().unwrap();
            let total = |category: &Value| {
                let id = category["id"].as_str().unwrap().to_owned();
                (id, category["total_basis_points"].clone())
            };
            return Value::Object(categories.iter().map(total).collect());
        }
        assert!(started.elapsed() < TIMEOUT, "{aggregate}");
    }
}

/// Starts an allocator with a budget of people, some with shares of 0.
fn start_with_people(data: &TempDir) -> Running {
    let running = start(data.path());
    let url = &running.url;
    let definition = json!({
        "name": "What should \"towns\"; and villages do?",
        "categories": [
            {"id": "roads", "name": "Roads; and bridges"},
            {"id": "a-pool", "name": "A \"pool\""},
            {"id": "trees", "name": "Trees"},
        ],
    });
    let authorization = running.authorization();
    let put = format!("curl -s -X PUT -H '{authorization}' -H 'Content-Type: application/json'");
    shell(&format!("{put} {url}/v1/budgets/towns -d '{definition}'"));
    let mut people = String::from("person,roads,a-pool,trees\n");
    for person in 0..PEOPLE {
        let (roads, pool) = (person * 37 % 5_000, person % 3 * 1_111);
        let shares = [roads, pool, 10_000 - roads - pool];
        let percents = shares.map(|share| format!("{}.{:02}", share / 100, share % 100));
        writeln!(people, "p-{person},{}", percents.join(",")).unwrap();
    }
    fs::write(data.path().join("people.csv"), people).unwrap();
    let import = ["import", "people.csv", "--budget", "towns", "--url", url];
    assert!(allocator(data.path(), &import).status.success());
    running
}

#[test]
fn an_exported_pb_file_imports_with_the_same_totals_by_category_and_by_project() {
    let data = TempDir::new().unwrap();
    let running = start_with_people(&data);
    let expected = totals(&running, "towns", PEOPLE);
    let exported = export(data.path(), &["--format", "pb"]);
    assert!(exported.status.success(), "{exported:?}");
    for (by, budget) in [("category", "again"), ("project", "once-more")] {
        let url = &running.url;
        let token_file = running.token_file.display().to_string();
        let import = ["import", "towns.pb", "--by", by, "--budget", budget, "--url", url];
        let imported =
            allocator(data.path(), &[&import[..], &["--token-file", &token_file]].concat());
        assert!(imported.status.success(), "{imported:?}");
        assert_eq!(totals(&running, budget, PEOPLE), expected);
    }
    let budget = shell(&format!("curl -s {}/v1/budgets/once-more", running.url));
    assert_eq!(budget["name"], "What should \"towns\"; and villages do?");
    let names: Vec<_> =
        budget["categories"].as_array().unwrap().iter().map(|category| &category["name"]).collect();
    assert_eq!(names, ["A \"pool\"", "Roads; and bridges", "Trees"]);
}

#[test]
fn result_line_manifest_file_and_api_agree_and_standard_output_has_the_same_bytes() {
    let data = TempDir::new().unwrap();
    let running = start_with_people(&data);
    let expected = totals(&running, "towns", PEOPLE);
    let exported = export(data.path(), &["--output", "people-now.csv"]);
    let stdout = String::from_utf8(exported.stdout).unwrap();
    let manifest = fs::read(data.path().join("people-now.csv.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let sha256 = manifest["sha256"].as_str().unwrap();
    let line = format!("EXPORT budget=towns people={PEOPLE} generation=1 version=");
    assert!(stdout.contains(&line), "{stdout}");
    assert!(stdout.contains(&format!(" sha256={sha256} ")), "{stdout}");
    for category in manifest["categories"].as_array().unwrap() {
        assert_eq!(category["basis_points"], expected[category["id"].as_str().unwrap()]);
    }
    let table = fs::read(data.path().join("people-now.csv")).unwrap();
    assert_eq!(table.split(|byte| *byte == b'\n').count() as u64, PEOPLE + 2);
    let summed = Command::new("sha256sum").arg(data.path().join("people-now.csv")).output();
    assert!(String::from_utf8(summed.unwrap().stdout).unwrap().starts_with(sha256));

    let out = export(data.path(), &["--format", "csv", "--output", "-"]);
    assert!(out.stdout == table && String::from_utf8(out.stderr).unwrap().contains(sha256));
}

#[test]
fn an_unknown_budget_and_a_file_without_a_format_are_rejected() {
    let data = TempDir::new().unwrap();
    let _running = start(data.path());
    let assert_rejected = |arguments: &[&str], reason: &str| {
        let output = export(data.path(), arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
    };
    assert_rejected(&["--format", "csv"], "there is no budget `towns`");
    assert_rejected(&["--output", "people.txt"], "a format is needed");
}

#[test]
fn a_closed_standard_output_is_no_failure_and_a_full_disk_is_one() {
    let data = TempDir::new().unwrap();
    let running = start_with_people(&data);
    totals(&running, "towns", PEOPLE);
    let dir = format!("sqlite.dir={}", data.path().display());
    let to_stdout = |stdout: Stdio| {
        Command::new(env!("CARGO_BIN_EXE_allocator"))
            .args([
                "export", "--budget", "towns", "--set", &dir, "--format", "csv", "--output", "-",
            ])
            .current_dir(data.path())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut exporting = to_stdout(Stdio::piped());
    drop(exporting.stdout.take());
    let output = exporting.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{:?}: {stderr}", output.status);
    assert!(!stderr.contains("export: "), "{stderr}");

    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = to_stdout(full.into()).wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("standard output"), "{stderr}");
}
