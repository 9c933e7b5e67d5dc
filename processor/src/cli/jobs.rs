//! `jobs`: lists, shows, submits, cancels, retries and deletes background jobs.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use runtime::clock::now_ms;
use runtime::config::ConfigArgs;
use runtime::console;
use schemas::BudgetId;
use schemas::job::{
    ExportFormat, JobId, JobKind, JobName, JobTransitionError, NewJob, Priority, cancel, retry,
};
use storage::config::StorageConfig;
use storage::jobs::{JobRows, JobStore, JobUpdateError, submit, update_job};
use storage::open_error::OpenError;
use storage::store::{CasOutcome, StoreError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::export::budget_id;
use super::job_text::{job_details, job_line, job_list};
use super::job_watch::{WatchError, exit_code, watch_job};
use super::{EXIT_FAILED, EXIT_INTERRUPTED};

/// List, submit, cancel and retry background jobs, which the processors run
#[derive(Debug, Args)]
pub struct JobsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List queued and running jobs and the last hundred ended ones, oldest first
    List(ConfigArgs),
    Show(OneArgs),
    Submit(SubmitArgs),
    /// Cancel a job: at once if it is queued, otherwise once its worker has undone its effects
    Cancel(OneArgs),
    /// Retry a dead job from its checkpoint
    Retry(OneArgs),
    /// Delete a job row that cannot be decoded
    Delete(OneArgs),
}

/// Show one job
#[derive(Debug, Args)]
struct OneArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Id of the job
    id: JobId,
}

/// Submit a job and print its id
#[derive(Debug, Args)]
struct SubmitArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Kind of job
    kind: Kind,
    /// For rebuild: compare only, then discard the new generation
    #[arg(long)]
    dry_run: bool,
    /// For export and report: id of the budget
    #[arg(long, value_name = "ID", value_parser = budget_id, required_if_eq_any([("kind", "export"), ("kind", "report")]))]
    budget: Option<BudgetId>,
    /// For export: format of the file, csv, ndjson, pb or parquet
    #[arg(long, required_if_eq("kind", "export"))]
    format: Option<ExportFormat>,
    /// For export: publish the file in place of the previous one
    #[arg(long)]
    publish: bool,
    /// Priority: critical, high, normal or low
    #[arg(long, default_value_t)]
    priority: Priority,
    /// Show progress until the job has ended. Exit code: 0 done without differences, 1 differences found, 2 not done or
    /// not everything compared
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Rebuild all totals from the log and switch to them
    Rebuild,
    /// Compare everything derived with the log
    Audit,
    /// Publish all committed totals to the cache
    WarmCaches,
    /// Write the current allocations of a budget to a file
    Export,
    /// Write the report of a budget, with the verdict of an audit, to files
    Report,
    /// Copy the committed log into the archive
    Archive,
}

impl SubmitArgs {
    /// The job kind, or `None` if an option of another kind is given.
    fn kind(&self) -> Option<JobKind> {
        let Self { kind, dry_run, budget, format, publish, .. } = self;
        Some(match (kind, *dry_run, budget.clone(), *format, *publish) {
            (Kind::Rebuild, dry_run, None, None, false) => JobKind::Rebuild { dry_run },
            (Kind::Audit, false, None, None, false) => JobKind::Audit,
            (Kind::WarmCaches, false, None, None, false) => JobKind::WarmCaches,
            (Kind::Export, false, Some(budget), Some(format), publish) => {
                JobKind::Export { budget, format, publish }
            }
            (Kind::Report, false, Some(budget), None, false) => JobKind::Report { budget },
            (Kind::Archive, false, None, None, false) => JobKind::Archive,
            _ => return None,
        })
    }
}

