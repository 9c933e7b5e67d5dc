//! `processor jobs` and `allocator jobs`, while people submit and processors die.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::audit;
use e2e::embedded::Embedded;
use e2e::load::Crowd;
use e2e::operator::{Operator, ended, ended_well};
use e2e::process::Signal;
use e2e::scenario::{scenario, scenario_within};
use e2e::stack::{Stack, StackBuilder};
use e2e::wait::eventually;
use rusqlite::Connection;

const BUDGET: &str = "rebuilt";
const CATEGORIES: usize = 10;
const BOUND: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(20);

/// Stores a job of a kind that only a newer release knows.
fn write_unreadable(embedded: &Embedded, id: &str) -> Result<()> {
    let store = Connection::open(embedded.data.join("store.db"))?;
    store.busy_timeout(SOON)?;
    let id = u128::from_str_radix(&id.replace('-', ""), 16)?.to_be_bytes();
    let insert = "INSERT INTO jobs (id, revision, job) VALUES (?1, 1, ?2)";
    store.execute(insert, (id, r#"{"kind": "dance"}"#))?;
    Ok(())
}

/// The first word of what a command says: the id of the job that it asked for.
fn id(said: &str) -> Result<String> {
    Ok(said.split_whitespace().next().context("no id")?.to_owned())
}

/// What `jobs show` says behind a word; of a worker, its process id.
fn said_of<'s>(what: &str, said: &'s str) -> Result<&'s str> {
    let line = said.lines().find_map(|line| line.trim_start().strip_prefix(what));
    Ok(line.with_context(|| format!("nothing of {what}: {said}"))?.trim_start())
}

fn worker(said: &str) -> Result<u32> {
    Ok(said_of("worker", said)?.split('-').next().context("no process")?.parse()?)
}

#[test]
fn a_rebuild_whose_processor_is_killed_goes_on_elsewhere_and_makes_one_new_generation() {
    scenario_within(Duration::from_secs(240), async || {
        // Long enough for what is stopped below to be missed by a rebuild until another processor is killed.
        let builder =
            StackBuilder { processors: 3, session_timeout_ms: 20_000, ..Stack::builder() };
        let mut stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        load.goes_on_for(500).await?;

        let operator = Operator::of_stack(&stack)?;
        // What this one has is not compared before somebody else has it: the rebuild cannot be done yet.
        stack.processors[0].process.signal(Signal::Stop)?;
        let id = id(&operator
            .does(&["jobs", "submit", "rebuild", "--priority", "high"], BOUND)
            .await?)?;
        let said = eventually("it is begun", SOON, async || {
            let said = operator.does(&["jobs", "show", &id], BOUND).await?;
            ensure!(said_of("state", &said)? == "running", "{said}");
            let generations = operator.does(&["generations", "list"], BOUND).await?;
            ensure!(generations.contains("generation 2  building"), "{generations}");
            Ok(said)
        })
        .await?;
        let killed = worker(&said)?;
        let at = stack.processors.iter().position(|it| it.process.pid() == killed);
        stack.processors.remove(at.context("nobody's worker")?).process.kill()?;
        // It comes back in the middle of what somebody else does now.
        stack.processors[0].process.signal(Signal::Continue)?;

        let said = eventually("it is done", BOUND, async || {
            let said = operator.does(&["jobs", "show", &id], BOUND).await?;
            ensure!(said_of("state", &said)? == "succeeded", "{said}");
            Ok(said)
        })
        .await?;
        ensure!(worker(&said)? != killed, "{said}");
        ensure!(said_of("attempts", &said)? == "2 of 5", "{said}");
        ensure!(said_of("failed", &said)?.contains("its worker fell silent"), "{said}");
        ensure!(said_of("verdict", &said)? == "clean", "{said}");
        ensure!(said_of("result", &said)?.starts_with("generation 2 answers now"), "{said}");
        let generations = operator.does(&["generations", "list"], BOUND).await?;
        ensure!(generations.contains("GENERATIONS term=2 answers=2"), "{generations}");
        ensure!(generations.matches("generation ").count() == 2, "{generations}");

        load.goes_on_for(100).await?;
        let ledger = load.stop().await?;
        ledger.is_counted(&stack, BUDGET, CATEGORIES).await?;
        let watched = ["jobs", "submit", "audit", "--watch", "--priority", "critical"];
        let said = operator.does(&watched, BOUND).await?;
        ensure!(said.contains("0 differences"), "{said}");
        stack.keys().await?.flush().await?;
        operator.does(&["jobs", "submit", "warm-caches", "--watch"], BOUND).await?;
        audit::exact(&stack, BUDGET, CATEGORIES).await.map(drop)
    });
}

#[test]
fn jobs_of_the_embedded_default_are_asked_for_shown_cancelled_and_refused() {
    scenario(async || {
        let embedded = Embedded::start().await?;
        embedded.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&embedded.system);
        load.goes_on_for(200).await?;
        let operator = Operator::of_embedded(&embedded);
        let rebuild = operator.start(&["jobs", "submit", "rebuild", "--watch"])?;
        let said = ended_well(rebuild, BOUND).await?;
        ensure!(said.contains("generation 2 answers now; compared with 1"), "{said}");

        // There is one to go back to: another rebuild is in vain, and says why.
        let again = operator.start(&["jobs", "submit", "rebuild", "--watch"])?;
        let (code, said) = ended(again, BOUND).await?;
        ensure!(code == Some(2) && said.contains("retire it first"), "ended with {code:?}: {said}");
        let id = id(&said)?;
        let (code, said) = ended(operator.start(&["jobs", "cancel", &id])?, BOUND).await?;
        ensure!(code == Some(2) && said.contains("the job has ended: it is dead"), "{said}");
        operator.does(&["generations", "retire"], BOUND).await?;
        operator.does(&["jobs", "retry", &id], BOUND).await?;
        eventually("it is done", BOUND, async || {
            let said = operator.does(&["jobs", "list"], BOUND).await?;
            ensure!(said.contains("JOBS queued=0 running=0 succeeded=2 dead=0"), "{said}");
            Ok(())
        })
        .await?;
        let newer = "00000000-0000-8000-8000-000000000007";
        write_unreadable(&embedded, newer)?;
        let said = operator.does(&["jobs", "list"], BOUND).await?;
        ensure!(said.contains(&format!("{newer}  cannot be read")), "{said}");
        ensure!(said.contains(" unreadable=1"), "{said}");
        let (code, said) = ended(operator.start(&["jobs", "delete", &id])?, BOUND).await?;
        ensure!(code == Some(2) && said.contains("can be read: cancel it"), "{said}");
        operator.does(&["jobs", "delete", newer], BOUND).await?;
        let said = operator.does(&["jobs", "list"], BOUND).await?;
        ensure!(said.contains(" unreadable=0"), "{said}");
        load.goes_on_for(50).await?;
        let ledger = load.stop().await?;
        let totals = ledger.totals(CATEGORIES);
        embedded.system.shows(BUDGET, &totals, SOON).await.context("after the rebuilds")
    });
}
