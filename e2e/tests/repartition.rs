//! `processor repartition` under load. The copying command is killed, and an ingest is stopped during the cutover.
//!
//! Every acknowledged submission is counted once, and readers see no total go back, also if the store is lost
//! afterwards.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::audit;
use e2e::kafka::LogRecord;
use e2e::load::Crowd;
use e2e::operator::{Operator, wait_for_exit};
use e2e::process::Signal;
use e2e::scenario::scenario_within;
use e2e::stack::{Stack, StackBuilder};
use e2e::wait::eventually;
use e2e::watch::{Tolerance, Watch};

const BUDGET: &str = "repartitioned";
const CATEGORIES: usize = 10;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);
const STATE_TIMEOUT: Duration = Duration::from_secs(60);

async fn wait_for_generation(stack: &Stack, generation: u64) -> Result<()> {
    eventually(&format!("generation {generation} is served"), STATE_TIMEOUT, async || {
        let answer = stack.system.get(&format!("/v1/budgets/{BUDGET}/aggregate")).await?;
        let body = answer.expect(200)?.json()?;
        ensure!(body["generation"] == generation, "{}", body["generation"]);
        Ok(())
    })
    .await
}

async fn expect_refusal(operator: &Operator, command: &[&str], reason: &str) -> Result<()> {
    let (code, output) = wait_for_exit(operator.start(command)?, COMMAND_TIMEOUT).await?;
    ensure!(
        code.is_some_and(|code| code != 0) && output.contains(reason),
        "ended with {code:?}: {output}"
    );
    Ok(())
}

fn values(log: &[LogRecord]) -> HashSet<&[u8]> {
    log.iter().map(|record| record.value.as_slice()).collect()
}

#[test]
fn a_log_under_load_is_moved_to_more_and_then_to_fewer_partitions_and_all_is_counted_once() {
    scenario_within(Duration::from_secs(300), async || {
        let builder =
            StackBuilder { ingests: 2, processors: 2, apis: 2, partitions: 3, ..Stack::builder() };
        let mut stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        load.wait_for_acknowledgements(500).await?;
        let operator = Operator::for_stack(&stack)?;
        expect_refusal(
            &operator,
            &["repartition", "--partitions", "3"],
            "already has 3 partitions",
        )
        .await?;
        expect_refusal(&operator, &["repartition", "--partitions", "0"], "between 1 and 1024")
            .await?;
        expect_refusal(&operator, &["repartition", "--cancel"], "nothing to cancel").await?;

        // The repartition cannot complete while the stopped processor owns partitions.
        stack.processors[0].process.signal(Signal::Stop)?;
        let mut copying = operator.start(&["repartition", "--partitions", "5"])?;
        eventually("a generation is being built", STATE_TIMEOUT, async || {
            let output = operator.run(&["generations", "list"], COMMAND_TIMEOUT).await?;
            ensure!(output.contains("generation 2  building"), "{output}");
            Ok(())
        })
        .await?;
        copying.kill()?;
        stack.processors[0].process.signal(Signal::Continue)?;
        let again = &["repartition", "--partitions", "5"];
        expect_refusal(&operator, again, "generation 2 is already being built").await?;
        expect_refusal(&operator, &["generations", "cancel"], "`processor repartition --cancel`")
            .await?;
        let output = operator.run(&["repartition", "--cancel"], COMMAND_TIMEOUT).await?;
        ensure!(output.contains("generation=2 cancelled"), "{output}");
        load.wait_for_acknowledgements(100).await?;

        stack.ingests[1].process.signal(Signal::Stop)?;
        let output = operator.run(again, COMMAND_TIMEOUT).await?;
        println!("{}", output.lines().last().unwrap_or_default());
        let (first, second) = (stack.topic.clone(), format!("{}-3", stack.topic));
        let outcome =
            format!("REPARTITION generation=3 topic={second} partitions=5 before={first}");
        ensure!(output.contains(&outcome), "{output}");
        wait_for_generation(&stack, 3).await?;
        let sealed_ends = stack.kafka.ends(&first).await?;
        stack.ingests[1].process.signal(Signal::Continue)?;
        load.wait_for_acknowledgements(300).await?;
        ensure!(stack.kafka.ends(&first).await? == sealed_ends, "the sealed topic has grown");
        expect_refusal(&operator, &["generations", "rollback"], "there is no previous generation")
            .await?;

        let output = operator.run(&["repartition", "--partitions", "2"], COMMAND_TIMEOUT).await?;
        println!("{}", output.lines().last().unwrap_or_default());
        wait_for_generation(&stack, 4).await?;
        load.wait_for_acknowledgements(300).await?;

        let ledger = load.stop().await?;
        watch.stop().await?;
        let third = format!("{}-4", stack.topic);
        let logs = [
            (0, stack.kafka.read(&first).await?),
            (3, stack.kafka.read(&second).await?),
            (4, stack.kafka.read(&third).await?),
        ];
        let by_number: Vec<(u32, &[LogRecord])> =
            logs.iter().map(|(number, log)| (*number, log.as_slice())).collect();
        ledger.check_logs(&by_number)?;
        for pair in logs.windows(2) {
            let (before, after) = (values(&pair[0].1), values(&pair[1].1));
            ensure!(before.is_subset(&after), "some records were not copied");
        }
        (stack.topic, stack.partitions) = (third, 2);
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(
            totals == ledger.totals(CATEGORIES),
            "the counted totals differ from the acknowledged submissions"
        );
        let output = operator.run(&["audit"], COMMAND_TIMEOUT).await?;
        ensure!(output.contains(" differences=0 unchecked=0 "), "{output}");
        operator.run(&["rebuild", "--dry-run"], COMMAND_TIMEOUT).await?;

        // Restarted services are configured with the first topic, and find the active one.
        for service in stack.services() {
            service.terminate(STATE_TIMEOUT).await?;
        }
        for service in stack.services() {
            service.restart().await?;
        }
        let load = Crowd { people: 400, ..Crowd::new(BUDGET, CATEGORIES) }.start(&stack.system);
        load.wait_for_acknowledgements(500).await?;
        let later = load.stop().await?;
        audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(!later.is_empty(), "the load submitted nothing");
        Ok(())
    });
}

