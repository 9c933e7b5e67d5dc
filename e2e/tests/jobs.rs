//! `processor jobs` and `allocator jobs` under load, with killed processors.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::audit;
use e2e::embedded::Embedded;
use e2e::load::Crowd;
use e2e::operator::{Operator, expect_success, wait_for_exit};
use e2e::process::Signal;
use e2e::scenario::{scenario, scenario_within};
use e2e::stack::{Stack, StackBuilder};
use e2e::wait::eventually;
use rusqlite::Connection;

const BUDGET: &str = "rebuilt";
const CATEGORIES: usize = 10;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);
const STATE_TIMEOUT: Duration = Duration::from_secs(60);

/// Stores a job of a kind that this release does not know.
fn write_unreadable(embedded: &Embedded, id: &str) -> Result<()> {
    let store = Connection::open(embedded.data.join("store.db"))?;
    store.busy_timeout(STATE_TIMEOUT)?;
    let id = u128::from_str_radix(&id.replace('-', ""), 16)?.to_be_bytes();
    let insert = "INSERT INTO jobs (id, revision, job) VALUES (?1, 1, ?2)";
    store.execute(insert, (id, r#"{"kind": "dance"}"#))?;
    Ok(())
}

/// Parses the first word of a command's output: the id of the submitted job.
fn id(output: &str) -> Result<String> {
    Ok(output.split_whitespace().next().context("no id")?.to_owned())
}

/// Returns the value of a field in the output of `jobs show`.
fn field<'s>(name: &str, output: &'s str) -> Result<&'s str> {
    let line = output.lines().find_map(|line| line.trim_start().strip_prefix(name));
    Ok(line.with_context(|| format!("no field {name}: {output}"))?.trim_start())
}

/// Returns the process id of the job's worker.
fn worker_pid(output: &str) -> Result<u32> {
    Ok(field("worker", output)?.split('-').next().context("no process")?.parse()?)
}

#[test]
fn a_rebuild_job_survives_its_killed_processor_and_builds_one_new_generation() {
    scenario_within(Duration::from_secs(240), async || {
        // Long enough that the partitions of the processor stopped below stay unowned until another one is killed.
        let builder =
            StackBuilder { processors: 3, session_timeout_ms: 20_000, ..Stack::builder() };
        let mut stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        load.wait_for_acknowledgements(500).await?;

        let operator = Operator::for_stack(&stack)?;
        // The rebuild cannot complete before another processor has taken over the stopped one's partitions.
        stack.processors[0].process.signal(Signal::Stop)?;
        let id = id(&operator
            .run(&["jobs", "submit", "rebuild", "--priority", "high"], COMMAND_TIMEOUT)
            .await?)?;
        let output = eventually("the job is running", STATE_TIMEOUT, async || {
            let output = operator.run(&["jobs", "show", &id], COMMAND_TIMEOUT).await?;
            ensure!(field("state", &output)? == "running", "{output}");
            let generations = operator.run(&["generations", "list"], COMMAND_TIMEOUT).await?;
            ensure!(generations.contains("generation 2  building"), "{generations}");
            Ok(output)
        })
        .await?;
        let killed = worker_pid(&output)?;
        let at = stack.processors.iter().position(|it| it.process.pid() == killed);
        stack
            .processors
            .remove(at.context("the worker is no processor of the stack")?)
            .process
            .kill()?;
        // The stopped processor resumes while another processor runs the job.
        stack.processors[0].process.signal(Signal::Continue)?;

        let output = eventually("the job has succeeded", COMMAND_TIMEOUT, async || {
            let output = operator.run(&["jobs", "show", &id], COMMAND_TIMEOUT).await?;
            ensure!(field("state", &output)? == "succeeded", "{output}");
            Ok(output)
        })
        .await?;
        ensure!(worker_pid(&output)? != killed, "{output}");
        ensure!(field("attempts", &output)? == "2 of 5", "{output}");
        ensure!(
            field("failed", &output)?.contains("its worker stopped renewing the lease"),
            "{output}"
        );
        ensure!(field("verdict", &output)? == "clean", "{output}");
        ensure!(field("result", &output)?.starts_with("generation 2 answers now"), "{output}");
        let generations = operator.run(&["generations", "list"], COMMAND_TIMEOUT).await?;
        ensure!(generations.contains("GENERATIONS term=2 answers=2"), "{generations}");
        ensure!(generations.matches("generation ").count() == 2, "{generations}");

        load.wait_for_acknowledgements(100).await?;
        let ledger = load.stop().await?;
        ledger.verify_counted(&stack, BUDGET, CATEGORIES).await?;
        let watched = ["jobs", "submit", "audit", "--watch", "--priority", "critical"];
        let output = operator.run(&watched, COMMAND_TIMEOUT).await?;
        ensure!(output.contains("0 differences"), "{output}");
        stack.keys().await?.flush().await?;
        operator.run(&["jobs", "submit", "warm-caches", "--watch"], COMMAND_TIMEOUT).await?;
        audit::exact(&stack, BUDGET, CATEGORIES).await.map(drop)
    });
}

