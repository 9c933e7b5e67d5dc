//! `GET /v1/admin/generations`: all generations, and the progress of the shadow generations.

use axum::Json;
use axum::extract::State;
use runtime::problem::{Problem, ProblemKind};
use schemas::{GenerationRecord, PartitionReport, TotalsComparison};
use serde::Serialize;
use utoipa::ToSchema;

use crate::registry::{RegistryOverview, RegistryReader};
use crate::rfc3339::rfc3339;
use crate::routes::RETRY_AFTER;

/// All generations by number; empty before the first processor started.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct GenerationList {
    /// Number of changes of the registry.
    revision: u64,
    /// Number of switches of the active generation.
    term: u32,
    generations: Vec<GenerationView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct GenerationView {
    generation: u32,
    state: GenerationState,
    topic: String,
    partition_count: u32,
    /// Whether a building generation is only verified and never becomes active.
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
    /// When the build of a building generation began.
    #[serde(skip_serializing_if = "Option::is_none")]
    begun_at: Option<String>,
    /// The job that builds a building generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// Progress of each partition of a shadow generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<Vec<PartitionView>>,
}

/// A generation's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum GenerationState {
    /// Serves reads.
    #[serde(rename = "current")]
    Active,
    /// Is being built; becomes active next.
    Building,
    /// Was active before; a rollback makes it active again.
    Previous,
    /// No longer needed; not all of its rows are deleted yet.
    Retired,
}

/// A shadow partition's progress in its owner's latest report.
#[derive(Debug, Serialize, ToSchema)]
struct PartitionView {
    partition: usize,
    /// `null` before the first report.
    report: Option<ReportView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ReportView {
    /// Position up to which totals are committed.
    position: u64,
    /// Position up to which person rows are written.
    rows_position: u64,
    /// End of the log at the time of the report.
    log_end: u64,
    reported_at: Option<String>,
    /// Why the partition makes no progress; `null` if it does.
    #[serde(rename = "trouble")]
    stall_reason: Option<String>,
    /// The latest comparison with the active generation; `null` before the first.
    #[serde(rename = "compared")]
    comparison: Option<ComparisonView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ComparisonView {
    with: u32,
    /// The position of both generations.
    position: u64,
    /// One line per difference; empty if the totals are equal.
    differences: Vec<String>,
}

#[utoipa::path(
    get,
    path = "/v1/admin/generations",
    tag = "administration",
    operation_id = "listGenerations",
    summary = "The generations and the progress of each",
    responses(
        (status = 200, description = "The generations", body = GenerationList, content_type = "application/json"),
    ),
    security(("administrator" = ["viewer"])),
)]
pub(super) async fn list(
    State(reader): State<RegistryReader>,
) -> Result<Json<GenerationList>, Problem> {
    let overview = reader.read().await.map_err(|error| {
        tracing::warn!(%error, "failed to read the generation registry");
        Problem::new(ProblemKind::Unavailable)
            .detail("the generation registry cannot be read now")
            .retry_after(RETRY_AFTER)
    })?;
    Ok(Json(overview.map(GenerationList::of).unwrap_or_default()))
}

impl GenerationList {
    fn of(RegistryOverview { registry, mut shadow_reports }: RegistryOverview) -> Self {
        let mut partitions = |record: &GenerationRecord| {
            let index = shadow_reports.iter().position(|(of, _)| *of == record.generation)?;
            Some(shadow_reports.swap_remove(index).1)
        };
        let mut generations =
            vec![GenerationView::of(&registry.active, GenerationState::Active, None)];
        if let Some(building) = &registry.building {
            let record = &building.record;
            generations.push(GenerationView {
                dry_run: Some(building.dry_run),
                begun_at: rfc3339(building.begun_at_ms),
                job: building.job.map(|job| job.to_string()),
                ..GenerationView::of(record, GenerationState::Building, partitions(record))
            });
        }
        if let Some(record) = &registry.previous {
            generations.push(GenerationView::of(
                record,
                GenerationState::Previous,
                partitions(record),
            ));
        }
        generations.extend(
            registry
                .retired
                .iter()
                .map(|record| GenerationView::of(record, GenerationState::Retired, None)),
        );
        generations.sort_by_key(|entry| entry.generation);
        Self { revision: registry.revision, term: registry.term, generations }
    }
}

impl GenerationView {
    fn of(
        record: &GenerationRecord,
        state: GenerationState,
        reports: Option<Vec<Option<PartitionReport>>>,
    ) -> Self {
        let partitions = reports.map(|reports| {
            let reports = reports.into_iter().enumerate();
            reports
                .map(|(partition, report)| PartitionView {
                    partition,
                    report: report.map(ReportView::of),
                })
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

impl ReportView {
    fn of(report: PartitionReport) -> Self {
        Self {
            position: report.position.0,
            rows_position: report.rows_position.0,
            log_end: report.log_end.0,
            reported_at: rfc3339(report.reported_at_ms),
            stall_reason: report.stall_reason,
            comparison: report.comparison.map(ComparisonView::of),
        }
    }
}

impl ComparisonView {
    fn of(compared: TotalsComparison) -> Self {
        Self {
            with: compared.with.0,
            position: compared.position.0,
            differences: compared.differences,
        }
    }
}
