//! Compares everything that a stack shows and stores with its log: the aggregate at every API, the cache in Redis, the
//! committed totals, and the person rows.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::kafka::LogRecord;
use crate::oracle::{Oracle, Tally, Totals};
use crate::stack::Stack;
use crate::stores::Tables;
use crate::wait::eventually;

/// Timeout for committing the end of the log.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(120);
/// Timeout for cache, APIs and person rows to follow the committed totals.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(60);

/// The oracle's fold of a log, and the differences found.
pub struct Audit {
    /// The records of the log.
    pub log: Vec<LogRecord>,
    /// Outcomes of the records, over all partitions.
    pub tally: Tally,
    /// A description of each difference.
    pub differences: Vec<String>,
    oracle: Oracle,
    tables: Tables,
}

/// Waits until the log is committed and compares a budget everywhere with the oracle. Returns the budget's totals.
///
/// # Errors
/// When anything differs.
pub async fn exact(stack: &Stack, budget: &str, categories: usize) -> Result<Totals> {
    stack.wait_until_caught_up(CATCH_UP_TIMEOUT).await?;
    let mut audit = Audit::new(stack).await?;
    let expected = audit.compare(stack, budget, categories, PROPAGATION_TIMEOUT).await;
    ensure!(audit.differences.is_empty(), "{}", audit.differences.join("\n"));
    Ok(expected)
}

impl Audit {
    /// Folds a completely committed log and compares the record outcomes of each partition.
    ///
    /// # Errors
    /// When a backend cannot be read.
    pub async fn new(stack: &Stack) -> Result<Self> {
        let log = stack.kafka.read(&stack.topic).await?;
        let oracle = Oracle::from_log(&log, stack.partitions);
        let tables = stack.tables().await?;
        let mut differences = Vec::new();
        let mut tally = Tally::default();
        for partition in 0..stack.partitions {
            let stored =
                tables.partition(partition).await?.context("a partition was never claimed")?;
            let expected = oracle.tally(partition);
            tally += expected;
            if stored.tally != expected {
                differences.push(format!(
                    "partition {partition}: stored {stored:?}, expected {expected:?}"
                ));
            }
        }
        Ok(Self { log, tally, differences, oracle, tables })
    }

    /// The number of people of a budget who are annulled and would count otherwise.
    pub fn annulled(&self, budget: &str) -> u64 {
        self.oracle.annulled(budget)
    }

    /// Compares a budget everywhere and returns its expected totals. `timeout` limits the wait for the copies.
    pub async fn compare(
        &mut self,
        stack: &Stack,
        budget: &str,
        categories: usize,
        timeout: Duration,
    ) -> Totals {
        let Self { oracle, tables, .. } = self;
        let expected = oracle.totals(budget, categories);
        let compared = [
            ("the committed totals", in_tables(tables, budget, stack.partitions, &expected).await),
            ("the APIs", stack.system.wait_until_shown(budget, &expected, timeout).await),
            ("Redis", in_redis(stack, budget, &expected, timeout).await),
            ("the person rows", in_rows(tables, budget, oracle, timeout).await),
        ];
        for (what, result) in compared {
            if let Err(error) = result {
                self.differences.push(format!("{what} of {budget}: {error:#}"));
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
    let empty = committed.basis_points.is_empty() && committed.people == 0;
    ensure!(
        committed == *expected || (empty && expected.people == 0),
        "committed: {} people and {:?}, expected {} and {:?}{}",
        committed.people,
        committed.basis_points,
        expected.people,
        expected.basis_points,
        if committed.basis_points == expected.basis_points { "; distributions differ" } else { "" }
    );
    Ok(())
}

async fn in_redis(stack: &Stack, budget: &str, expected: &Totals, timeout: Duration) -> Result<()> {
    let mut keys = stack.keys().await?;
    eventually("Redis has the aggregate", timeout, async || {
        ensure!(keys.aggregate(budget).await? == *expected, "Redis has other totals");
        Ok(())
    })
    .await
}

async fn in_rows(tables: &Tables, budget: &str, oracle: &Oracle, timeout: Duration) -> Result<()> {
    let people = oracle.people(budget);
    eventually("the person rows are complete", timeout, async || {
        let rows = tables.people(budget).await?;
        ensure!(rows == people, "{} rows for {} people, or wrong rows", rows.len(), people.len());
        Ok(())
    })
    .await
}
