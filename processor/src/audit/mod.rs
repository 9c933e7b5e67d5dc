//! The audit: everything that is derived from the log is derived again, and compared.
//!
//! | place | compared at |
//! |---|---|
//! | the store's totals and checkpoint | the position that they are committed with |
//! | people's rows | the same position: rows, and the records between them and it |
//! | the cache, the apis | the positions that each of their answers reflects |
//!
//! It runs beside the processors, under load, and changes nothing. Each answer names the positions that it reflects,
//! so that it is compared with the log up to exactly there: what moves on meanwhile is no difference.
//!
//! The records are folded by the processor's own fold. What checks the fold itself is a naive one that shares no code
//! with it, in the tests (`e2e/src/oracle.rs`).

mod command;
mod difference;
mod partition;
mod shown;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schemas::{BudgetId, BudgetTotals, CombinedTotals, Position, Roster};
use storage::cache::Cache;
use storage::log::{LogReader, ReadError};
use storage::store::{PartitionRef, Store, StoreError};

pub use command::{AuditArgs, audit_command};
pub use difference::{Difference, Place, Scope};

pub(crate) use difference::Comparison;
pub(crate) use partition::{PartitionTotals, side_by_side};

use crate::again::{self, Away};
use crate::generations::of_log;
use partition::{Point, audit_partition};
use shown::{Shown, look};

/// What is compared.
pub struct AuditParts {
    /// The truth.
    pub log: Arc<dyn LogReader>,
    /// Its topic, as the generation records it.
    pub topic: String,
    /// Totals and people.
    pub store: Arc<dyn Store>,
    /// The readers' copy, if it can be reached.
    pub cache: Option<Arc<dyn Cache>>,
    /// The apis whose answers are compared, by their URLs.
    pub apis: Vec<String>,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// A place does not answer: try again later.
    #[error("{0}")]
    Away(String),
    /// A place is not what it should be.
    #[error("{0}")]
    Wrong(String),
}

impl Away for AuditError {
    fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

impl From<ReadError> for AuditError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(_) => Self::Away(error.to_string()),
            ReadError::Missing(_) | ReadError::Damaged(_) => Self::Wrong(error.to_string()),
        }
    }
}

impl From<StoreError> for AuditError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Away(error.to_string()),
            StoreError::Corrupt(_) => Self::Wrong(error.to_string()),
        }
    }
}

/// What an audit found.
#[derive(Debug, Default)]
pub struct Report {
    /// What is not as the log says.
    pub differences: Vec<Difference>,
    /// What could not be compared, and why.
    pub unchecked: Vec<String>,
    /// Records that were folded.
    pub records: u64,
    /// The budgets that anything was said about.
    pub budgets: BTreeSet<BudgetId>,
    /// The places that were compared.
    pub places: BTreeSet<Place>,
    /// For each partition the position at which the store was compared.
    pub positions: Vec<Position>,
}

impl Report {
    /// Whether everything was compared and nothing differs.
    pub fn is_clean(&self) -> bool {
        self.differences.is_empty() && self.unchecked.is_empty()
    }
}

/// How far an audit has come, for whoever watches it.
#[derive(Debug, Default)]
pub struct AuditProgress {
    records: AtomicU64,
    folded: AtomicU64,
}

impl AuditProgress {
    /// Records folded, and records that there were when it began.
    pub fn records(&self) -> (u64, u64) {
        (self.folded.load(Ordering::Relaxed), self.records.load(Ordering::Relaxed))
    }

    fn folded(&self, records: u64) {
        self.folded.fetch_add(records, Ordering::Relaxed);
    }
}