#[test]
fn jobs_of_the_embedded_default_are_submitted_listed_cancelled_and_refused() {
    scenario(async || {
        let embedded = Embedded::start().await?;
        embedded.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&embedded.system);
        load.wait_for_acknowledgements(200).await?;
        let operator = Operator::for_embedded(&embedded);
        let rebuild = operator.start(&["jobs", "submit", "rebuild", "--watch"])?;
        let output = expect_success(rebuild, COMMAND_TIMEOUT).await?;
        ensure!(output.contains("generation 2 answers now; compared with 1"), "{output}");

        // A previous generation exists, so another rebuild fails and names the reason.
        let again = operator.start(&["jobs", "submit", "rebuild", "--watch"])?;
        let (code, output) = wait_for_exit(again, COMMAND_TIMEOUT).await?;
        ensure!(
            code == Some(2) && output.contains("retire it first"),
            "ended with {code:?}: {output}"
        );
        let id = id(&output)?;
        let (code, output) =
            wait_for_exit(operator.start(&["jobs", "cancel", &id])?, COMMAND_TIMEOUT).await?;
        ensure!(code == Some(2) && output.contains("the job has ended: it is dead"), "{output}");
        operator.run(&["generations", "retire"], COMMAND_TIMEOUT).await?;
        operator.run(&["jobs", "retry", &id], COMMAND_TIMEOUT).await?;
        eventually("the job has succeeded", COMMAND_TIMEOUT, async || {
            let output = operator.run(&["jobs", "list"], COMMAND_TIMEOUT).await?;
            ensure!(output.contains("JOBS queued=0 running=0 succeeded=2 dead=0"), "{output}");
            Ok(())
        })
        .await?;
        let newer = "00000000-0000-8000-8000-000000000007";
        write_unreadable(&embedded, newer)?;
        let output = operator.run(&["jobs", "list"], COMMAND_TIMEOUT).await?;
        ensure!(output.contains(&format!("{newer}  cannot be read")), "{output}");
        ensure!(output.contains(" unreadable=1"), "{output}");
        let (code, output) =
            wait_for_exit(operator.start(&["jobs", "delete", &id])?, COMMAND_TIMEOUT).await?;
        ensure!(code == Some(2) && output.contains("is readable: cancel it instead"), "{output}");
        operator.run(&["jobs", "delete", newer], COMMAND_TIMEOUT).await?;
        let output = operator.run(&["jobs", "list"], COMMAND_TIMEOUT).await?;
        ensure!(output.contains(" unreadable=0"), "{output}");
        load.wait_for_acknowledgements(50).await?;
        let ledger = load.stop().await?;
        let totals = ledger.totals(CATEGORIES);
        embedded
            .system
            .wait_until_shown(BUDGET, &totals, STATE_TIMEOUT)
            .await
            .context("after the rebuilds")
    });
}
