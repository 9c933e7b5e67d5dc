//! The audit: derives everything from the log again and compares it with what is stored and served.
//!
//! | subject | compared at |
//! |---|---|
//! | the store's totals and checkpoint | the committed position |
//! | person rows | the committed position: rows plus the log records after `rows_position` |
//! | history points | the committed position, as far as they have not expired |
//! | the cache, the apis | the positions that each response reflects |
//!
//! It runs while the processors run, and changes nothing. Each response names the positions it reflects and is compared
//! with the log up to exactly there, so concurrent progress is no difference.
//!
//! The records are folded by the processor's own fold. The tests check that fold against a naive fold that shares no
//! code with it (`e2e/src/oracle.rs`).

mod history;
mod partition;
mod served;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemas::{
    BudgetId, BudgetTotals, CategoryTotals, CombinedTotals, GenerationRegistry, Position,
};
use storage::cache::Cache;
use storage::log::LogReader;
use storage::store::{PartitionRef, Store, StoreError};

pub use generations::comparison::{Comparison, Difference, Scope, Subject};

use crate::BackendError;
use crate::progress::Progress;
use generations::registry::require_active_log;
use partition::{Point, audit_partition};
use served::{ServedTotals, read_served_totals};
use storage::retry::retry;

/// Dependencies of an audit.
pub struct AuditDeps {
    /// The log, which everything is compared with.
    pub log: Arc<dyn LogReader>,
    /// The log's topic, as the registry records it.
    pub topic: String,
    /// Totals and person rows.
    pub store: Arc<dyn Store>,
    /// The cache, if it is reachable.
    pub cache: Option<Arc<dyn Cache>>,
    /// URLs of the apis whose responses are compared.
    pub apis: Vec<String>,
}

/// The result of an audit.
#[derive(Debug, Default)]
pub struct AuditReport {
    /// Differences from the log.
    pub differences: Vec<Difference>,
    /// Items that could not be compared, with reasons.
    pub unchecked: Vec<String>,
    /// Folded records.
    pub records: u64,
    /// Budgets with totals.
    pub budgets: BTreeSet<BudgetId>,
    /// Compared history points.
    pub history_points: u64,
    /// History points that the log gives and the store does not have: readers see no number at their instants.
    pub history_missing: u64,
    /// Compared subjects.
    pub subjects: BTreeSet<Subject>,
    /// For each partition the position at which the store was compared.
    pub positions: Vec<Position>,
}

impl AuditReport {
    /// Whether everything was compared without differences.
    pub fn is_clean(&self) -> bool {
        self.differences.is_empty() && self.unchecked.is_empty()
    }
}

/// Compares everything with the log. The progress counts folded records.
///
/// # Errors
/// When a backend stays unavailable after retries, or there is nothing to compare.
pub async fn audit(deps: &AuditDeps, progress: &Progress) -> Result<AuditReport, BackendError> {
    let registry = current_registry(deps).await?;
    let partitions = deps.log.partitions();
    let mut records = 0;
    for partition in partitions.partitions() {
        let bounds = retry(|| deps.log.bounds(partition)).await?;
        records += bounds.high.0 - bounds.low.0;
        progress.set_total(records);
    }
    let people = stored_budgets(deps, &registry).await?;
    let budgets = people.keys().cloned().collect();
    let mut report = AuditReport { budgets, ..AuditReport::default() };
    // Read before the log, so that the log contains every record that the responses reflect.
    let served = read_served_totals(deps, &registry, &people, &mut report).await?;

    let mut counted: Vec<Vec<BudgetTotals>> = vec![Vec::new(); served.len()];
    let mut without = Vec::new();
    for partition in partitions.partitions() {
        let id = PartitionRef { generation: registry.active.generation, partition };
        let points = points_of(&served, partition.0 as usize);
        match audit_partition(deps, id, points, progress, &mut report).await {
            Ok(Some(audited)) => {
                for (counted, totals) in counted.iter_mut().zip(audited) {
                    counted.push(totals);
                }
                continue;
            }
            Ok(None) => {}
            Err(BackendError::Invalid(reason)) => {
                let (subject, partition) = (Subject::Totals, Some(partition));
                let scope = Scope { subject, partition, budget: None, category: None };
                report.differences.push(Difference { scope, what: reason });
            }
            Err(unavailable) => return Err(unavailable),
        }
        without.push(partition.to_string());
    }
    for (served, counted) in served.into_iter().zip(counted) {
        if without.is_empty() {
            compare_served(served, counted, &registry, &mut report);
        } else {
            let ServedTotals { subject, budget, .. } = served;
            let without = without.join(", ");
            let unchecked =
                format!("{subject}, budget `{budget}`: partition {without} could not be folded");
            report.unchecked.push(unchecked);
        }
    }
    Ok(report)
}

