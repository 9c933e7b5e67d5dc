//! `GET /v1/admin/generations`: which generations there are, which one answers, how far those beside it have come.

use axum::Json;
use axum::extract::State;
use runtime::problem::{Problem, ProblemKind};
use schemas::{Compared, GenerationRecord, PartitionReport};
use serde::Serialize;

use super::rfc3339;
use crate::roster::{Overview, RosterReader};
use crate::routes::RETRY_AFTER;

/// Every generation, by number; none before the first processor began.
#[derive(Debug, Default, Serialize)]
pub(super) struct List {
    /// Counts the changes of the list.
    revision: u64,
    /// Counts how often another generation began to answer.
    term: u32,
    generations: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    generation: u32,
    state: Standing,
    topic: String,
    partition_count: u32,
    /// Of one that is being built: whether it is compared only, and never answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
    /// Of one that is being built.
    #[serde(skip_serializing_if = "Option::is_none")]
    begun_at: Option<String>,
    /// Of one that a job builds: which.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// Of those that are folded beside the one that answers: each partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<Vec<Partition>>,
}

/// What a generation is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    /// It answers.
    Current,
    /// It is to answer next.
    Building,
    /// It answered before, and may again.
    Previous,
    /// Its rows are no longer needed and not all deleted.
    Retired,
}

/// How far a partition has come, as its owner said last.
#[derive(Debug, Serialize)]
struct Partition {
    partition: usize,
    /// `null` if nobody has said anything yet.
    report: Option<Report>,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Up to here its totals are committed.
    position: u64,
    /// Up to here everyone's row is written.
    rows_position: u64,
    /// Here the log ended then.
    log_end: u64,
    reported_at: Option<String>,
    /// Why it does not come on; `null` if it does.
    trouble: Option<String>,
    /// The latest comparison with the generation that answers; `null` before the first.
    compared: Option<Comparison>,
}

#[derive(Debug, Serialize)]
struct Comparison {
    with: u32,
    /// Where both were.
    position: u64,
    /// A line each; empty if nothing differs.
    differences: Vec<String>,
}

pub(super) async fn list(State(reader): State<RosterReader>) -> Result<Json<List>, Problem> {
    let overview = reader.read().await.map_err(|error| {
        tracing::warn!(%error, "the generations cannot be read");
        Problem::new(ProblemKind::Unavailable)
            .detail("the store does not say which generations there are")
            .retry_after(RETRY_AFTER)
    })?;
    Ok(Json(overview.map(List::of).unwrap_or_default()))
}

impl List {
    fn of(Overview { roster, mut beside }: Overview) -> Self {
        let mut partitions = |record: &GenerationRecord| {
            let place = beside.iter().position(|(of, _)| *of == record.generation)?;
            Some(beside.swap_remove(place).1)
        };
        let mut generations = vec![Entry::of(&roster.current, Standing::Current, None)];
        if let Some(building) = &roster.building {
            let record = &building.record;
            generations.push(Entry {
                dry_run: Some(building.dry_run),
                begun_at: rfc3339(building.begun_at_ms),
                job: building.job.map(|job| job.to_string()),
                ..Entry::of(record, Standing::Building, partitions(record))
            });
        }
        if let Some(record) = &roster.previous {
            generations.push(Entry::of(record, Standing::Previous, partitions(record)));
        }
        generations
            .extend(roster.retired.iter().map(|record| Entry::of(record, Standing::Retired, None)));
        generations.sort_by_key(|entry| entry.generation);
        Self { revision: roster.revision, term: roster.term, generations }
    }
}

impl Entry {
    fn of(
        record: &GenerationRecord,
        state: Standing,
        reports: Option<Vec<Option<PartitionReport>>>,
    ) -> Self {
        let partitions = reports.map(|reports| {
            let reports = reports.into_iter().enumerate();
            reports
                .map(|(partition, report)| Partition { partition, report: report.map(Report::of) })
                .collect()
        });
        Self {
            generation: record.generation.0,
            state,
            topic: record.log.topic.clone(),
            partition_count: record.log.partitions.get(),
            dry_run: None,
            begun_at: None,
            job: None,
            partitions,
        }
    }
}

impl Report {
    fn of(report: PartitionReport) -> Self {
        Self {
            position: report.position.0,
            rows_position: report.rows.0,
            log_end: report.high.0,
            reported_at: rfc3339(report.at_ms),
            trouble: report.trouble,
            compared: report.compared.map(Comparison::of),
        }
    }
}

impl Comparison {
    fn of(compared: Compared) -> Self {
        Self {
            with: compared.with.0,
            position: compared.position.0,
            differences: compared.differences,
        }
    }
}
