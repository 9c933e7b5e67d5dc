//! `processor repartition` while people submit and read, the one who copies is killed, and an ingest sleeps over the switch:
//! everything that was acknowledged is counted once, and readers see no number go back. Also if the store is lost afterwards.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::audit;
use e2e::kafka::LogRecord;
use e2e::load::Crowd;
use e2e::operator::{Operator, ended};
use e2e::process::Signal;
use e2e::scenario::scenario_within;
use e2e::stack::{Stack, StackBuilder};
use e2e::wait::eventually;
use e2e::watch::{Tolerance, Watch};

const BUDGET: &str = "repartitioned";
const CATEGORIES: usize = 10;
const BOUND: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(20);

async fn answers_from(stack: &Stack, generation: u64) -> Result<()> {
    eventually(&format!("generation {generation} answers"), SOON, async || {
        let answer = stack.system.get(&format!("/v1/budgets/{BUDGET}/aggregate")).await?;
        let body = answer.expect(200)?.json()?;
        ensure!(body["generation"] == generation, "{}", body["generation"]);
        Ok(())
    })
    .await
}

async fn refused(operator: &Operator, command: &[&str], why: &str) -> Result<()> {
    let (code, said) = ended(operator.start(command)?, BOUND).await?;
    ensure!(
        code.is_some_and(|code| code != 0) && said.contains(why),
        "ended with {code:?}: {said}"
    );
    Ok(())
}

fn values(log: &[LogRecord]) -> HashSet<&[u8]> {
    log.iter().map(|record| record.value.as_slice()).collect()
}

#[test]
fn under_load_the_log_gets_more_partitions_and_then_fewer_and_everything_is_counted_once() {
    scenario_within(Duration::from_secs(300), async || {
        let builder =
            StackBuilder { ingests: 2, processors: 2, apis: 2, partitions: 3, ..Stack::builder() };
        let mut stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        load.goes_on_for(500).await?;
        let operator = Operator::of_stack(&stack)?;
        refused(&operator, &["repartition", "--partitions", "3"], "has 3 partitions already")
            .await?;
        refused(&operator, &["repartition", "--partitions", "0"], "between 1 and 1024").await?;
        refused(&operator, &["repartition", "--cancel"], "nothing to cancel").await?;

        // What this one has is not counted in the new log before somebody else has it.
        stack.processors[0].process.signal(Signal::Stop)?;
        let mut copying = operator.start(&["repartition", "--partitions", "5"])?;
        eventually("a generation is being built", SOON, async || {
            let said = operator.does(&["generations", "list"], BOUND).await?;
            ensure!(said.contains("generation 2  building"), "{said}");
            Ok(())
        })
        .await?;
        copying.kill()?;
        stack.processors[0].process.signal(Signal::Continue)?;
        let again = &["repartition", "--partitions", "5"];
        refused(&operator, again, "generation 2 is being built already").await?;
        refused(&operator, &["generations", "cancel"], "`processor repartition --cancel`").await?;
        let said = operator.does(&["repartition", "--cancel"], BOUND).await?;
        ensure!(said.contains("generation=2 given up"), "{said}");
        load.goes_on_for(100).await?;

        stack.ingests[1].process.signal(Signal::Stop)?;
        let said = operator.does(again, BOUND).await?;
        println!("{}", said.lines().last().unwrap_or_default());
        let (first, second) = (stack.topic.clone(), format!("{}-3", stack.topic));
        let outcome =
            format!("REPARTITION generation=3 topic={second} partitions=5 before={first}");
        ensure!(said.contains(&outcome), "{said}");
        answers_from(&stack, 3).await?;
        let until_it_wakes = stack.kafka.ends(&first).await?;
        stack.ingests[1].process.signal(Signal::Continue)?;
        load.goes_on_for(300).await?;
        ensure!(stack.kafka.ends(&first).await? == until_it_wakes, "the old topic has grown");
        refused(&operator, &["generations", "rollback"], "there is no generation before").await?;

        let said = operator.does(&["repartition", "--partitions", "2"], BOUND).await?;
        println!("{}", said.lines().last().unwrap_or_default());
        answers_from(&stack, 4).await?;
        load.goes_on_for(300).await?;

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
            ensure!(before.is_subset(&after), "not everything was copied");
        }
        (stack.topic, stack.partitions) = (third, 2);
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(
            totals == ledger.totals(CATEGORIES),
            "what is counted is not what was acknowledged"
        );
        let said = operator.does(&["audit"], BOUND).await?;
        ensure!(said.contains(" differences=0 unchecked=0 "), "{said}");
        operator.does(&["rebuild", "--dry-run"], BOUND).await?;

        // Whoever starts now is configured with the first log, and finds the way to the last.
        for service in stack.services() {
            service.terminate(SOON).await?;
        }
        for service in stack.services() {
            service.restart().await?;
        }
        let load = Crowd { people: 400, ..Crowd::of(BUDGET, CATEGORIES) }.start(&stack.system);
        load.goes_on_for(500).await?;
        let later = load.stop().await?;
        audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(!later.is_empty(), "nobody spoke");
        Ok(())
    });
}

