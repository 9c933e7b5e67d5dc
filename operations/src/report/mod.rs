//! The report of a budget: what an organisation files after a vote. JSON, and HTML that prints on A4.
//!
//! It has people over time, averages, medians, distributions, the records of the log by outcome, and the verdict of an
//! audit that it runs. It contains results also while they are withheld: only operators can read the folder of reports.

mod html;
pub mod schedule;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use generations::registry::require_active_log;
use jiff::Timestamp;
use runtime::clock::now_ms;
use schemas::{
    AggregateVersion, Budget, CombinedTotals, GenerationRegistry, HistoryInstant, HistoryStep,
    average_ten_thousandths, median_tenths,
};
use serde::{Serialize, Serializer};
use storage::retry::retry;
use storage::store::{PartitionRef, RecordCounts, read_history};

use crate::BackendError;
use crate::audit::{AuditDeps, AuditReport, audit};
use crate::export::output_file::OutputFile;
use crate::progress::Progress;

/// Days of the history by day: twenty years.
const MAX_DAYS: u32 = 20 * 366;
/// Findings of the audit that are listed.
const MAX_FINDINGS: usize = 20;

/// A number with a fixed number of decimals, printed in JSON and HTML alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decimal {
    units: u64,
    decimals: u32,
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = 10_u64.pow(self.decimals);
        let width = self.decimals as usize;
        write!(f, "{}.{:0width$}", self.units / unit, self.units % unit)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The report of a budget.
#[derive(Debug, Serialize)]
pub struct Report {
    budget: String,
    name: String,
    made_at: Timestamp,
    generation: u32,
    version: String,
    #[serde(rename = "final")]
    is_final: bool,
    people: u64,
    /// People who are annulled and would count otherwise.
    annulled: u64,
    categories: Vec<CategoryReport>,
    people_by_hour: Vec<PeopleAt>,
    people_by_day: Vec<PeopleAt>,
    records: RecordsReport,
    audit: AuditVerdict,
}

#[derive(Debug, Serialize)]
struct CategoryReport {
    id: String,
    name: String,
    total_basis_points: u64,
    average_percent: Decimal,
    median_percent: Decimal,
    /// People by whole percent.
    distribution: Vec<u64>,
}

/// People at a full hour or day.
#[derive(Debug, Serialize)]
struct PeopleAt {
    at: Timestamp,
    people: u64,
}

/// Records of the whole log, of all budgets.
#[derive(Debug, Serialize)]
struct RecordsReport {
    applied: u64,
    ignored: u64,
    dead_lettered: u64,
}

#[derive(Debug, Serialize)]
struct AuditVerdict {
    /// `clean`, `different` or `incomplete`.
    verdict: &'static str,
    records: u64,
    differences: usize,
    not_compared: usize,
    /// The first differences, and what was not compared.
    findings: Vec<String>,
}

impl Report {
    /// Returns the number of people.
    pub fn people(&self) -> u64 {
        self.people
    }

    /// Writes the report as `path.json` and `path.html`. Blocks. Returns their paths.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<[PathBuf; 2]> {
        let json = serde_json::to_vec_pretty(self)?;
        let html = html::render(self).into_string().into_bytes();
        let paths = ["json", "html"].map(|extension| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{extension}"));
            PathBuf::from(name)
        });
        for (path, content) in paths.iter().zip([json, html]) {
            let mut file = OutputFile::create(path)?;
            file.write_all(&content)?;
            file.finish()?.persist(path)?;
        }
        Ok(paths)
    }
}

/// Gathers a report. The progress is that of its audit. Also returns what the audit found.
///
/// # Errors
/// When a backend stays unavailable after retries, or holds damaged data.
pub async fn report(
    deps: &AuditDeps,
    budget: &Budget,
    progress: &Progress,
) -> Result<(Report, AuditReport), BackendError> {
    let registry = retry(|| deps.store.registry()).await?;
    let registry = require_active_log(registry, &deps.topic, deps.log.partitions())
        .map_err(BackendError::Invalid)?;
    let totals = committed_totals(deps, &registry, budget).await?;
    let now = now_ms();
    let report = Report {
        budget: budget.id.to_string(),
        name: budget.name.clone(),
        made_at: timestamp(now),
        generation: registry.active.generation.0,
        version: AggregateVersion::of(&totals).to_string(),
        is_final: totals.is_final(),
        people: totals.people,
        annulled: totals.annulled,
        categories: categories(budget, &totals),
        people_by_hour: people_by(deps, &registry, budget, HistoryStep::Hour, now).await?,
        people_by_day: people_by(deps, &registry, budget, HistoryStep::Day, now).await?,
        records: records(deps, &registry).await?,
        audit: AuditVerdict::of(&AuditReport::default()),
    };
    let audited = audit(deps, progress).await?;
    Ok((Report { audit: AuditVerdict::of(&audited), ..report }, audited))
}

