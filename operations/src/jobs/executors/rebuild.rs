//! A rebuild as a job: one new generation, however many workers it takes.
//!
//! The generation's number is stored before the generation is begun, and the comparison before the switch. A worker
//! that resumes reads the progress from the registry: a generation that is or was active has been switched to and is
//! not begun again. If another command began and discarded the generation before it was compared, the job chooses a new
//! one.

use std::time::Duration;

use generations::rebuild::{
    RebuildError, RebuildProgress, is_joinable, target_positions, wait_until_compared,
};
use generations::registry::{
    self, RegistryUpdateError, TransitionRefused, delete_retired, update_registry,
};
use runtime::clock::now_ms;
use schemas::job::{BoundedText, Job, JobId, Verdict};
use schemas::{Building, Generation, GenerationRecord, GenerationRegistry};
use serde::{Deserialize, Serialize};
use storage::log::ReadError;
use storage::store::Store;
use tokio::time::sleep;

use super::{JobExecutorDeps, JobFailure, JobLease, JobOutcome};

/// Bytes of differences that a checkpoint keeps; escaped as JSON they may double.
const MAX_LINES_BYTES: usize = 3_000;
const REGISTRY_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The state that the next attempt resumes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Checkpoint {
    /// The generation that this job builds.
    generation: Generation,
    #[serde(rename = "begun")]
    origin: Origin,
    /// The result of the comparison; once stored, the generation may become active.
    #[serde(rename = "found")]
    comparison: Option<RebuildComparison>,
}

/// Who began the job's generation, as far as its workers know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Origin {
    /// It did not exist when the job chose its number: anyone who began it since did so after the job's submission.
    #[serde(rename = "NotYet")]
    NotBegun,
    #[serde(rename = "ByThisJob")]
    ThisJob,
    /// This job began and discarded it, since it could not be built: a retry begins another.
    #[serde(rename = "InVain")]
    Discarded,
    #[serde(rename = "BySomebodyElse")]
    Joined {
        /// Whether the generation was begun after the job's submission. Compares the clocks of the two processes that
        /// wrote the times.
        #[serde(rename = "since_asked")]
        since_submission: bool,
    },
}

impl Origin {
    fn of(building: &Building, job: &JobLease) -> Self {
        if building.job == Some(job.id()) {
            return Self::ThisJob;
        }
        Self::Joined { since_submission: building.begun_at_ms >= job.job().created_at_ms }
    }
}

impl Checkpoint {
    /// Whether an active generation completes the job, whichever command switched to it: everything was derived again
    /// since the job's submission.
    fn is_complete_once_active(&self, dry_run: bool) -> bool {
        let since_submission = self.origin != Origin::Joined { since_submission: false };
        self.comparison.is_some() || (!dry_run && since_submission)
    }

    /// Whether the job may choose another generation after this one ended: it had no effect that could happen twice.
    fn may_be_replaced(&self, dry_run: bool) -> bool {
        self.comparison.is_none() && (dry_run || self.origin != Origin::ThisJob)
    }
}

/// The comparison of a rebuilt generation with the active one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildComparison {
    /// The generation that was active.
    pub before: Generation,
    /// Records folded by each.
    pub records: u64,
    /// Number of differences.
    pub differences: u64,
    /// The first differences, one per line.
    pub lines: BoundedText<MAX_LINES_BYTES>,
}

/// Returns the generation that an ended rebuild job built, and its comparison. The comparison is missing if another
/// command made it.
pub fn rebuild_result(job: &Job) -> Option<(Generation, Option<RebuildComparison>)> {
    let Checkpoint { generation, comparison, .. } = job.checkpoint.as_ref()?.read()?;
    Some((generation, comparison))
}

/// State of the job's generation in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
enum GenerationStatus {
    NotBegun,
    Building(Building),
    /// Active now, or active before a rollback.
    Switched,
    Discarded,
}

