//! The persons of a closed budget are forgotten: nobody is found again, and every number stays.
#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use running::{Running, shell, start};
use serde_json::Value;
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(60);
const JSON: &str = "-H 'content-type: application/json'";

fn run(data: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_allocator"))
        .args(arguments)
        .args(["--set", &format!("sqlite.dir={}", data.display())])
        .current_dir(data)
        .output()
        .unwrap()
}

fn define(running: &Running, members: &str) -> Value {
    shell(&format!(
        "curl -s -X PUT {}/v1/budgets/town -H '{}' {JSON} -d '{{\"name\": \"Town\", \"identity\": \"code\", \
         \"categories\": [{{\"id\": \"a\", \"name\": \"A\"}}, {{\"id\": \"b\", \"name\": \"B\"}}]{members}}}'",
        running.url,
        running.authorization(),
    ))
}

fn get(running: &Running, path: &str, header: &str) -> Value {
    shell(&format!("curl -s '{}/v1/budgets/town{path}' -H '{header}'", running.url))
}

fn wait_for(
    what: &str,
    mut read: impl FnMut() -> Value,
    reached: impl Fn(&Value) -> bool,
) -> Value {
    let started = Instant::now();
    loop {
        let found = read();
        if reached(&found) {
            return found;
        }
        assert!(started.elapsed() < TIMEOUT, "{what}: {found}");
    }
}

/// Returns the salt in the stored definition of the budget, as hexadecimal digits.
fn stored_salt(data: &Path) -> Vec<u8> {
    let members = br#""id":"town""#;
    let name = br#""person_salt":""#;
    let find = |text: &[u8], wanted: &[u8]| text.windows(wanted.len()).position(|it| it == wanted);
    for file in files(data) {
        let bytes = std::fs::read(file).unwrap();
        if let Some(of_budget) = find(&bytes, members).and_then(|at| bytes.get(at..))
            && let Some(at) = find(of_budget, name)
        {
            return of_budget[at + name.len()..][..64].to_vec();
        }
    }
    panic!("no definition with a salt is stored");
}