async fn committed_totals(
    deps: &AuditDeps,
    registry: &GenerationRegistry,
    budget: &Budget,
) -> Result<CombinedTotals, BackendError> {
    let (generation, partitions) = (registry.active.generation, registry.active.log.partitions);
    let budgets = std::slice::from_ref(&budget.id);
    let summaries = retry(|| deps.store.summaries(generation, partitions, budgets)).await?;
    let summary = summaries.into_iter().next().unwrap_or_else(|| Ok(Vec::new()));
    let summary = summary.map_err(|damaged| BackendError::Invalid(damaged.to_string()))?;
    let totals = CombinedTotals::merge(registry.term(), partitions, &summary);
    totals.map_err(|fault| BackendError::Unavailable(fault.to_string()))
}

fn categories(budget: &Budget, totals: &CombinedTotals) -> Vec<CategoryReport> {
    let counted = totals.categories.iter().map(Some).chain(std::iter::repeat(None));
    let category = |(category, counted): (&schemas::Category, Option<&schemas::CategoryTotals>)| {
        let counted = counted.cloned().unwrap_or_default();
        let average = average_ten_thousandths(counted.basis_points, totals.people);
        let median = median_tenths(&counted.people_by_percent);
        CategoryReport {
            id: category.id.to_string(),
            name: category.name.clone(),
            total_basis_points: counted.basis_points,
            average_percent: Decimal { units: average, decimals: 4 },
            median_percent: Decimal { units: median, decimals: 1 },
            distribution: counted.people_by_percent.to_vec(),
        }
    };
    budget.categories.iter().zip(counted).map(category).collect()
}

async fn people_by(
    deps: &AuditDeps,
    registry: &GenerationRegistry,
    budget: &Budget,
    step: HistoryStep,
    now_ms: u64,
) -> Result<Vec<PeopleAt>, BackendError> {
    let end = step.next_instant(now_ms);
    let oldest = HistoryInstant(end.0.saturating_sub(MAX_DAYS)).max(step.oldest_kept(now_ms));
    let (generation, partitions) = (registry.active.generation, registry.active.log.partitions);
    let store = deps.store.as_ref();
    let read = || read_history(store, generation, partitions, &budget.id, step, oldest..end);
    let points = retry(read).await?.unwrap_or_default();
    let people = |point: &schemas::InstantTotals| PeopleAt {
        at: timestamp(point.instant.at_ms(step)),
        people: point.totals.people,
    };
    Ok(points.iter().map(people).collect())
}

async fn records(
    deps: &AuditDeps,
    registry: &GenerationRegistry,
) -> Result<RecordsReport, BackendError> {
    let mut records = RecordsReport { applied: 0, ignored: 0, dead_lettered: 0 };
    for partition in registry.active.log.partitions.partitions() {
        let id = PartitionRef { generation: registry.active.generation, partition };
        let Some(stored) = retry(|| deps.store.read_partition(id)).await? else { continue };
        let RecordCounts { applied, duplicates, dead_lettered } = stored.checkpoint.tally;
        records.applied += applied;
        records.ignored += duplicates;
        records.dead_lettered += dead_lettered;
    }
    Ok(records)
}

impl AuditVerdict {
    fn of(report: &AuditReport) -> Self {
        let AuditReport { differences, unchecked, records, .. } = report;
        let verdict = match (differences.is_empty(), unchecked.is_empty()) {
            (false, _) => "different",
            (true, false) => "incomplete",
            (true, true) => "clean",
        };
        let findings = differences.iter().map(ToString::to_string);
        let findings = findings.chain(unchecked.iter().map(|it| format!("not compared: {it}")));
        Self {
            verdict,
            records: *records,
            differences: differences.len(),
            not_compared: unchecked.len(),
            findings: findings.take(MAX_FINDINGS).collect(),
        }
    }
}

fn timestamp(ms: u64) -> Timestamp {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX)
}
