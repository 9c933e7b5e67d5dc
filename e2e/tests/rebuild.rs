//! `processor rebuild` and `allocator rebuild`, while people submit and read, and processors die: readers see no number go
//! back, the new generation agrees, and there is a way back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::audit;
use e2e::embedded::Embedded;
use e2e::load::Crowd;
use e2e::operator::{Operator, ended, ended_well};
use e2e::process::Signal;
use e2e::scenario::{scenario, scenario_within};
use e2e::stack::{Stack, StackBuilder};
use e2e::system::System;
use e2e::wait::eventually;
use e2e::watch::{Tolerance, Watch};

const BUDGET: &str = "rebuilt";
const CATEGORIES: usize = 10;
const BOUND: Duration = Duration::from_secs(90);
const FLIP: Duration = Duration::from_secs(20);

/// Every API shows this generation.
async fn answers_from(system: &System, generation: u64) -> Result<()> {
    eventually(&format!("generation {generation} answers"), FLIP, async || {
        let answer = system.get(&format!("/v1/budgets/{BUDGET}/aggregate")).await?;
        let body = answer.expect(200)?.json()?;
        ensure!(body["generation"] == generation, "{}", body["generation"]);
        Ok(())
    })
    .await
}

#[test]
fn a_rebuild_beside_busy_and_dying_processors_agrees_answers_and_can_be_taken_back() {
    scenario_within(Duration::from_secs(240), async || {
        let builder = StackBuilder { processors: 3, apis: 2, ..Stack::builder() };
        let mut stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        load.goes_on_for(500).await?;

        let operator = Operator::of_stack(&stack)?;
        // What this one has is not compared before somebody else has it.
        stack.processors[0].process.signal(Signal::Stop)?;
        let rebuilding = operator.start(&["rebuild"])?;
        eventually("a generation is being built", FLIP, async || {
            let said = operator.does(&["generations", "list"], BOUND).await?;
            ensure!(said.contains("generation 2  building"), "{said}");
            Ok(())
        })
        .await?;
        stack.processors.remove(0).process.kill()?;
        let said = ended_well(rebuilding, BOUND).await?;
        ensure!(said.contains("REBUILD generation=2 compared_with=1 records="), "{said}");
        ensure!(said.contains(" differences=0 answers now"), "{said}");
        answers_from(&stack.system, 2).await?;
        load.goes_on_for(200).await?;

        let said = operator.does(&["generations", "rollback"], BOUND).await?;
        ensure!(said.contains("GENERATIONS term=3 answers=1"), "{said}");
        answers_from(&stack.system, 1).await?;
        load.goes_on_for(200).await?;
        operator.does(&["generations", "rollback"], BOUND).await?;
        answers_from(&stack.system, 2).await?;
        load.goes_on_for(100).await?;

        let ledger = load.stop().await?;
        ledger.is_counted(&stack, BUDGET, CATEGORIES).await?;
        watch.stop().await?;
        let said = operator.does(&["generations", "retire"], BOUND).await?;
        ensure!(said.lines().filter(|line| line.starts_with("generation ")).count() == 1, "{said}");
        audit::exact(&stack, BUDGET, CATEGORIES).await.map(drop)
    });
}

#[test]
fn with_everything_derived_wiped_a_rebuild_restores_it_and_says_so() {
    scenario_within(Duration::from_secs(180), async || {
        let stack = StackBuilder { processors: 2, ..Stack::builder() }.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        load.goes_on_for(500).await?;
        let ledger = load.stop().await?;
        ledger.is_counted(&stack, BUDGET, CATEGORIES).await?;
        let tables = stack.tables().await?;
        for table in ["totals", "allocations", "partition_reports"] {
            tables.truncate(table).await?;
        }
        stack.keys().await?.flush().await?;
        let operator = Operator::of_stack(&stack)?;
        let (code, said) = ended(operator.start(&["rebuild"])?, BOUND).await?;
        ensure!(code == Some(1) && said.contains(" answers now"), "ended with {code:?}: {said}");
        ensure!(said.contains("partition 0: nothing is stored of generation 1"), "{said}");
        answers_from(&stack.system, 2).await?;
        ledger.is_counted(&stack, BUDGET, CATEGORIES).await
    });
}

#[test]
fn the_embedded_default_is_rebuilt_while_it_runs() {
    scenario(async || {
        let embedded = Embedded::start().await?;
        embedded.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&embedded.system);
        load.goes_on_for(300).await?;
        let operator = Operator::of_embedded(&embedded);
        let said = operator.does(&["rebuild", "--dry-run"], BOUND).await?;
        ensure!(said.contains("REBUILD generation=2 compared_with=1"), "{said}");
        ensure!(said.contains(" differences=0 given up: a dry run"), "{said}");
        let said = operator.does(&["rebuild"], BOUND).await?;
        ensure!(said.contains("REBUILD generation=3 compared_with=1"), "{said}");
        answers_from(&embedded.system, 3).await?;
        load.goes_on_for(100).await?;
        let ledger = load.stop().await?;
        let totals = ledger.totals(CATEGORIES);
        embedded.system.shows(BUDGET, &totals, FLIP).await.context("after the rebuild")
    });
}
