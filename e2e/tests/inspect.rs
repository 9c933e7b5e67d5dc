//! The commands of `docs/operations/inspect.md` show what is stored. Those of Kafka's tools are not run.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::documents::commands;
use e2e::embedded::Embedded;
use e2e::scenario::scenario;
use e2e::stack::Stack;
use e2e::system::System;
use e2e::wait::eventually;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tokio::process::Command;

const DOCUMENT: &str = "docs/operations/inspect.md";
const BUDGET: &str = "taxes";
const PEOPLE: usize = 200;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the document's commands that begin with a word.
fn commands_of(tool: &str) -> Result<Vec<String>> {
    let mut found = commands(DOCUMENT)?;
    found.retain(|line| line.starts_with(&format!("{tool} ")));
    ensure!(!found.is_empty(), "{DOCUMENT} has no command of {tool}");
    Ok(found)
}

/// Runs a line in a shell that has a function, and returns what it prints.
async fn shell(function: &str, line: &str) -> Result<String> {
    let script = format!("{function}\n{line}");
    let output = Command::new("sh").args(["-c", &script]).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

async fn submit_people(system: &System) -> Result<()> {
    let people = (0..PEOPLE)
        .map(|person| json!({"person": format!("p-{person}"), "allocation": {"health": 100}}));
    let batch: Value = people.collect();
    let path = format!("/v1/budgets/{BUDGET}/submissions/batch");
    system.post(&path, &batch).await?.expect(200)?;
    eventually("everyone is counted", TIMEOUT, async || {
        let aggregate = system.get("/aggregate/").await?;
        ensure!(aggregate.json()?["people"] == PEOPLE, "{}", aggregate.text());
        Ok(())
    })
    .await
}

#[test]
fn the_commands_for_the_tables_and_the_cache_show_what_is_stored() {
    scenario(async || {
        let stack = Stack::builder().start().await?;
        stack.system.wait_until_known(BUDGET, TIMEOUT).await?;
        submit_people(&stack.system).await?;
        let tables = stack.tables().await?;
        for line in commands_of("cql")? {
            let statement = shell("cql() { printf %s \"$1\"; }", &line).await?;
            let rows = tables.count_rows(&statement).await.with_context(|| statement.clone())?;
            // Nobody has started a job, and a bucket of one partition may have nobody.
            let may_be_empty =
                ["FROM jobs", "FROM allocations"].iter().any(|part| statement.contains(part));
            ensure!(rows > 0 || may_be_empty, "nothing is shown by {statement}");
        }
        let redis = format!("redis() {{ redis-cli -u {} \"$@\"; }}", stack.redis.url());
        for line in commands_of("redis")? {
            // It shows nothing until something changes, and does not end.
            if line.starts_with("redis SUBSCRIBE ") {
                continue;
            }
            let shown = shell(&redis, &line).await?;
            ensure!(!shown.trim().is_empty(), "nothing is shown by {line}");
        }
        Ok(())
    });
}

#[test]
fn the_commands_for_the_files_of_the_embedded_default_show_what_is_stored() {
    scenario(async || {
        let embedded = Embedded::start().await?;
        submit_people(&embedded.system).await?;
        let folder = embedded.data.parent().unwrap_or(Path::new("/"));
        for line in commands_of("sqlite3")? {
            let words = shell("sqlite3() { printf '%s\\n%s' \"$2\" \"$3\"; }", &line).await?;
            let (file, statement) = words.split_once('\n').context("no statement")?;
            let connection =
                Connection::open_with_flags(folder.join(file), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let mut statement = connection.prepare(statement).with_context(|| line.clone())?;
            ensure!(statement.exists([])?, "nothing is shown by {line}");
        }
        Ok(())
    });
}
