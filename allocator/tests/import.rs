//! `allocator import` against a failing server: every entry arrives and nobody is counted twice.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use allocator::import::{Counts, ImportArgs, ImportError, RetryPolicy, import};
use clap::Parser;
use serde_json::{Value, json};
use support::{FakeServer, InjectedFailure};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const QUICK: RetryPolicy = RetryPolicy {
    initial_delay: Duration::from_millis(1),
    max_delay: Duration::from_millis(5),
    timeout: Duration::from_secs(60),
};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    import: ImportArgs,
}

fn args(file: &Path, url: &str, more: &[&str]) -> ImportArgs {
    let file = file.to_str().unwrap();
    Cli::parse_from([&["import", file, "--url", url], more].concat()).import
}

async fn run(file: &Path, url: &str, more: &[&str]) -> Result<Counts, ImportError> {
    import(&args(file, url, more), QUICK, CancellationToken::new()).await
}

fn write(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Builds a Pabulib file of voters with one point for each of three projects in two categories.
fn ballots(voters: usize) -> String {
    let mut text =
        "META\nkey;value\nunit;Smalltown\ninstance;2031\nvote_type;cumulative\nPROJECTS\n\
         project_id;name;category\nA;Trees;green\nB;Benches;green\nC;Pool;sport\nVOTES\n\
         voter_id;vote;points\n"
            .to_owned();
    for voter in 0..voters {
        writeln!(text, "{voter};A,B,C;1,1,1").unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_budget_is_created_and_each_ballot_arrives_as_exact_percentages() {
    let (fake, url) = FakeServer::start().await;
    let dir = TempDir::new().unwrap();
    let counts = run(&write(&dir, "x.pb", &ballots(2500)), &url, &[]).await.unwrap();
    assert_eq!(counts, Counts { accepted: 2500, ..Counts::default() });
    let state = fake.state();
    let expected = json!({
        "name": "Smalltown 2031",
        "categories": [{"id": "green", "name": "green"}, {"id": "sport", "name": "sport"}],
    });
    assert_eq!(state.budgets["smalltown-2031"], expected);
    let people = state.people();
    assert_eq!(people.len(), 2500);
    assert_eq!(people["smalltown-2031:17"].to_string(), r#"{"green":66.67,"sport":33.33}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_person_is_counted_once_through_all_kinds_of_failures() {
    let (fake, url) = FakeServer::start().await;
    fake.state().next_failures.extend([
        InjectedFailure::Status(503),
        InjectedFailure::DisconnectAfterAccepting,
        InjectedFailure::EverySecondItem,
        InjectedFailure::Status(429),
        InjectedFailure::EverySecondItem,
        InjectedFailure::DisconnectAfterAccepting,
        InjectedFailure::Status(502),
    ]);
    let dir = TempDir::new().unwrap();
    let file = write(&dir, "x.pb", &ballots(5000));
    let counts = run(&file, &url, &["--concurrency", "3"]).await.unwrap();
    assert_eq!((counts.accepted + counts.repeated, counts.rejected), (5000, 0));
    assert!(counts.repeated > 0, "items accepted before a disconnect are repeated");
    let state = fake.state();
    assert_eq!((state.accepted.len(), state.people().len()), (5000, 5000));
}

#[tokio::test(flavor = "multi_thread")]
async fn importing_the_same_file_again_repeats_its_submissions_under_any_file_name() {
    let (fake, url) = FakeServer::start().await;
    let dir = TempDir::new().unwrap();
    run(&write(&dir, "x.pb", &ballots(1200)), &url, &[]).await.unwrap();
    let again = write(&dir, "renamed.pb", &ballots(1200));
    let counts = run(&again, &url, &["--concurrency", "1"]).await.unwrap();
    assert_eq!(counts, Counts { repeated: 1200, ..Counts::default() });
    assert_eq!(fake.state().accepted.len(), 1200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_import_is_completed_by_the_next_run() {
    let (fake, url) = FakeServer::start().await;
    let stop = CancellationToken::new();
    fake.state().stop_after = Some((3, stop.clone()));
    let dir = TempDir::new().unwrap();
    let args = args(&write(&dir, "x.pb", &ballots(9000)), &url, &["--concurrency", "2"]);
    let stopped = import(&args, QUICK, stop).await;
    assert!(matches!(stopped, Err(ImportError::Stopped)), "{stopped:?}");
    let sent = fake.state().accepted.len() as u64;
    assert!((3000..9000).contains(&sent), "{sent}");
    fake.state().stop_after = None;
    let counts = import(&args, QUICK, CancellationToken::new()).await.unwrap();
    assert_eq!(counts, Counts { accepted: 9000 - sent, repeated: sent, rejected: 0 });
    assert_eq!(fake.state().people().len(), 9000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_an_import_whose_server_never_answers() {
    let dir = TempDir::new().unwrap();
    let file = write(&dir, "x.pb", &ballots(3));
    for hangs_at_batch in [false, true] {
        let (fake, url) = FakeServer::start().await;
        let stop = CancellationToken::new();
        if hangs_at_batch {
            fake.state().stop_after = Some((1, stop.clone()));
            fake.state().permanent_failure = Some(InjectedFailure::Hang);
        } else {
            fake.state().hang_and_stop = Some(stop.clone());
        }
        assert_stops(&args(&file, &url, &[]), stop).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_an_import_that_waits_for_its_token() {
    let (fake, url) = FakeServer::start().await;
    let dir = TempDir::new().unwrap();
    let (file, pipe) = (write(&dir, "x.pb", &ballots(3)), dir.path().join("token"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let stop = CancellationToken::new();
    // Opening a pipe to write waits until the import opens it to read.
    let writer = tokio::task::spawn_blocking({
        let (pipe, stop) = (pipe.clone(), stop.clone());
        move || {
            let writer = std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
            stop.cancel();
            writer
        }
    });
    assert_stops(&args(&file, &url, &["--token-file", pipe.to_str().unwrap()]), stop).await;
    drop(writer.await.unwrap());
    assert!(fake.state().budgets.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_the_first_pass_ends_imports_and_dry_runs() {
    let (fake, url) = FakeServer::start().await;
    let dir = TempDir::new().unwrap();
    let file = write(&dir, "x.pb", &ballots(3));
    for more in [&[][..], &["--dry-run"]] {
        let stop = CancellationToken::new();
        stop.cancel();
        assert_stops(&args(&file, &url, more), stop).await;
    }
    assert!(fake.state().budgets.is_empty());
}

/// Asserts that the import ends as stopped, long before a request times out.
async fn assert_stops(args: &ImportArgs, stop: CancellationToken) {
    let import = import(args, QUICK, stop);
    let ended = tokio::time::timeout(Duration::from_secs(30), import).await.unwrap();
    assert!(matches!(ended, Err(ImportError::Stopped)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_persons_submissions_keep_their_order_through_failures() {
    let (fake, url) = FakeServer::start().await;
    fake.state().budgets.insert("b".to_owned(), json!({"categories": [{"id": "x"}, {"id": "y"}]}));
    fake.state().next_failures.extend(
        [InjectedFailure::EverySecondItem, InjectedFailure::DisconnectAfterAccepting].repeat(10),
    );
    let mut text = String::new();
    for round in 0..=100 {
        for person in 0..20 {
            let allocation = json!({"x": round, "y": 100 - round});
            writeln!(text, "{}", json!({"person": format!("p{person}"), "allocation": allocation}))
                .unwrap();
        }
    }
    let dir = TempDir::new().unwrap();
    let file = write(&dir, "x.ndjson", &text);
    run(&file, &url, &["--budget", "b", "--concurrency", "4"]).await.unwrap();
    let state = fake.state();
    let mut rounds_by_person: HashMap<String, Vec<u64>> = HashMap::new();
    for item in &state.accepted {
        let person = item["person"].as_str().unwrap().to_owned();
        rounds_by_person.entry(person).or_default().push(item["allocation"]["x"].as_u64().unwrap());
    }
    assert_eq!(rounds_by_person.len(), 20);
    for rounds in rounds_by_person.values() {
        assert_eq!(*rounds, (0..=100).collect::<Vec<u64>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_rejected_by_parser_or_server_are_counted_and_affect_no_other() {
    let (fake, url) = FakeServer::start().await;
    let budget = json!({"categories": [{"id": "x"}, {"id": "y"}, {"id": "z"}]});
    fake.state().budgets.insert("b".to_owned(), budget);
    let text = "person,x,y\np-1,40,60\nunwanted,40,60\np-2,40,61\np-3,0,100\n";
    let dir = TempDir::new().unwrap();
    let counts = run(&write(&dir, "x.csv", text), &url, &["--budget", "b"]).await.unwrap();
    assert_eq!(counts, Counts { accepted: 2, repeated: 0, rejected: 2 });
    let expected: HashMap<String, Value> = HashMap::from([
        ("p-1".to_owned(), json!({"x": 40.0, "y": 60.0})),
        ("p-3".to_owned(), json!({"y": 100.0})),
    ]);
    assert_eq!(fake.state().people(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_truncated_file_is_sent() {
    let (fake, url) = FakeServer::start().await;
    let dir = TempDir::new().unwrap();
    let file = write(&dir, "x.pb", &format!("{}7001;\"A", ballots(3000)));
    let error = run(&file, &url, &[]).await.unwrap_err().to_string();
    assert!(error.ends_with("line 3013: has a quote that is not closed"), "{error}");
    assert!(fake.state().budgets.is_empty());
    assert_eq!(fake.state().batches, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_with_other_categories_is_rejected_and_not_changed() {
    let (fake, url) = FakeServer::start().await;
    let budget = json!({"categories": [{"id": "green"}, {"id": "x"}]});
    fake.state().budgets.insert("smalltown-2031".to_owned(), budget);
    let dir = TempDir::new().unwrap();
    let file = write(&dir, "x.pb", &ballots(3));
    let error = run(&file, &url, &[]).await.unwrap_err().to_string();
    assert!(error.contains("only in the file: `sport`; only in the budget: `x`"), "{error}");
    assert_eq!(fake.state().batches, 0);
    run(&file, &url, &["--budget", "other"]).await.unwrap();
    assert_eq!(fake.state().people().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_created_with_the_admin_token() {
    let (fake, url) = FakeServer::start().await;
    fake.state().token = Some("letmein".to_owned());
    let dir = TempDir::new().unwrap();
    let (file, token) = (write(&dir, "x.pb", &ballots(3)), write(&dir, "token", "letmein\n"));
    let error = run(&file, &url, &[]).await.unwrap_err();
    assert!(
        matches!(&error, ImportError::Rejected(reason) if reason.contains("--token-file")),
        "{error}"
    );
    run(&file, &url, &["--token-file", token.to_str().unwrap()]).await.unwrap();
    assert_eq!(fake.state().people().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanently_unavailable_server_is_given_up() {
    let (fake, url) = FakeServer::start().await;
    fake.state().permanent_failure = Some(InjectedFailure::Status(503));
    let dir = TempDir::new().unwrap();
    let args = args(&write(&dir, "x.pb", &ballots(3)), &url, &[]);
    let policy = RetryPolicy { timeout: Duration::from_millis(50), ..QUICK };
    let result = import(&args, policy, CancellationToken::new()).await;
    assert!(matches!(result, Err(ImportError::Unreachable { .. })), "{result:?}");
    assert!(fake.state().batches > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_fails_and_lists_the_entries_if_any_were_rejected() {
    let (_fake, url) = FakeServer::start().await;
    let dir = TempDir::new().unwrap();
    let command = |file: PathBuf| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_allocator"));
        command.arg("import").arg(file).args(["--url", &url]);
        command
    };
    let good = command(write(&dir, "good.pb", &ballots(3))).output().await.unwrap();
    assert!(good.status.success());
    let text = String::from_utf8(good.stdout).unwrap();
    assert!(text.starts_with("3 entries read: 3 accepted, 0 repeated, 0 refused"), "{text}");

    let bad = write(&dir, "bad.pb", &format!("{}9;A;0\n", ballots(3)));
    let bad = command(bad).output().await.unwrap();
    assert_eq!(bad.status.code(), Some(1));
    let text = String::from_utf8(bad.stderr).unwrap();
    assert!(text.contains("line 16: gives no points at all\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_sends_nothing_and_prints_the_totals() {
    let dir = TempDir::new().unwrap();
    let file = write(&dir, "x.pb", &ballots(3));
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_allocator"))
        .arg("import")
        .arg(file)
        .args(["--dry-run", "--url", "http://127.0.0.1:1"])
        .output()
        .await
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("3 ballots read, 0 refused\n"), "{text}");
    let rows: Vec<Vec<&str>> =
        text.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
    let expected =
        [["green", "20001", "66.67"], ["sport", "9999", "33.33"], ["3", "people", "counted"]];
    assert_eq!(rows, expected);
}