fn files(data: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(data).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn files_with(data: &Path, wanted: &[u8]) -> Vec<std::path::PathBuf> {
    let has_it = |bytes: Vec<u8>| bytes.windows(wanted.len()).any(|window| window == wanted);
    files(data).into_iter().filter(|file| has_it(std::fs::read(file).unwrap())).collect()
}

#[test]
fn after_forgetting_nobody_is_found_and_every_number_stays() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    define(&running, "");
    let printed = run(data.path(), &["codes", "--budget", "town", "--count", "2"]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    let codes: Vec<(&str, &str)> =
        printed.lines().skip(1).map(|line| line.split_once(',').unwrap()).collect();
    let budget = format!("{}/v1/budgets/town", running.url);
    let session =
        shell(&format!("curl -s {budget}/session {JSON} -d '{{\"code\": \"{}\"}}'", codes[0].1));
    let bearer = format!("authorization: Bearer {}", session["token"].as_str().unwrap());
    let administrator = running.authorization();

    // One person is one person over all ways: a session, a service's batch, and its single submission.
    let allocation =
        |share: u32| format!(r#""allocation": {{"a": {share}, "b": {}}}"#, 100 - share);
    let accepted = shell(&format!(
        "curl -s -X PUT {budget}/submissions/me -H '{bearer}' {JSON} -d '{{{}}}'",
        allocation(10)
    ));
    assert_eq!(accepted["status"], "accepted", "{accepted}");
    let person = codes[0].1.replace('-', "")[..5].to_owned();
    let batch = shell(&format!(
        "curl -s {budget}/submissions/batch -H '{administrator}' {JSON} -d '[{{\"person\": \"{person}\", {}}}]'",
        allocation(20)
    ));
    assert_eq!(batch["results"][0]["status"], 202, "{batch}");
    let last = shell(&format!(
        "curl -s {budget}/submissions -H '{administrator}' {JSON} -d '{{\"person\": \"{person}\", {}}}'",
        allocation(30)
    ));
    let receipt = last["receipt"].as_str().unwrap();
    let counted = get(&running, &format!("/aggregate?at_least={receipt}"), "prefer: wait=10");
    assert_eq!(
        (&counted["people"], &counted["categories"][0]["total_basis_points"]),
        (&1.into(), &3_000.into())
    );
    let own = wait_for(
        "the person is found",
        || get(&running, "/submissions/me", &bearer),
        |own| own["allocation"]["a"] == 30,
    );
    assert_eq!(own["allocation"]["b"], 70);

    let forget = || run(data.path(), &["forget", "--budget", "town", "--yes"]);
    let refused = forget();
    assert!(!refused.status.success());
    assert_eq!(String::from_utf8(refused.stderr).unwrap(), "forget: the budget is not closed\n");
    let unconfirmed = run(data.path(), &["forget", "--budget", "town"]);
    assert!(!unconfirmed.status.success(), "nobody confirmed it: {unconfirmed:?}");

    let date = Command::new("date").args(["-u", "-d", "+5 seconds", "+%FT%TZ"]).output().unwrap();
    let closes_at = String::from_utf8(date.stdout).unwrap();
    define(&running, &format!(r#", "closes_at": "{}""#, closes_at.trim()));
    let last = wait_for(
        "the result is final",
        || get(&running, "/aggregate", "x: y"),
        |found| found["final"] == true,
    );
    let salt = stored_salt(data.path());
    assert!(!files_with(data.path(), &salt).is_empty());

    let signals = || {
        let connection = rusqlite::Connection::open(data.path().join("signals.db")).unwrap();
        let rows = connection.query_row("SELECT count(*) FROM signals", [], |row| row.get(0));
        Value::from(rows.unwrap_or(0_i64))
    };
    wait_for("there are signals", signals, |rows| rows != 0);

    // While the service runs, by another process.
    let forgotten = forget();
    assert!(forgotten.status.success(), "{forgotten:?}");
    let text = String::from_utf8(forgotten.stdout).unwrap();
    assert!(text.starts_with("the persons of `town` were forgotten at "), "{text}");
    assert_eq!(files_with(data.path(), &salt), Vec::<std::path::PathBuf>::new());
    assert_eq!(signals(), 0, "they have keys of persons");
    assert_eq!(String::from_utf8(forget().stdout).unwrap(), text, "repeated, it does nothing");

    let is_forgotten =
        |found: &Value| found["type"] == "/problems/forgotten" && found["status"] == 410;
    wait_for("the service notices it", || get(&running, "/submissions/me", &bearer), is_forgotten);
    let someone = format!("/submissions/{person}");
    for header in [&bearer, &administrator, "x: y"] {
        for path in ["/submissions/me", &someone] {
            let found = get(&running, path, header);
            assert!(is_forgotten(&found), "{path}: {found}");
        }
    }
    let session =
        shell(&format!("curl -s {budget}/session {JSON} -d '{{\"code\": \"{}\"}}'", codes[1].1));
    assert!(is_forgotten(&session), "{session}");
    let late = shell(&format!(
        "curl -s {budget}/submissions -H '{administrator}' {JSON} -d '{{\"person\": \"{person}\", {}}}'",
        allocation(40)
    ));
    assert_eq!(late["status"], 409, "{late}");
    let reopened = define(&running, "");
    assert!(is_forgotten(&reopened), "{reopened}");
    let deleted = shell(&format!("curl -s -X DELETE {budget} -H '{administrator}'"));
    assert!(is_forgotten(&deleted), "{deleted}");
    let repeated = shell(&format!(
        "curl -s -X POST {}/v1/admin/budgets/town/forget -H '{administrator}'",
        running.url
    ));
    assert_eq!(repeated["is_erased"], true, "{repeated}");
    let definition = get(&running, "", "x: y");
    assert_eq!(definition["forgotten_at"], repeated["forgotten_at"], "{definition}");
    assert_eq!((definition.get("person_salt"), definition.get("requires")), (None, None));
    let now = get(&running, "/aggregate", "x: y");
    assert_eq!((&now["version"], &now["categories"]), (&last["version"], &last["categories"]));

    // The numbers are exact without the salt: by an audit, and by a rebuild.
    for command in ["audit", "rebuild", "audit"] {
        let done = run(data.path(), &[command]);
        assert!(done.status.success(), "{command}: {done:?}");
    }
    drop(running);
    let running = start(data.path());
    let rebuilt = wait_for(
        "the result is final",
        || get(&running, "/aggregate", "x: y"),
        |found| found["final"] == true,
    );
    assert_eq!(
        (&rebuilt["people"], &rebuilt["categories"]),
        (&last["people"], &last["categories"])
    );
    assert!(is_forgotten(&get(&running, "/submissions/me", &bearer)));
    assert_eq!(files_with(data.path(), &salt), Vec::<std::path::PathBuf>::new());
}

#[test]
fn without_the_definitions_a_log_is_not_continued_since_everyone_would_be_a_new_person() {
    let data = TempDir::new().unwrap();
    drop(start(data.path()));
    for file in files(data.path()) {
        if file.file_name().unwrap().to_str().unwrap().starts_with("definitions.db") {
            std::fs::remove_file(file).unwrap();
        }
    }
    let refused = running::command(data.path()).output().unwrap();
    let reason = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && reason.contains("definitions.db is missing"), "{reason}");
    assert!(!data.path().join("definitions.db").exists());
}

#[test]
fn an_empty_file_of_definitions_is_not_filled_anew_over_a_log_with_records() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let accepted = shell(&format!(
        "curl -s {}/v1/budgets/taxes/submissions {JSON} -d '{{\"person\": \"p-1\", \"allocation\": {{\"health\": 100}}}}'",
        running.url
    ));
    assert_eq!(accepted["status"], "accepted", "{accepted}");
    drop(running);
    let file = data.path().join("definitions.db");
    rusqlite::Connection::open(file).unwrap().execute("DELETE FROM history", []).unwrap();
    let refused = running::command(data.path()).output().unwrap();
    let reason = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && reason.contains("has no definition"), "{reason}");

    // A log without a record needs none: the process may have died before it defined any.
    for file in files(data.path()) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("log.db") || name.starts_with("store.db") {
            std::fs::remove_file(file).unwrap();
        }
    }
    let running = start(data.path());
    wait_for(
        "the default budget is defined",
        || shell(&format!("curl -s {}/v1/budgets/taxes", running.url)),
        |found| found["id"] == "taxes",
    );
}