fn status(registry: &GenerationRegistry, generation: Generation) -> GenerationStatus {
    let is_it = |record: &GenerationRecord| record.generation == generation;
    if is_it(&registry.active) || registry.previous.as_ref().is_some_and(is_it) {
        return GenerationStatus::Switched;
    }
    match &registry.building {
        Some(building) if is_it(&building.record) => GenerationStatus::Building(building.clone()),
        _ if generation >= registry.next => GenerationStatus::NotBegun,
        _ => GenerationStatus::Discarded,
    }
}

pub(super) async fn run(
    deps: &JobExecutorDeps,
    job: &JobLease,
    dry_run: bool,
) -> Result<JobOutcome, JobFailure> {
    let store = deps.store.as_ref();
    let mut checkpoint = match job.checkpoint::<Checkpoint>()? {
        Some(checkpoint) => checkpoint,
        None => choose_generation(job, &read_registry(store).await?, dry_run).await?,
    };
    loop {
        let registry = read_registry(store).await?;
        let generation = checkpoint.generation;
        let step = match status(&registry, generation) {
            GenerationStatus::NotBegun => {
                // A generation that can never be built is not begun.
                let log = deps.logs.open(&registry.active.log).await?;
                target_positions(log.as_ref()).await.map_err(|error| failure(error, None))?;
                begin(store, job.id(), generation, dry_run).await
            }
            GenerationStatus::Building(building)
                if !is_joinable(&building, &registry.active.log, dry_run) =>
            {
                return Err(failure(RebuildError::PurposeConflict(generation), None));
            }
            GenerationStatus::Building(building) if checkpoint.origin == Origin::NotBegun => {
                checkpoint.origin = Origin::of(&building, job);
                job.save(&checkpoint).await?;
                Ok(())
            }
            GenerationStatus::Building(Building { record, .. }) => {
                let active = registry.active.generation;
                compare_and_finish(deps, job, &mut checkpoint, record, active, dry_run).await
            }
            GenerationStatus::Switched if checkpoint.is_complete_once_active(dry_run) => {
                return Ok(outcome(&checkpoint, "answers now"));
            }
            GenerationStatus::Discarded if dry_run && checkpoint.comparison.is_some() => {
                // The next retirement deletes these rows too, if this call does not.
                if let Err(error) = delete_retired(store).await {
                    tracing::warn!(%error, "failed to delete the rows of a dry run");
                }
                return Ok(outcome(&checkpoint, "given up: a dry run"));
            }
            GenerationStatus::Switched | GenerationStatus::Discarded
                if checkpoint.may_be_replaced(dry_run) =>
            {
                tracing::info!(job = %job.id(), %generation, "generation is no longer being built, choosing another");
                checkpoint = choose_generation(job, &registry, dry_run).await?;
                Ok(())
            }
            GenerationStatus::Switched | GenerationStatus::Discarded => {
                return Err(failure(RebuildError::NoLongerBuilding(generation), None));
            }
        };
        match step {
            Ok(()) => {}
            // The registry shows the new state; the change may have been this worker's own.
            Err(StepError::RegistryChanged) => sleep(REGISTRY_POLL_INTERVAL).await,
            Err(StepError::Failed(failure)) => return Err(failure),
        }
    }
}

pub(super) async fn abort(
    deps: &JobExecutorDeps,
    job: &JobLease,
    dry_run: bool,
) -> Result<Option<JobOutcome>, JobFailure> {
    let store = deps.store.as_ref();
    let Some(checkpoint) = job.checkpoint::<Checkpoint>()? else { return Ok(None) };
    loop {
        match status(&read_registry(store).await?, checkpoint.generation) {
            GenerationStatus::Switched if checkpoint.is_complete_once_active(dry_run) => {
                return Ok(Some(outcome(&checkpoint, "answers now")));
            }
            // A generation that another command began is not this job's to discard.
            GenerationStatus::Building(building) if building.job == Some(job.id()) => {
                if !discard(store, checkpoint.generation).await? {
                    sleep(REGISTRY_POLL_INTERVAL).await;
                }
            }
            GenerationStatus::Building(_)
            | GenerationStatus::NotBegun
            | GenerationStatus::Switched => return Ok(None),
            GenerationStatus::Discarded => {
                delete_retired(store).await.map_err(|error| failure(error.into(), None))?;
                return Ok(None);
            }
        }
    }
}

