//! `rebuild`: submits a rebuild job and watches it.
//!
//! The job does the work (`operations::jobs`); this command only checks the log before, and prints the result. A
//! rebuild job of the same purpose that is already queued or running is watched instead of submitting another.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use generations::rebuild::{RebuildError, is_joinable, target_positions};
use generations::registry::{RegistryUpdateError, active_log, begin};
use operations::jobs::{RebuildComparison, rebuild_result};
use runtime::clock::now_ms;
use runtime::config::ConfigArgs;
use runtime::console;
use schemas::job::{Job, JobId, JobKind, JobState, NewJob, Priority};
use storage::config::{StorageConfig, StoreHandles};
use storage::jobs::{JobStore, JobUpdateError, submit};
use storage::log::LogReaderOpener;
use storage::log::archive::ArchiveCheckReport;
use storage::open_error::OpenError;
use storage::store::StoreError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::archive::{ArchiveCommandError, check_configured};
use super::job_watch::{WatchError, exit_code, wait_for_inactivity, watch_job};
use super::jobs::current_user;
use super::{EXIT_FAILED, EXIT_INTERRUPTED, MAX_PRINTED_LINES, push_first_lines};

/// Rebuild all totals from the log as a new generation, verify it against the active one, and switch
///
/// A processor runs the rebuild as a background job, which continues if this command is interrupted; the same command
/// watches it again. The previous generation is kept for `generations rollback` until `generations retire`. Exit code:
/// 0 no differences, 1 differences found, 2 not done.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// Configuration of the log and the store.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Compare only, then discard the new generation
    #[arg(long)]
    pub dry_run: bool,
    /// Check the archive of `archive.dir` first and refuse to start if anything is missing or damaged
    ///
    /// The archive has the beginning of a log that was truncated. The processors must be configured with the same
    /// archive.
    #[arg(long)]
    pub from_archive: bool,
}

#[derive(Debug, thiserror::Error)]
enum RebuildCommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Registry(#[from] RegistryUpdateError),
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    #[error(transparent)]
    Check(#[from] ArchiveCommandError),
    #[error("the archive is incomplete, and nothing was started:\n{0}")]
    Archive(String),
    #[error(transparent)]
    Submit(#[from] JobUpdateError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("{0}")]
    Dead(String),
    #[error("job {0} was cancelled")]
    Cancelled(JobId),
    #[error("the result of job {0} cannot be decoded")]
    NoResult(JobId),
}

/// Rebuilds the deployment that `storage` configures, until `stop` ends the watching, and prints the result.
pub(super) async fn rebuild_command(
    args: &RebuildArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    // Boxed: the compiler cannot compute the layout of a future nested this deep.
    let checking = Box::pin(async {
        if args.from_archive {
            require_complete_archive(storage).await?;
        }
        check(args.dry_run, storage).await
    });
    let stores = match stop.run_until_cancelled(checking).await {
        Some(Ok(stores)) => stores,
        Some(Err(error)) => return failed(&error),
        None => {
            console::err("rebuild: interrupted; nothing was started\n");
            return ExitCode::from(EXIT_INTERRUPTED);
        }
    };
    match submit_and_watch(args.dry_run, stores.jobs.as_ref(), stop).await {
        Ok(Some(ended)) => match result_text(&ended, args.dry_run) {
            Ok(text) => {
                console::out(&text);
                ExitCode::from(exit_code(&ended))
            }
            Err(error) => failed(&error),
        },
        Ok(None) => {
            console::err(
                "rebuild: interrupted; the job continues, and the same command watches it again\n",
            );
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &RebuildCommandError) -> ExitCode {
    console::err(&format!("rebuild: {error}\n"));
    ExitCode::from(EXIT_FAILED)
}

/// Opens the store, and refuses what the job could only refuse later.
async fn check(
    dry_run: bool,
    storage: &StorageConfig,
) -> Result<StoreHandles, RebuildCommandError> {
    let stores = storage.open_existing_store().await?;
    let log = active_log(stores.store.as_ref(), &storage.first_log()).await?;
    // A log without its beginning is refused here, by the archive that this command is configured with.
    target_positions(storage.open(&log).await?.as_ref()).await?;
    let registry = stores.store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
    match &registry.building {
        Some(building) if !is_joinable(building, &log, dry_run) => {
            Err(RebuildError::PurposeConflict(building.record.generation).into())
        }
        Some(_) => Ok(stores),
        None => {
            begin(&registry, dry_run, now_ms()).map_err(RegistryUpdateError::Refused)?;
            Ok(stores)
        }
    }
}

async fn submit_and_watch(
    dry_run: bool,
    jobs: &dyn JobStore,
    stop: CancellationToken,
) -> Result<Option<Job>, RebuildCommandError> {
    let job = match open_rebuild(jobs, dry_run).await? {
        Some(job) => job,
        None => {
            let now_ms = now_ms();
            let id = JobId::new(now_ms, Uuid::new_v4());
            // A command whose operator waits goes before scheduled work.
            let (kind, priority) = (JobKind::Rebuild { dry_run }, Priority::High);
            let new = NewJob { id, kind, priority, requested_by: current_user() };
            submit(jobs, new, now_ms).await?
        }
    };
    let id = job.id;
    tokio::select! {
        watched = watch_job("rebuilding ", jobs, job, stop) => Ok(watched?),
        no_worker = wait_for_inactivity(jobs, id) => Err(no_worker.into()),
    }
}

/// A rebuild job of the same purpose that has not ended.
async fn open_rebuild(jobs: &dyn JobStore, dry_run: bool) -> Result<Option<Job>, StoreError> {
    let kind = JobKind::Rebuild { dry_run };
    let is_open = |job: &Job| job.kind == kind && !job.is_ended() && !job.is_cancelling();
    Ok(jobs.job_rows().await?.jobs.into_iter().find(is_open))
}

async fn require_complete_archive(storage: &StorageConfig) -> Result<(), RebuildCommandError> {
    let ArchiveCheckReport { faults, segments, records } = check_configured(storage).await?;
    if !faults.is_empty() {
        let printed: Vec<String> = faults.into_iter().take(MAX_PRINTED_LINES).collect();
        return Err(RebuildCommandError::Archive(printed.join("\n")));
    }
    console::err(&format!("the archive is complete: {records} records in {segments} segments\n"));
    Ok(())
}

/// Formats an ended rebuild; the last line is the summary that scripts read.
fn result_text(ended: &Job, dry_run: bool) -> Result<String, RebuildCommandError> {
    match &ended.state {
        JobState::Dead { reason, .. } => return Err(RebuildCommandError::Dead(reason.to_string())),
        JobState::Cancelled { .. } => return Err(RebuildCommandError::Cancelled(ended.id)),
        JobState::Queued { .. } | JobState::Running { .. } | JobState::Succeeded { .. } => {}
    }
    let outcome = if dry_run { "given up: a dry run" } else { "answers now" };
    let (generation, comparison) =
        rebuild_result(ended).ok_or(RebuildCommandError::NoResult(ended.id))?;
    // Another command compared this generation and switched to it, so its result is not this job's.
    let RebuildComparison { before, records, differences, lines } =
        comparison.ok_or(RebuildError::NoLongerBuilding(generation))?;
    let mut text = String::new();
    push_first_lines(&mut text, lines.as_str().lines(), differences);
    let _ = writeln!(
        text,
        "REBUILD generation={generation} compared_with={before} records={records} differences={differences} {outcome}"
    );
    Ok(text)
}