#[test]
fn a_store_that_is_lost_whole_after_a_repartition_is_derived_anew_from_the_later_log() {
    scenario_within(Duration::from_secs(240), async || {
        let mut stack =
            StackBuilder { processors: 2, partitions: 3, ..Stack::builder() }.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        load.goes_on_for(300).await?;
        let operator = Operator::of_stack(&stack)?;
        operator.does(&["repartition", "--partitions", "5"], BOUND).await?;
        answers_from(&stack, 2).await?;
        load.goes_on_for(300).await?;
        let ledger = load.stop().await?;
        ensure!(ledger.repeats == 0, "{} submissions were refused at the switch", ledger.repeats);
        let first = stack.topic.clone();
        (stack.topic, stack.partitions) = (format!("{first}-2"), 5);
        let counted = audit::exact(&stack, BUDGET, CATEGORIES).await?;

        for service in stack.services() {
            service.terminate(SOON).await?;
        }
        stack.tables().await?.truncate_all().await?;
        stack.keys().await?.flush().await?;
        for service in stack.services() {
            service.restart().await?;
        }
        // What went to the later log is counted, by the generation that began that log, and counted once.
        answers_from(&stack, 2).await?;
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(totals == counted, "not everything is counted again");
        ensure!(totals == ledger.totals(CATEGORIES), "not what was acknowledged is counted");
        for processor in &stack.processors {
            let elsewhere = processor.metric("allocator_processor_submissions_elsewhere").await?;
            ensure!(elsewhere == 0.0, "{} counts another log", processor.url);
        }

        // No topic is ever named again.
        let said = operator.does(&["repartition", "--partitions", "2"], BOUND).await?;
        ensure!(said.contains("REPARTITION generation=3 "), "{said}");
        (stack.topic, stack.partitions) = (format!("{first}-3"), 2);
        ensure!(audit::exact(&stack, BUDGET, CATEGORIES).await? == counted, "it was miscopied");
        Ok(())
    });
}

#[test]
fn one_whose_command_dies_while_submissions_wait_is_given_up_and_they_go_on() {
    scenario_within(Duration::from_secs(180), async || {
        // Everyone's row has to be written before the last step ends: so that takes its time.
        let settings = vec!["processor.rows_interval_ms=15000".to_owned()];
        let stack = StackBuilder { partitions: 2, settings, ..Stack::builder() }.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        load.goes_on_for(300).await?;
        let operator = Operator::of_stack(&stack)?;
        let mut moving = operator.start(&["repartition", "--partitions", "3"])?;
        eventually("a processor says that the log is sealed", SOON, async || {
            let sealed =
                stack.processors[0].metric("allocator_processor_log_sealed_seconds").await?;
            ensure!(sealed > 0.0, "it is not");
            Ok(())
        })
        .await?;
        moving.kill()?;
        let ends = stack.kafka.ends(&stack.topic).await?;
        let again = &["repartition", "--partitions", "3"];
        refused(&operator, again, "generation 2 is being built already").await?;
        ensure!(stack.kafka.ends(&stack.topic).await? == ends, "it takes records though sealed");
        let said = operator.does(&["repartition", "--cancel"], BOUND).await?;
        ensure!(said.contains("generation=2 given up"), "{said}");
        load.goes_on_for(300).await?;
        let ledger = load.stop().await?;
        watch.stop().await?;
        ledger.check_log(&stack.kafka.read(&stack.topic).await?)?;
        stack.system.shows(BUDGET, &ledger.totals(CATEGORIES), SOON).await?;
        let sealed = stack.processors[0].metric("allocator_processor_log_sealed_seconds").await?;
        ensure!(sealed == 0.0, "sealed for {sealed} s, a processor says");
        Ok(())
    });
}
