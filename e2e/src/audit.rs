//! Whether everything that a stack shows and stores is what its log says: the aggregate at every API, the copy in Redis,
//! the committed totals, and everyone's row.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::oracle::{Oracle, Totals};
use crate::stack::Stack;
use crate::wait::eventually;

/// How long a stack may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(40);
/// How long copies may take to follow.
const FOLLOW: Duration = Duration::from_secs(15);

/// Waits until the end of the log is committed and compares a budget everywhere with the oracle. Gives its totals.
///
/// # Errors
/// When something differs.
pub async fn exact(stack: &Stack, budget: &str, categories: usize) -> Result<Totals> {
    stack.caught_up(CATCH_UP).await?;
    let log = stack.kafka.read(&stack.topic).await?;
    let oracle = Oracle::of(&log, stack.partitions);
    let expected = oracle.totals(budget, categories);
    let tables = stack.tables().await?;

    for partition in 0..stack.partitions {
        let stored =
            tables.partition(partition).await?.context("a partition that nobody claimed")?;
        let became = oracle.tally(partition);
        ensure!(
            stored.tally == became,
            "partition {partition}: stored {stored:?}, expected {became:?}"
        );
    }
    let (people, sums) = tables.sums(budget, stack.partitions).await?;
    ensure!(
        people == expected.people && (people == 0 || sums == expected.basis_points),
        "committed are {people} people and {sums:?}, expected {} and {:?}",
        expected.people,
        expected.basis_points
    );

    stack.system.shows(budget, &expected, FOLLOW).await?;
    let mut keys = stack.keys().await?;
    eventually("Redis has the aggregate", FOLLOW, async || {
        ensure!(keys.aggregate(budget).await? == expected, "Redis has other totals");
        Ok(())
    })
    .await?;
    let people = oracle.people(budget);
    eventually("everyone's row is there", FOLLOW, async || {
        let rows = tables.people(budget).await?;
        ensure!(
            rows == people,
            "{} rows, some of them wrong, of {} people",
            rows.len(),
            people.len()
        );
        Ok(())
    })
    .await?;
    Ok(expected)
}