#[test]
fn a_store_lost_after_a_repartition_is_rebuilt_from_the_active_log() {
    scenario_within(Duration::from_secs(240), async || {
        let mut stack =
            StackBuilder { processors: 2, partitions: 3, ..Stack::builder() }.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        load.wait_for_acknowledgements(300).await?;
        let operator = Operator::for_stack(&stack)?;
        operator.run(&["repartition", "--partitions", "5"], COMMAND_TIMEOUT).await?;
        wait_for_generation(&stack, 2).await?;
        load.wait_for_acknowledgements(300).await?;
        let ledger = load.stop().await?;
        ensure!(ledger.retries == 0, "{} submissions were refused at the switch", ledger.retries);
        let first = stack.topic.clone();
        (stack.topic, stack.partitions) = (format!("{first}-2"), 5);
        let counted = audit::exact(&stack, BUDGET, CATEGORIES).await?;

        for service in stack.services() {
            service.terminate(STATE_TIMEOUT).await?;
        }
        stack.tables().await?.truncate_all().await?;
        stack.keys().await?.flush().await?;
        for service in stack.services() {
            service.restart().await?;
        }
        // The active log is counted once, by the generation that it began with.
        wait_for_generation(&stack, 2).await?;
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(totals == counted, "the rebuilt totals differ");
        ensure!(
            totals == ledger.totals(CATEGORIES),
            "the counted totals differ from the acknowledged submissions"
        );
        for processor in &stack.processors {
            let elsewhere = processor.metric("allocator_processor_submissions_elsewhere").await?;
            ensure!(elsewhere == 0.0, "{} counts another log", processor.url);
        }

        // A topic name is never reused.
        let output = operator.run(&["repartition", "--partitions", "2"], COMMAND_TIMEOUT).await?;
        ensure!(output.contains("REPARTITION generation=3 "), "{output}");
        (stack.topic, stack.partitions) = (format!("{first}-3"), 2);
        ensure!(
            audit::exact(&stack, BUDGET, CATEGORIES).await? == counted,
            "the copy changed the totals"
        );
        Ok(())
    });
}

#[test]
fn a_repartition_whose_command_dies_during_the_cutover_is_cancelled_and_submissions_continue() {
    scenario_within(Duration::from_secs(180), async || {
        // The cutover waits for all person rows; a long interval gives time to kill the command.
        let settings = vec!["processor.rows_interval_ms=15000".to_owned()];
        let stack = StackBuilder { partitions: 2, settings, ..Stack::builder() }.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        load.wait_for_acknowledgements(300).await?;
        let operator = Operator::for_stack(&stack)?;
        let mut moving = operator.start(&["repartition", "--partitions", "3"])?;
        eventually("a processor reports the log as sealed", STATE_TIMEOUT, async || {
            let sealed =
                stack.processors[0].metric("allocator_processor_log_sealed_seconds").await?;
            ensure!(sealed > 0.0, "the log is not sealed");
            Ok(())
        })
        .await?;
        moving.kill()?;
        let ends = stack.kafka.ends(&stack.topic).await?;
        let again = &["repartition", "--partitions", "3"];
        expect_refusal(&operator, again, "generation 2 is already being built").await?;
        ensure!(stack.kafka.ends(&stack.topic).await? == ends, "the sealed log accepted records");
        let output = operator.run(&["repartition", "--cancel"], COMMAND_TIMEOUT).await?;
        ensure!(output.contains("generation=2 cancelled"), "{output}");
        load.wait_for_acknowledgements(300).await?;
        let ledger = load.stop().await?;
        watch.stop().await?;
        ledger.check_log(&stack.kafka.read(&stack.topic).await?)?;
        stack.system.wait_until_shown(BUDGET, &ledger.totals(CATEGORIES), STATE_TIMEOUT).await?;
        let sealed = stack.processors[0].metric("allocator_processor_log_sealed_seconds").await?;
        ensure!(sealed == 0.0, "a processor reports the log as sealed for {sealed} s");
        Ok(())
    });
}