/// Compares everything with the log.
///
/// # Errors
/// When a place does not answer, however often it is asked, or there is nothing to compare.
pub async fn audit(parts: &AuditParts, progress: &AuditProgress) -> Result<Report, AuditError> {
    let roster = current_roster(parts).await?;
    let partitions = parts.log.partitions();
    for partition in partitions.partitions() {
        let bounds = again(|| async { Ok(parts.log.bounds(partition).await?) }).await?;
        progress.records.fetch_add(bounds.high.0 - bounds.low.0, Ordering::Relaxed);
    }
    let budgets = stored_budgets(parts, &roster).await?;
    let mut report = Report { budgets, ..Report::default() };
    // Before the log is read: whatever is shown now is of records that are there by then.
    let shown = look(parts, &roster, &mut report).await?;

    let mut counted: Vec<Vec<BudgetTotals>> = vec![Vec::new(); shown.len()];
    let mut without = Vec::new();
    for partition in partitions.partitions() {
        let id = PartitionRef { generation: roster.current.generation, partition };
        let points = points_of(&shown, partition.0 as usize);
        match audit_partition(parts, id, points, progress, &mut report).await {
            Ok(Some(audited)) => {
                for (counted, totals) in counted.iter_mut().zip(audited) {
                    counted.push(totals);
                }
                continue;
            }
            Ok(None) => {}
            Err(AuditError::Wrong(reason)) => {
                let (place, partition) = (Place::Totals, Some(partition));
                let scope = Scope { place, partition, budget: None, category: None };
                report.differences.push(Difference { scope, what: reason });
            }
            Err(away) => return Err(away),
        }
        without.push(partition.to_string());
    }
    for (shown, counted) in shown.into_iter().zip(counted) {
        if without.is_empty() {
            compare_shown(shown, counted, &roster, &mut report);
        } else {
            let Shown { place, budget, .. } = shown;
            let without = without.join(", ");
            let unchecked =
                format!("{place}, budget `{budget}`: partition {without} is not counted");
            report.unchecked.push(unchecked);
        }
    }
    Ok(report)
}

/// The roster, whose current generation answers the public and has to be of this log.
async fn current_roster(parts: &AuditParts) -> Result<Roster, AuditError> {
    let roster = again(|| async { Ok(parts.store.roster().await?) }).await?;
    of_log(roster, &parts.topic, parts.log.partitions()).map_err(AuditError::Wrong)
}

/// Every budget with totals in some partition; those of a damaged one are not known, and it is named when it is compared.
async fn stored_budgets(
    parts: &AuditParts,
    roster: &Roster,
) -> Result<BTreeSet<BudgetId>, AuditError> {
    let mut budgets = BTreeSet::new();
    for partition in roster.current.log.partitions.partitions() {
        let id = PartitionRef { generation: roster.current.generation, partition };
        match again(|| async { Ok(parts.store.read_partition(id).await?) }).await {
            Ok(stored) => {
                let totals = stored.into_iter().flat_map(|stored| stored.totals);
                budgets.extend(totals.map(|(budget, _)| budget));
            }
            Err(AuditError::Wrong(_)) => {}
            Err(away) => return Err(away),
        }
    }
    Ok(budgets)
}

/// Where the totals of each shown answer are wanted on the way through one partition.
fn points_of(shown: &[Shown], partition: usize) -> Vec<Point> {
    let point = |shown: &Shown| {
        let position = shown.totals.positions.get(partition);
        Point { budget: shown.budget.clone(), position: position.copied().unwrap_or_default() }
    };
    shown.iter().map(point).collect()
}

/// Compares what one place shows of one budget with what the log says up to the same positions.
fn compare_shown(shown: Shown, counted: Vec<BudgetTotals>, roster: &Roster, report: &mut Report) {
    let Shown { place, budget, totals } = shown;
    let scope = Scope { place, partition: None, budget: Some(budget), category: None };
    let counted: Vec<_> = counted.into_iter().map(Some).collect();
    let merged = CombinedTotals::merge(roster.term(), roster.current.log.partitions, &counted);
    let mut comparison = Comparison::of(scope, &mut report.differences);
    match merged {
        Ok(log) => {
            for (partition, (log, found)) in log.positions.iter().zip(&totals.positions).enumerate()
            {
                comparison.number(&format!("position of partition {partition}"), log.0, found.0);
            }
            comparison.totals(&together(log), &together(totals));
        }
        Err(fault) => comparison.note(fault.to_string()),
    }
}

/// The numbers of all partitions, as those of one.
fn together(totals: CombinedTotals) -> BudgetTotals {
    BudgetTotals { people: totals.people, categories: totals.categories, ..BudgetTotals::default() }
}

/// Asks a place that does not answer again.
async fn again<T, Asking: Future<Output = Result<T, AuditError>>>(
    ask: impl Fn() -> Asking,
) -> Result<T, AuditError> {
    again::again(ask).await
}