/// Discards this job's generation. Returns whether it did, and no other command was faster.
async fn discard(store: &dyn Store, generation: Generation) -> Result<bool, JobFailure> {
    match update_registry(store, |registry| registry::cancel(registry, generation)).await {
        Ok(_) => Ok(true),
        Err(RegistryUpdateError::Refused(_)) => Ok(false),
        Err(error) => Err(failure(error.into(), None)),
    }
}

/// Why a step was not taken.
enum StepError {
    RegistryChanged,
    Failed(JobFailure),
}

impl From<JobFailure> for StepError {
    fn from(failure: JobFailure) -> Self {
        Self::Failed(failure)
    }
}

async fn read_registry(store: &dyn Store) -> Result<GenerationRegistry, JobFailure> {
    let registry = store.registry().await?;
    registry.ok_or_else(|| failure(RegistryUpdateError::NoRegistry.into(), None))
}

/// Chooses the job's generation and stores the choice: the one being built if it has the same purpose, else the next
/// number.
async fn choose_generation(
    job: &JobLease,
    registry: &GenerationRegistry,
    dry_run: bool,
) -> Result<Checkpoint, JobFailure> {
    let (generation, origin) = match &registry.building {
        None => (registry.next, Origin::NotBegun),
        Some(building) if is_joinable(building, &registry.active.log, dry_run) => {
            (building.record.generation, Origin::of(building, job))
        }
        Some(building) => {
            return Err(failure(RebuildError::PurposeConflict(building.record.generation), None));
        }
    };
    let chosen = Checkpoint { generation, origin, comparison: None };
    job.save(&chosen).await?;
    Ok(chosen)
}

/// Begins exactly this generation.
async fn begin(
    store: &dyn Store,
    job: JobId,
    generation: Generation,
    dry_run: bool,
) -> Result<(), StepError> {
    let begin = |registry: &GenerationRegistry| match status(registry, generation) {
        GenerationStatus::NotBegun => registry::begin_for_job(job, registry, dry_run, now_ms()),
        _ => Err(TransitionRefused::NotBuilding(generation)),
    };
    registry_step(update_registry(store, begin).await, None)
}

fn registry_step(
    updated: Result<GenerationRegistry, RegistryUpdateError>,
    built: Option<Generation>,
) -> Result<(), StepError> {
    match updated {
        Ok(_) => Ok(()),
        Err(
            RegistryUpdateError::Refused(TransitionRefused::NotBuilding(_))
            | RegistryUpdateError::Unknown,
        ) => Err(StepError::RegistryChanged),
        Err(error) => Err(failure(error.into(), built).into()),
    }
}

/// Waits for the comparison, stores its result, and switches to the generation. A dry run discards the generation
/// instead.
async fn compare_and_finish(
    deps: &JobExecutorDeps,
    job: &JobLease,
    checkpoint: &mut Checkpoint,
    record: GenerationRecord,
    active: Generation,
    dry_run: bool,
) -> Result<(), StepError> {
    let (store, generation) = (deps.store.as_ref(), record.generation);
    let on_progress = |progress: &RebuildProgress| {
        let stalled =
            progress.stall_reasons.first().map(|it| format!("; {it}")).unwrap_or_default();
        let message = format!("{} of {} records folded{stalled}", progress.done, progress.total);
        job.report_progress(progress.done, progress.total, message);
    };
    let log = deps.logs.open(&record.log).await.map_err(JobFailure::from)?;
    let targets = match target_positions(log.as_ref()).await {
        Ok(targets) => targets,
        Err(error) => return Err(cannot_be_built(store, job, checkpoint, error).await?.into()),
    };
    let compared = wait_until_compared(store, &record, active, &targets, on_progress).await;
    let (records, differences) = match compared {
        Ok(compared) => compared,
        Err(RebuildError::NoLongerBuilding(_)) => return Err(StepError::RegistryChanged),
        Err(error) => return Err(failure(error, Some(generation)).into()),
    };
    let lines = first_whole_lines(&differences).into();
    checkpoint.comparison = Some(RebuildComparison {
        before: active,
        records,
        differences: differences.len() as u64,
        lines,
    });
    job.save(&*checkpoint).await?;
    let updated = if dry_run {
        update_registry(store, |registry| registry::cancel(registry, generation)).await
    } else {
        update_registry(store, |registry| registry::switch_active(registry, generation)).await
    };
    registry_step(updated, Some(generation))
}

