//! `processor rebuild` and `allocator rebuild` under load, with killed processors.
//!
//! Readers see no total go back, the new generation equals the active one, and a rollback works.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::audit;
use e2e::embedded::Embedded;
use e2e::load::Crowd;
use e2e::operator::{Operator, expect_success, wait_for_exit};
use e2e::process::Signal;
use e2e::scenario::{scenario, scenario_within};
use e2e::stack::{Stack, StackBuilder};
use e2e::system::System;
use e2e::wait::eventually;
use e2e::watch::{Tolerance, Watch};

const BUDGET: &str = "rebuilt";
const CATEGORIES: usize = 10;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);
const SWITCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until the API serves this generation.
async fn wait_for_generation(system: &System, generation: u64) -> Result<()> {
    eventually(&format!("generation {generation} is served"), SWITCH_TIMEOUT, async || {
        let answer = system.get(&format!("/v1/budgets/{BUDGET}/aggregate")).await?;
        let body = answer.expect(200)?.json()?;
        ensure!(body["generation"] == generation, "{}", body["generation"]);
        Ok(())
    })
    .await
}

#[test]
fn a_rebuild_under_load_with_a_killed_processor_is_equal_switches_and_can_be_rolled_back() {
    scenario_within(Duration::from_secs(240), async || {
        let builder = StackBuilder { processors: 3, apis: 2, ..Stack::builder() };
        let mut stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        load.wait_for_acknowledgements(500).await?;

        let operator = Operator::for_stack(&stack)?;
        // The stopped processor's partitions are compared only after another processor has taken them over.
        stack.processors[0].process.signal(Signal::Stop)?;
        let rebuilding = operator.start(&["rebuild"])?;
        eventually("a generation is being built", SWITCH_TIMEOUT, async || {
            let output = operator.run(&["generations", "list"], COMMAND_TIMEOUT).await?;
            ensure!(output.contains("generation 2  building"), "{output}");
            Ok(())
        })
        .await?;
        stack.processors.remove(0).process.kill()?;
        let output = expect_success(rebuilding, COMMAND_TIMEOUT).await?;
        ensure!(output.contains("REBUILD generation=2 compared_with=1 records="), "{output}");
        ensure!(output.contains(" differences=0 answers now"), "{output}");
        wait_for_generation(&stack.system, 2).await?;
        load.wait_for_acknowledgements(200).await?;

        let output = operator.run(&["generations", "rollback"], COMMAND_TIMEOUT).await?;
        ensure!(output.contains("GENERATIONS term=3 answers=1"), "{output}");
        wait_for_generation(&stack.system, 1).await?;
        load.wait_for_acknowledgements(200).await?;
        operator.run(&["generations", "rollback"], COMMAND_TIMEOUT).await?;
        wait_for_generation(&stack.system, 2).await?;
        load.wait_for_acknowledgements(100).await?;

        let ledger = load.stop().await?;
        ledger.verify_counted(&stack, BUDGET, CATEGORIES).await?;
        watch.stop().await?;
        let output = operator.run(&["generations", "retire"], COMMAND_TIMEOUT).await?;
        ensure!(
            output.lines().filter(|line| line.starts_with("generation ")).count() == 1,
            "{output}"
        );
        audit::exact(&stack, BUDGET, CATEGORIES).await.map(drop)
    });
}

#[test]
fn a_rebuild_restores_wiped_derived_data_and_reports_the_differences() {
    scenario_within(Duration::from_secs(180), async || {
        let stack = StackBuilder { processors: 2, ..Stack::builder() }.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        load.wait_for_acknowledgements(500).await?;
        let ledger = load.stop().await?;
        ledger.verify_counted(&stack, BUDGET, CATEGORIES).await?;
        let tables = stack.tables().await?;
        for table in ["totals", "allocations", "partition_reports"] {
            tables.truncate(table).await?;
        }
        stack.keys().await?.flush().await?;
        let operator = Operator::for_stack(&stack)?;
        let (code, output) = wait_for_exit(operator.start(&["rebuild"])?, COMMAND_TIMEOUT).await?;
        ensure!(
            code == Some(1) && output.contains(" answers now"),
            "ended with {code:?}: {output}"
        );
        ensure!(output.contains("partition 0: generation 1 has no stored state"), "{output}");
        wait_for_generation(&stack.system, 2).await?;
        ledger.verify_counted(&stack, BUDGET, CATEGORIES).await
    });
}

#[test]
fn the_embedded_default_is_rebuilt_while_it_runs() {
    scenario(async || {
        let embedded = Embedded::start().await?;
        embedded.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&embedded.system);
        load.wait_for_acknowledgements(300).await?;
        let operator = Operator::for_embedded(&embedded);
        let output = operator.run(&["rebuild", "--dry-run"], COMMAND_TIMEOUT).await?;
        ensure!(output.contains("REBUILD generation=2 compared_with=1"), "{output}");
        ensure!(output.contains(" differences=0 given up: a dry run"), "{output}");
        let output = operator.run(&["rebuild"], COMMAND_TIMEOUT).await?;
        ensure!(output.contains("REBUILD generation=3 compared_with=1"), "{output}");
        wait_for_generation(&embedded.system, 3).await?;
        load.wait_for_acknowledgements(100).await?;
        let ledger = load.stop().await?;
        let totals = ledger.totals(CATEGORIES);
        embedded
            .system
            .wait_until_shown(BUDGET, &totals, SWITCH_TIMEOUT)
            .await
            .context("after the rebuild")
    });
}
