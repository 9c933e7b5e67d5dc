//! People who are annulled and restored by records of the log, on the real stack: exact everywhere, also after a
//! takeover.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::audit::Audit;
use e2e::operator::{Operator, wait_for_exit};
use e2e::record::{
    ANNUL, RESTORE, allocation_record, annulment_record, mix, mix_128, partition_of, shares,
};
use e2e::scenario::scenario;
use e2e::stack::{Stack, StackBuilder};
use e2e::wait::eventually;

const BUDGET: &str = "taxes";
const CATEGORIES: usize = 10;
const PEOPLE: u64 = 300;
const TIMEOUT: Duration = Duration::from_secs(60);

fn key(person: u64) -> Vec<u8> {
    mix_128(person).to_be_bytes().to_vec()
}

/// Appends a round of submissions and annulments of all people, of which a third is annulled and a few are restored.
async fn append_round(stack: &Stack, round: u64) -> Result<()> {
    let mut records = Vec::new();
    for person in 0..PEOPLE {
        let key = key(person);
        let mut append = |value| {
            records.push((partition_of(&key, stack.partitions), key.clone(), value));
        };
        let annulment = |kind| annulment_record(BUDGET, mix_128(round), kind);
        let number = mix(round * PEOPLE + person);
        if number.is_multiple_of(3) {
            append(annulment(ANNUL));
        }
        // Some people are annulled before they submit anything: that annuls nobody.
        if !number.is_multiple_of(5) {
            let id = mix_128(1_000 + round * PEOPLE + person);
            append(allocation_record(BUDGET, id, shares(number, CATEGORIES)));
        }
        if number.is_multiple_of(2) {
            append(annulment(if number.is_multiple_of(8) { RESTORE } else { ANNUL }));
        }
    }
    stack.kafka.write(&stack.topic, records).await
}

/// Waits until everything agrees with a naive fold of the log, and returns the people and those who are annulled.
async fn exact(stack: &Stack) -> Result<(u64, u64)> {
    stack.wait_until_caught_up(TIMEOUT).await?;
    let mut audit = Audit::new(stack).await?;
    let totals = audit.compare(stack, BUDGET, CATEGORIES, TIMEOUT).await;
    ensure!(audit.differences.is_empty(), "{}", audit.differences.join("\n"));
    let annulled = audit.annulled(BUDGET);
    eventually("the aggregate says how many people are annulled", TIMEOUT, async || {
        let aggregate = stack.system.get(&format!("/v1/budgets/{BUDGET}/aggregate")).await?;
        let shown = aggregate.json()?["annulled"].as_u64();
        ensure!(shown == Some(annulled), "{shown:?} are shown, not {annulled}");
        Ok(())
    })
    .await?;
    Ok((totals.people, annulled))
}

#[test]
fn annulled_people_do_not_count_anywhere_and_restored_ones_do_also_after_takeovers() {
    scenario(async || {
        let mut stack = StackBuilder { processors: 2, ..Stack::builder() }.start().await?;
        stack.system.wait_until_known(BUDGET, TIMEOUT).await?;
        for round in 0..3 {
            append_round(&stack, round).await?;
            let (people, annulled) = exact(&stack).await?;
            ensure!(people > 30 && annulled > 30, "{people} people, {annulled} annulled");
            // The other processor, or the next one, takes over from rows and totals.
            stack.processors.remove(0).terminate(TIMEOUT).await?;
            stack.start_processor()?;
            stack.wait_until_all_owned().await?;
        }
        let (people, annulled) = exact(&stack).await?;
        ensure!(people + annulled <= PEOPLE, "{people} people, {annulled} annulled");
        let apis: Vec<_> = stack.apis.iter().map(|api| api.url.clone()).collect();
        let mut command = vec!["audit"];
        command.extend(apis.iter().flat_map(|api| ["--api", api.as_str()]));
        let audit = Operator::for_stack(&stack)?.start(&command)?;
        let (code, output) = wait_for_exit(audit, TIMEOUT).await?;
        ensure!(code == Some(0) && output.contains(" differences=0 "), "{code:?}: {output}");
        Ok(())
    });
}