impl JobsArgs {
    /// Configuration of the store.
    pub fn config(&self) -> &ConfigArgs {
        match &self.action {
            Action::List(config) => config,
            Action::Show(args)
            | Action::Cancel(args)
            | Action::Retry(args)
            | Action::Delete(args) => &args.config,
            Action::Submit(args) => &args.config,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum JobsCommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Change(#[from] JobUpdateError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("{}", JobTransitionError::Missing(*.0))]
    Missing(JobId),
    #[error("job {0} is readable: cancel it instead")]
    Readable(JobId),
    #[error("job {0} has just changed: show it again")]
    Changed(JobId),
    #[error("--dry-run is for a rebuild; --budget, --format and --publish are for an export")]
    NotOfThisKind,
}

/// Runs the subcommand on the jobs that `storage` configures, until `stop` ends the watching.
pub async fn jobs_command(
    args: &JobsArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    match run_action(&args.action, storage, stop).await {
        Ok(code) => code,
        Err(error) => {
            console::err(&format!("jobs: {error}\n"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

async fn run_action(
    action: &Action,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> Result<ExitCode, JobsCommandError> {
    let jobs = storage.open_existing_store().await?.jobs;
    let jobs = jobs.as_ref();
    match action {
        Action::List(_) => console::out(&job_list(&jobs.job_rows().await?)),
        Action::Show(OneArgs { id, .. }) => {
            let job = jobs.job(*id).await?;
            console::out(&job_details(&job.ok_or(JobsCommandError::Missing(*id))?, now_ms()));
        }
        Action::Submit(args) => return submit_and_watch(args, jobs, stop).await,
        Action::Cancel(OneArgs { id, .. }) => {
            let job = update_job(jobs, *id, |job| cancel(job, now_ms())).await?;
            console::out(&format!("{}\n", job_line(&job)));
        }
        Action::Retry(OneArgs { id, .. }) => {
            let job = update_job(jobs, *id, |job| retry(job, now_ms())).await?;
            console::out(&format!("{}\n", job_line(&job)));
        }
        Action::Delete(OneArgs { id, .. }) => {
            delete(jobs, *id).await?;
            console::out(&format!("{id}  deleted\n"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn submit_and_watch(
    args: &SubmitArgs,
    jobs: &dyn JobStore,
    stop: CancellationToken,
) -> Result<ExitCode, JobsCommandError> {
    let kind = args.kind().ok_or(JobsCommandError::NotOfThisKind)?;
    let now_ms = now_ms();
    let id = JobId::new(now_ms, Uuid::new_v4());
    let new = NewJob { id, kind, priority: args.priority, requested_by: current_user() };
    let job = submit(jobs, new, now_ms).await?;
    console::out(&format!("{id}\n"));
    if !args.watch {
        return Ok(ExitCode::SUCCESS);
    }
    match watch_job("job ", jobs, job, stop).await? {
        Some(ended) => {
            console::out(&format!("{}\n", job_line(&ended)));
            Ok(ExitCode::from(exit_code(&ended)))
        }
        None => {
            console::err(&format!("jobs: interrupted; the job continues: `jobs show {id}`\n"));
            Ok(ExitCode::from(EXIT_INTERRUPTED))
        }
    }
}

/// Deletes a row that cannot be decoded. A readable job is cancelled instead.
async fn delete(jobs: &dyn JobStore, id: JobId) -> Result<(), JobsCommandError> {
    let JobRows { jobs: readable, unreadable } = jobs.job_rows().await?;
    if readable.iter().any(|job| job.id == id) {
        return Err(JobsCommandError::Readable(id));
    }
    let row = unreadable.iter().find(|row| row.id == id).ok_or(JobsCommandError::Missing(id))?;
    match jobs.delete_job(id, row.revision).await? {
        CasOutcome::Applied => Ok(()),
        CasOutcome::Refused => Err(JobsCommandError::Changed(id)),
    }
}

/// The operator's name, from the environment.
pub(super) fn current_user() -> JobName {
    std::env::var("USER").unwrap_or_else(|_| "the command line".to_owned()).into()
}
