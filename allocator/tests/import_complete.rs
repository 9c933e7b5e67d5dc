//! `allocator import` reads everything or says what it did not, and says what it leaves counted.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use running::{Running, shell, start};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs an import to its end. Fails if it hangs.
async fn import(file: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_allocator"));
    command.arg("import").arg(file).args(more).kill_on_drop(true);
    tokio::time::timeout(TIMEOUT, command.output()).await.unwrap().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The part of the output that says what is left counted.
fn people(output: &Output) -> String {
    stdout(output).lines().skip(1).collect::<Vec<_>>().join("\n")
}

/// A running allocator with a budget of the categories `a` and `b`, in which a person is optional.
fn start_with_budget(data: &TempDir) -> Running {
    let running = start(data.path());
    let definition = json!({
        "name": "B",
        "categories": [{"id": "a", "name": "A"}, {"id": "b", "name": "B"}],
        "identity": "optional",
    });
    let authorization = running.authorization();
    let put = format!("curl -s -X PUT -H '{authorization}' -H 'Content-Type: application/json'");
    shell(&format!("{put} {}/v1/budgets/b -d '{definition}'", running.url));
    running
}

/// Waits until the API serves this number of people, and these totals of `a` and `b`.
fn wait_for(running: &Running, people: u64, totals: (u64, u64)) {
    let started = Instant::now();
    loop {
        let aggregate = shell(&format!("curl -s {}/v1/budgets/b/aggregate", running.url));
        let total = |index: usize| aggregate["categories"][index]["total_basis_points"].as_u64();
        let (a, b) = (total(0).unwrap(), total(1).unwrap());
        if aggregate["people"] == people && (a, b) == totals {
            return;
        }
        assert!(started.elapsed() < TIMEOUT, "{aggregate}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_person_of_a_file_with_mixed_line_endings_is_counted() {
    let data = TempDir::new().unwrap();
    let running = start_with_budget(&data);
    let file = data.path().join("x.csv");
    let more = ["--budget", "b", "--url", &running.url];
    fs::write(&file, "person,a,b\np-1,50,50\np-2,40,60\rp-3,10,90\np-4,0,100\n").unwrap();
    let imported = import(&file, &more).await;
    assert!(imported.status.success(), "{imported:?}");
    assert!(
        stdout(&imported).starts_with("4 entries read: 4 accepted, 0 repeated, 0 refused, in ")
    );
    assert!(stdout(&imported).ends_with("\n4 people counted\n"));
    wait_for(&running, 4, (10_000, 30_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_an_import_and_the_api_have_the_same_numbers() {
    let data = TempDir::new().unwrap();
    let running = start_with_budget(&data);
    let more = ["--budget", "b", "--url", &running.url];
    let csv = "person,a,b\np,60,40\np,50,50\nq,x,100\np,30,70\n\"r\",100,0\nr,0,\"100\n";
    let id = "0198d2a5-0000-7000-8000-000000000001";
    let with_id = |person: &str, a: u64| {
        json!({"person": person, "submission_id": id, "allocation": {"a": a, "b": 100 - a}})
            .to_string()
    };
    let anonymous = |a: u64| json!({"allocation": {"a": a, "b": 100 - a}}).to_string();
    let other_sum = json!({"person": "t", "allocation": {"a": 50}}).to_string();
    let ndjson = [
        with_id("s", 20),
        json!({"person": "s", "allocation": {"a": 70, "b": 30}}).to_string(),
        with_id("s", 20),
        with_id("s", 30),
        anonymous(50),
        other_sum,
        anonymous(50),
    ];
    let cases = [
        ("x.csv", csv.to_owned(), 4, 2, 2, (13_000, 7_000)),
        ("x.ndjson", ndjson.join("\n"), 5, 2, 3, (17_000, 13_000)),
    ];
    let (mut people_before, mut before) = (0, (0, 0));
    for (name, text, read, refused, counted, (a, b)) in cases {
        let file = data.path().join(name);
        fs::write(&file, text).unwrap();
        let dry = import(&file, &["--dry-run", "--url", "http://127.0.0.1:1"]).await;
        let imported = import(&file, &more).await;
        assert_eq!((dry.status.code(), imported.status.code()), (Some(1), Some(1)), "{imported:?}");
        assert!(stdout(&dry).starts_with(&format!("{read} ballots read, {refused} refused\n")));
        let summary = stdout(&imported);
        assert!(summary.contains(&format!("{} entries read: ", read + refused)), "{summary}");
        assert!(summary.contains(&format!(", {refused} refused, in ")), "{summary}");
        assert!(stderr(&imported).ends_with(&stderr(&dry)), "{dry:?} {imported:?}");
        assert_eq!(people(&dry), people(&imported));
        assert!(stdout(&dry).ends_with(&format!("\n{counted} people counted\n")), "{dry:?}");
        let expected = [["a", &a.to_string()], ["b", &b.to_string()]];
        let printed = people(&imported);
        for (row, [id, total]) in printed.lines().skip(1).zip(expected) {
            assert_eq!(row.split_whitespace().take(2).collect::<Vec<_>>(), [id, total]);
        }
        // The files have different people, so their totals add up.
        let (all, (a_before, b_before)) = (people_before + counted, before);
        wait_for(&running, all, (a_before + a, b_before + b));
        (people_before, before) = (all, (a_before + a, b_before + b));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_file_of_anonymous_entries_adds_only_what_is_new() {
    let data = TempDir::new().unwrap();
    let running = start_with_budget(&data);
    let more = ["--budget", "b", "--url", &running.url];
    let (wrong, right) = (data.path().join("x.ndjson"), data.path().join("corrected.ndjson"));
    let line = |a: u64, b: u64| format!("{{\"allocation\":{{\"a\":{a},\"b\":{b}}}}}\n");
    let (first, last) = (line(40, 60).repeat(3), line(70, 30));
    fs::write(&wrong, format!("{first}{}{last}", line(50, 51))).unwrap();
    let by_content = [&more[..], &["--anonymous-ids", "content"]].concat();
    assert_eq!(import(&wrong, &by_content).await.status.code(), Some(1));
    wait_for(&running, 4, (19_000, 21_000));

    fs::write(&right, format!("{last}{first}{}", line(50, 50))).unwrap();
    let corrected = import(&right, &by_content).await;
    assert!(corrected.status.success());
    let text = stdout(&corrected);
    assert!(text.starts_with("5 entries read: 1 accepted, 4 repeated, 0 refused, in "), "{text}");
    assert!(text.ends_with("\n5 people counted\n"), "{text}");
    assert!(stderr(&corrected).contains("4 entries without a person had been counted before"));
    wait_for(&running, 5, (24_000, 26_000));

    // Other people with equal entries are told apart by their file.
    let other = data.path().join("other.ndjson");
    fs::write(&other, line(40, 60)).unwrap();
    for counts in ["1 accepted, 0 repeated", "0 accepted, 1 repeated"] {
        let imported = import(&other, &more).await;
        assert!(stdout(&imported).contains(counts), "{imported:?}");
        wait_for(&running, 6, (28_000, 32_000));
    }
}

#[tokio::test]
async fn what_cannot_be_read_twice_is_refused_before_it_is_opened() {
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe.as_path(), Path::new("/dev/zero"), dir.path()] {
        // A pipe without a writer would hang until the timeout.
        let refused = import(path, &["--format", "csv", "--dry-run"]).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains("is not a regular file"), "{refused:?}");
    }
}

/// Builds a Pabulib file that declares counts.
fn pabulib(projects: u64, votes: u64) -> String {
    format!(
        "META\nkey;value\nunit;Smalltown\ninstance;2031\nnum_projects;{projects}\nnum_votes;{votes}\n\
         vote_type;cumulative\nPROJECTS\nproject_id;category\nA;green\nB;sport\nVOTES\nvoter_id;vote;points\n\
         1;A;1\n2;B;1\n3;A;\n"
    )
}

#[tokio::test]
async fn a_file_with_other_counts_than_it_declares_is_refused_unless_accepted() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("x.pb");
    let mut results = Vec::<Value>::new();
    for (projects, votes) in [(2, 3), (2, 4), (3, 3), (3, 2)] {
        fs::write(&file, pabulib(projects, votes)).unwrap();
        let dry = import(&file, &["--dry-run"]).await;
        let accepted = import(&file, &["--dry-run", "--accept-wrong-counts"]).await;
        assert!(stdout(&accepted).starts_with("2 ballots read, 1 refused\n"));
        let (projects_wrong, votes_wrong) = (projects != 2, votes != 3);
        for (is_wrong, line, key, declared, found) in [
            (projects_wrong, 5, "num_projects", projects, 2),
            (votes_wrong, 6, "num_votes", votes, 3),
        ] {
            let fault =
                format!("line {line}: META declares {key} `{declared}`, but the file has {found}");
            for output in [&dry, &accepted] {
                assert_eq!(stderr(output).contains(&fault), is_wrong, "{output:?}");
            }
        }
        results.push(json!([dry.status.code(), stdout(&dry).is_empty()]));
    }
    // The first file is as declared; its third ballot has no points.
    assert_eq!(results, [json!([1, false]), json!([1, true]), json!([1, true]), json!([1, true])]);
}