/// Handles a failure to read the rebuild's target positions. If it is permanent, this job's own generation is
/// discarded, since no other process would discard it.
async fn cannot_be_built(
    store: &dyn Store,
    job: &JobLease,
    checkpoint: &mut Checkpoint,
    error: RebuildError,
) -> Result<JobFailure, JobFailure> {
    let failed = failure(error, None);
    let is_own = checkpoint.origin == Origin::ThisJob;
    if is_own
        && matches!(failed, JobFailure::Permanent(_))
        && discard(store, checkpoint.generation).await?
    {
        checkpoint.origin = Origin::Discarded;
        job.save(&*checkpoint).await?;
        if let Err(error) = delete_retired(store).await {
            tracing::warn!(%error, "failed to delete the rows of a discarded generation");
        }
    }
    Ok(failed)
}

/// Joins as many differences as a checkpoint has space for, none of them truncated.
fn first_whole_lines(differences: &[String]) -> String {
    let mut lines = String::new();
    for line in differences {
        if lines.len() + line.len() > MAX_LINES_BYTES {
            break;
        }
        lines.push_str(line);
        lines.push('\n');
    }
    lines.truncate(lines.trim_end().len());
    lines
}

fn outcome(checkpoint: &Checkpoint, end: &str) -> JobOutcome {
    let Checkpoint { generation, comparison, .. } = checkpoint;
    let Some(RebuildComparison { before, records, differences, lines }) = comparison else {
        // The command that switched to it compared it before and printed the result.
        let result =
            format!("generation {generation} {end}: compared and switched by another command");
        return JobOutcome { verdict: Verdict::Clean, result: result.into() };
    };
    let verdict = if *differences == 0 { Verdict::Clean } else { Verdict::Different };
    let result = format!(
        "generation {generation} {end}; compared with {before}: {records} records, {differences} differences\n{lines}"
    );
    JobOutcome { verdict, result: result.trim_end().into() }
}

/// Sorts an error by what the worker does; `built` is a generation that is still being built regardless.
fn failure(error: RebuildError, built: Option<Generation>) -> JobFailure {
    let mut reason = error.to_string();
    if let Some(generation) = built {
        reason.push_str(&format!(
            " (generation {generation} is still being built: `generations cancel` discards it)"
        ));
    }
    match error {
        RebuildError::Store(error) | RebuildError::Change(RegistryUpdateError::Store(error)) => {
            error.into()
        }
        RebuildError::Change(RegistryUpdateError::Refused(_))
        | RebuildError::NoLongerBuilding(_)
        | RebuildError::LogTruncated(..)
        | RebuildError::Read(ReadError::Missing(_) | ReadError::Damaged(_)) => {
            JobFailure::Permanent(reason)
        }
        RebuildError::Read(ReadError::Unavailable(_))
        // A worker of the newer release may have more luck.
        | RebuildError::Change(
            RegistryUpdateError::Unknown
            | RegistryUpdateError::NoRegistry
            | RegistryUpdateError::NotUnderstood(_),
        )
        | RebuildError::PurposeConflict(_)
        | RebuildError::Stalled(_) => JobFailure::Transient(reason),
    }
}
