//! `allocator import` against a server that fails: everything arrives, and nobody counts twice.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use allocator::import::{Counts, ImportArgs, ImportError, RetryPolicy, import};
use clap::Parser;
use serde_json::{Value, json};
use support::{Failing, Fake};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const QUICK: RetryPolicy = RetryPolicy {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(5),
    patience: Duration::from_secs(60),
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

/// A file of so many voters, each with one point for each of three projects in two categories.
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
async fn a_files_budget_is_created_and_each_ballot_arrives_as_exact_percentages() {
    let (fake, url) = Fake::start().await;
    let dir = TempDir::new().unwrap();
    let counts = run(&write(&dir, "x.pb", &ballots(2500)), &url, &[]).await.unwrap();
    assert_eq!(counts, Counts { accepted: 2500, ..Counts::default() });
    let served = fake.served();
    let expected = json!({
        "name": "Smalltown 2031",
        "categories": [{"id": "green", "name": "green"}, {"id": "sport", "name": "sport"}],
    });
    assert_eq!(served.budgets["smalltown-2031"], expected);
    let people = served.people();
    assert_eq!(people.len(), 2500);
    assert_eq!(people["smalltown-2031:17"].to_string(), r#"{"green":66.67,"sport":33.33}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_on_the_way_everyone_arrives_once() {
    let (fake, url) = Fake::start().await;
    fake.served().failing.extend([
        Failing::With(503),
        Failing::AfterTaking,
        Failing::HalfOfTheItems,
        Failing::With(429),
        Failing::HalfOfTheItems,
        Failing::AfterTaking,
        Failing::With(502),
    ]);
    let dir = TempDir::new().unwrap();
    let file = write(&dir, "x.pb", &ballots(5000));
    let counts = run(&file, &url, &["--concurrency", "3"]).await.unwrap();
    assert_eq!((counts.accepted + counts.repeated, counts.refused), (5000, 0));
    assert!(counts.repeated > 0, "what was taken before a connection broke was there before");
    let served = fake.served();
    assert_eq!((served.taken.len(), served.people().len()), (5000, 5000));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_file_again_repeats_the_same_submissions_under_any_name() {
    let (fake, url) = Fake::start().await;
    let dir = TempDir::new().unwrap();
    run(&write(&dir, "x.pb", &ballots(1200)), &url, &[]).await.unwrap();
    let again = write(&dir, "renamed.pb", &ballots(1200));
    let counts = run(&again, &url, &["--concurrency", "1"]).await.unwrap();
    assert_eq!(counts, Counts { repeated: 1200, ..Counts::default() });
    assert_eq!(fake.served().taken.len(), 1200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_stopped_goes_on_where_it_was() {
    let (fake, url) = Fake::start().await;
    let stop = CancellationToken::new();
    fake.served().stop_after = Some((3, stop.clone()));
    let dir = TempDir::new().unwrap();
    let args = args(&write(&dir, "x.pb", &ballots(9000)), &url, &["--concurrency", "2"]);
    let stopped = import(&args, QUICK, stop).await;
    assert!(matches!(stopped, Err(ImportError::Stopped)), "{stopped:?}");
    let sent = fake.served().taken.len() as u64;
    assert!((3000..9000).contains(&sent), "{sent}");
    fake.served().stop_after = None;
    let counts = import(&args, QUICK, CancellationToken::new()).await.unwrap();
    assert_eq!(counts, Counts { accepted: 9000 - sent, repeated: sent, refused: 0 });
    assert_eq!(fake.served().people().len(), 9000);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_persons_submissions_keep_their_order_through_every_failure() {
    let (fake, url) = Fake::start().await;
    fake.served().budgets.insert("b".to_owned(), json!({"categories": [{"id": "x"}, {"id": "y"}]}));
    fake.served().failing.extend([Failing::HalfOfTheItems, Failing::AfterTaking].repeat(10));
    let mut text = String::new();
    for turn in 0..=100 {
        for person in 0..20 {
            let allocation = json!({"x": turn, "y": 100 - turn});
            writeln!(text, "{}", json!({"person": format!("p{person}"), "allocation": allocation}))
                .unwrap();
        }
    }
    let dir = TempDir::new().unwrap();
    let file = write(&dir, "x.ndjson", &text);
    run(&file, &url, &["--budget", "b", "--concurrency", "4"]).await.unwrap();
    let served = fake.served();
    let mut turns: HashMap<String, Vec<u64>> = HashMap::new();
    for item in &served.taken {
        let person = item["person"].as_str().unwrap().to_owned();
        turns.entry(person).or_default().push(item["allocation"]["x"].as_u64().unwrap());
    }
    assert_eq!(turns.len(), 20);
    for turns in turns.values() {
        assert_eq!(*turns, (0..=100).collect::<Vec<u64>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_or_the_reader_refuses_is_counted_and_spoils_no_other() {
    let (fake, url) = Fake::start().await;
    let budget = json!({"categories": [{"id": "x"}, {"id": "y"}, {"id": "z"}]});
    fake.served().budgets.insert("b".to_owned(), budget);
    let text = "person,x,y\np-1,40,60\nunwanted,40,60\np-2,40,61\np-3,0,100\n";
    let dir = TempDir::new().unwrap();
    let counts = run(&write(&dir, "x.csv", text), &url, &["--budget", "b"]).await.unwrap();
    assert_eq!(counts, Counts { accepted: 2, repeated: 0, refused: 2 });
    let expected: HashMap<String, Value> = HashMap::from([
        ("p-1".to_owned(), json!({"x": 40.0, "y": 60.0})),
        ("p-3".to_owned(), json!({"y": 100.0})),
    ]);
    assert_eq!(fake.served().people(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_file_that_breaks_off_is_sent() {
    let (fake, url) = Fake::start().await;
    let dir = TempDir::new().unwrap();
    let file = write(&dir, "x.pb", &format!("{}7001;\"A", ballots(3000)));
    let error = run(&file, &url, &[]).await.unwrap_err().to_string();
    assert!(error.ends_with("line 3013: has a quote that is not closed"), "{error}");
    assert!(fake.served().budgets.is_empty());
    assert_eq!(fake.served().batches, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_with_other_categories_is_left_alone() {
    let (fake, url) = Fake::start().await;
    let budget = json!({"categories": [{"id": "green"}, {"id": "x"}]});
    fake.served().budgets.insert("smalltown-2031".to_owned(), budget);
    let dir = TempDir::new().unwrap();
    let file = write(&dir, "x.pb", &ballots(3));
    let error = run(&file, &url, &[]).await.unwrap_err().to_string();
    assert!(error.contains("only in the file: `sport`; only in the budget: `x`"), "{error}");
    assert_eq!(fake.served().batches, 0);
    run(&file, &url, &["--budget", "other"]).await.unwrap();
    assert_eq!(fake.served().people().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_created_with_the_administrators_token() {
    let (fake, url) = Fake::start().await;
    fake.served().token = Some("letmein".to_owned());
    let dir = TempDir::new().unwrap();
    let (file, token) = (write(&dir, "x.pb", &ballots(3)), write(&dir, "token", "letmein\n"));
    let error = run(&file, &url, &[]).await.unwrap_err();
    assert!(matches!(&error, ImportError::Refused(why) if why.contains("--token-file")), "{error}");
    run(&file, &url, &["--token-file", token.to_str().unwrap()]).await.unwrap();
    assert_eq!(fake.served().people().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_takes_anything_is_given_up() {
    let (fake, url) = Fake::start().await;
    fake.served().always = Some(Failing::With(503));
    let dir = TempDir::new().unwrap();
    let args = args(&write(&dir, "x.pb", &ballots(3)), &url, &[]);
    let policy = RetryPolicy { patience: Duration::from_millis(50), ..QUICK };
    let given_up = import(&args, policy, CancellationToken::new()).await;
    assert!(matches!(given_up, Err(ImportError::Unreachable { .. })), "{given_up:?}");
    assert!(fake.served().batches > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_fails_when_anything_was_refused_and_says_what() {
    let (_fake, url) = Fake::start().await;
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
    assert_eq!(rows, [["green", "20001", "66.67"], ["sport", "9999", "33.33"]]);
}
