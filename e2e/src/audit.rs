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

/// A log folded anew, and what differs from it.
pub struct Audit {
    /// The log itself.
    pub log: Vec<LogRecord>,
    /// What became of its records.
    pub tally: Tally,
    /// Each place that says something else, and what.
    pub differences: Vec<String>,
    oracle: Oracle,
    tables: Tables,
}

/// Waits until the end of the log is committed and compares a budget everywhere with the oracle. Gives its totals.
///
/// # Errors
/// When something differs.
pub async fn exact(stack: &Stack, budget: &str, categories: usize) -> Result<Totals> {
    stack.caught_up(CATCH_UP).await?;
    let mut audit = Audit::of(stack).await?;
    let expected = audit.compare(stack, budget, categories, FOLLOW).await;
    ensure!(audit.differences.is_empty(), "{}", audit.differences.join("\n"));
    Ok(expected)
}

impl Audit {
    /// Folds a stack's log, all of which is committed, and compares what became of each partition's records.
    ///
    /// # Errors
    /// When something cannot be read.
    pub async fn of(stack: &Stack) -> Result<Self> {
        let log = stack.kafka.read(&stack.topic).await?;
        let oracle = Oracle::of(&log, stack.partitions);
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
        Ok(Self { log, tally, differences, oracle, tables })
    }

    /// Compares a budget everywhere; copies have a while to follow. Gives what the log says of it.
    pub async fn compare(
        &mut self,
        stack: &Stack,
        budget: &str,
        categories: usize,
        follow: Duration,
    ) -> Totals {
        let Self { oracle, tables, .. } = self;
        let expected = oracle.totals(budget, categories);
        let compared = [
            ("the committed totals", in_tables(tables, budget, stack.partitions, &expected).await),
            ("the APIs", stack.system.shows(budget, &expected, follow).await),
            ("Redis", in_redis(stack, budget, &expected, follow).await),
            ("people's rows", in_rows(tables, budget, oracle, follow).await),
        ];
        for (place, outcome) in compared {
            if let Err(error) = outcome {
                self.differences.push(format!("{place} of {budget}: {error:#}"));
            }
        }
        expected
    }
}

async fn in_tables(
    tables: &Tables,
    budget: &str,
    partitions: u32,
    expected: &Totals,
) -> Result<()> {
    let committed = tables.totals(budget, partitions).await?;
    let nobody = committed.basis_points.is_empty() && committed.people == 0;
    ensure!(
        committed == *expected || (nobody && expected.people == 0),
        "committed are {} people and {:?}, expected {} and {:?}{}",
        committed.people,
        committed.basis_points,
        expected.people,
        expected.basis_points,
        if committed.basis_points == expected.basis_points { "; distributions differ" } else { "" }
    );
    Ok(())
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
