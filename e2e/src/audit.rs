//! Whether everything that a stack shows and stores is what its log says: the aggregate at every API, the copy in Redis,
//! the committed totals, and everyone's row.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::kafka::LogRecord;
use crate::oracle::{Oracle, Tally, Totals};
use crate::stack::Stack;
use crate::stores::Tables;
use crate::wait::eventually;

/// How long a stack may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(40);
/// How long copies may take to follow.
const FOLLOW: Duration = Duration::from_secs(15);

/// What a comparison with the log came to.
#[derive(Debug)]
pub struct Audited {
    /// What the log says of the budget.
    pub expected: Totals,
    /// The log itself.
    pub log: Vec<LogRecord>,
    /// What became of its records.
    pub tally: Tally,
    /// Each place that says something else, and what.
    pub differences: Vec<String>,
}

/// Waits until the end of the log is committed and compares a budget everywhere with the oracle. Gives its totals.
///
/// # Errors
/// When something differs.
pub async fn exact(stack: &Stack, budget: &str, categories: usize) -> Result<Totals> {
    stack.caught_up(CATCH_UP).await?;
    let audited = compare(stack, budget, categories, FOLLOW).await?;
    ensure!(audited.differences.is_empty(), "{}", audited.differences.join("\n"));
    Ok(audited.expected)
}

/// Compares a budget everywhere with the oracle, once all of the log is committed. Copies have a while to follow.
///
/// # Errors
/// When something cannot be read.
pub async fn compare(
    stack: &Stack,
    budget: &str,
    categories: usize,
    follow: Duration,
) -> Result<Audited> {
    let log = stack.kafka.read(&stack.topic).await?;
    let oracle = Oracle::of(&log, stack.partitions);
    let expected = oracle.totals(budget, categories);
    let tables = stack.tables().await?;
    let mut differences = Vec::new();
    let mut tally = Tally::default();

    for partition in 0..stack.partitions {
        let stored =
            tables.partition(partition).await?.context("a partition that nobody claimed")?;
        let became = oracle.tally(partition);
        tally += became;
        if stored.tally != became {
            differences
                .push(format!("partition {partition}: stored {stored:?}, expected {became:?}"));
        }
    }
    let (people, sums) = tables.sums(budget, stack.partitions).await?;
    if people != expected.people || (people > 0 && sums != expected.basis_points) {
        differences.push(format!(
            "committed are {people} people and {sums:?}, expected {} and {:?}",
            expected.people, expected.basis_points
        ));
    }

    let mut note = |place: &str, compared: Result<()>| {
        if let Err(error) = compared {
            differences.push(format!("{place}: {error:#}"));
        }
    };
    note("the APIs", stack.system.shows(budget, &expected, follow).await);
    note("Redis", in_redis(stack, budget, &expected, follow).await);
    note("people's rows", in_rows(&tables, budget, &oracle, follow).await);
    Ok(Audited { expected, log, tally, differences })
}

async fn in_redis(stack: &Stack, budget: &str, expected: &Totals, follow: Duration) -> Result<()> {
    let mut keys = stack.keys().await?;
    eventually("Redis has the aggregate", follow, async || {
        ensure!(keys.aggregate(budget).await? == *expected, "Redis has other totals");
        Ok(())
    })
    .await
}

async fn in_rows(tables: &Tables, budget: &str, oracle: &Oracle, follow: Duration) -> Result<()> {
    let people = oracle.people(budget);
    eventually("everyone's row is there", follow, async || {
        let rows = tables.people(budget).await?;
        ensure!(
            rows == people,
            "{} rows, some of them wrong, of {} people",
            rows.len(),
            people.len()
        );
        Ok(())
    })
    .await
}