/// Reads the registry, whose active generation must derive from this log.
async fn current_registry(deps: &AuditDeps) -> Result<GenerationRegistry, BackendError> {
    let registry = retry(|| deps.store.registry()).await?;
    require_active_log(registry, &deps.topic, deps.log.partitions()).map_err(BackendError::Invalid)
}

/// Lists the budgets with totals in any readable partition, with their people. A damaged partition is reported when it
/// is compared.
async fn stored_budgets(
    deps: &AuditDeps,
    registry: &GenerationRegistry,
) -> Result<BTreeMap<BudgetId, u64>, BackendError> {
    let mut budgets = BTreeMap::new();
    for partition in registry.active.log.partitions.partitions() {
        let id = PartitionRef { generation: registry.active.generation, partition };
        match retry(|| deps.store.read_partition(id)).await {
            Ok(stored) => {
                for (budget, totals) in stored.into_iter().flat_map(|stored| stored.totals) {
                    let people: &mut u64 = budgets.entry(budget).or_default();
                    *people = people.saturating_add(totals.people);
                }
            }
            Err(StoreError::Corrupt(_)) => {}
            Err(unavailable) => return Err(unavailable.into()),
        }
    }
    Ok(budgets)
}

/// The position of one partition that each response reflects.
fn points_of(served: &[ServedTotals], partition: usize) -> Vec<Point> {
    let point = |served: &ServedTotals| {
        let position = served.totals.positions.get(partition);
        Point { budget: served.budget.clone(), position: position.copied().unwrap_or_default() }
    };
    served.iter().map(point).collect()
}

/// Compares one response for one budget with the log up to the same positions.
fn compare_served(
    served: ServedTotals,
    counted: Vec<BudgetTotals>,
    registry: &GenerationRegistry,
    report: &mut AuditReport,
) {
    let ServedTotals { subject, budget, totals } = served;
    let scope = Scope { subject, partition: None, budget: Some(budget), category: None };
    // Readers are shown the same by the log and by what is stored.
    let counted: Vec<_> = counted.into_iter().map(|it| Some(it.into_shown())).collect();
    let merged = CombinedTotals::merge(registry.term(), registry.active.log.partitions, &counted);
    let mut comparison = Comparison::new(scope, &mut report.differences);
    match merged {
        Ok(mut log) => {
            // Before the first allocation the log knows no categories, and a response has those of the definition.
            if log.people == 0 && log.categories.is_empty() {
                log.categories = vec![CategoryTotals::default(); totals.categories.len()];
            }
            for (partition, (log, found)) in log.positions.iter().zip(&totals.positions).enumerate()
            {
                comparison.compare_number(
                    &format!("position of partition {partition}"),
                    log.0,
                    found.0,
                );
            }
            if log.is_final() != totals.is_final() {
                let by = |is_final| if is_final { "final" } else { "not final" };
                let (found, log) = (by(totals.is_final()), by(log.is_final()));
                comparison.add(format!("{found}, and {log} by the log"));
            }
            comparison.compare_totals(&as_budget_totals(log), &as_budget_totals(totals));
        }
        Err(fault) => comparison.add(fault.to_string()),
    }
}

/// Combined totals as the totals of one partition, which `Comparison` takes.
fn as_budget_totals(totals: CombinedTotals) -> BudgetTotals {
    let CombinedTotals { people, annulled, categories, .. } = totals;
    BudgetTotals { people, annulled, categories, ..BudgetTotals::default() }
}
