//! The commands: `processor jobs` and `allocator jobs`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use runtime::clock::now_ms;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress;
use schemas::BudgetId;
use schemas::job::{
    ExportFormat, Job, JobId, JobKind, JobName, JobRefused, JobState, MAX_ATTEMPTS, NewJob,
    Priority, Verdict, cancel, retry,
};
use storage::config::StorageConfig;
use storage::jobs::{ChangeError, JobRows, JobStore, change, submit};
use storage::opening::OpenError;
use storage::store::{Conditional, StoreError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::export::budget_id;

const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// It was done, and differences were found.
const DIFFERENT: u8 = 1;
/// It was not done, or not all of it.
const NOT_DONE: u8 = 2;
/// What a shell reports for a process that was interrupted.
const INTERRUPTED: u8 = 130;

/// Background jobs: rebuilds, audits and cache warming, which some processor does while it goes on folding.
#[derive(Debug, Args)]
pub struct JobsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Which jobs there are, the oldest first: those that wait or run, and the last hundred that ended.
    List(ConfigArgs),
    Show(OneArgs),
    Submit(SubmitArgs),
    /// Ends a job: at once if it waits, else as soon as its worker has given up what it began.
    Cancel(OneArgs),
    /// Tries a dead job again, from where it was.
    Retry(OneArgs),
    /// Deletes a job that cannot be read: it is damaged, or of a newer release that is not used any more.
    Delete(OneArgs),
}

/// Says everything about one job.
#[derive(Debug, Args)]
struct OneArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Which.
    id: JobId,
}

/// Asks for a job, and says its id.
#[derive(Debug, Args)]
struct SubmitArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// What is to be done.
    kind: Kind,
    /// Of a rebuild: compares only, and gives it up then.
    #[arg(long)]
    dry_run: bool,
    /// Of an export: which budget.
    #[arg(long, value_name = "ID", value_parser = budget_id, required_if_eq("kind", "export"))]
    budget: Option<BudgetId>,
    /// Of an export: csv, ndjson, pb or parquet.
    #[arg(long, required_if_eq("kind", "export"))]
    format: Option<ExportFormat>,
    /// Of an export: hands it out to everybody, in the place of what was published before.
    #[arg(long)]
    publish: bool,
    /// How urgent it is: critical, high, normal or low.
    #[arg(long, default_value_t)]
    priority: Priority,
    /// Shows how it comes on until it has ended. Ends with 0 if it was done and nothing differed, 1 if something did, 2 if
    /// it was not done or something could not be compared.
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Derives everything from the log's first record again, and lets that answer.
    Rebuild,
    /// Compares everything that is derived with the log.
    Audit,
    /// Tells the readers' copy everything that is committed.
    WarmCaches,
    /// Writes everyone's current allocation in a budget to a file.
    Export,
    /// Copies what is committed of the log into its archive.
    Archive,
}

impl SubmitArgs {
    /// What is to be done, if nothing is said that belongs to something else.
    fn kind(&self) -> Option<JobKind> {
        let Self { kind, dry_run, budget, format, publish, .. } = self;
        let of_export = budget.as_ref().zip(*format);
        let is_of_export = budget.is_some() || format.is_some() || *publish;
        Some(match (kind, *dry_run, of_export, is_of_export) {
            (Kind::Rebuild, dry_run, None, false) => JobKind::Rebuild { dry_run },
            (Kind::Audit, false, None, false) => JobKind::Audit,
            (Kind::WarmCaches, false, None, false) => JobKind::WarmCaches,
            (Kind::Export, false, Some((budget, format)), _) => {
                JobKind::Export { budget: budget.clone(), format, publish: *publish }
            }
            (Kind::Archive, false, None, false) => JobKind::Archive,
            _ => return None,
        })
    }
}

impl JobsArgs {
    /// Where the store is.
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
enum CommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("{}", JobRefused::Missing(*.0))]
    Missing(JobId),
    #[error("job {0} can be read: cancel it, if it is not to be done")]
    Readable(JobId),
    #[error("job {0} has been changed just now: look at it again")]
    Changed(JobId),
    #[error("--dry-run is for a rebuild; --budget, --format and --publish are for an export")]
    NotOfThisKind,
}

/// Does what was asked for with the jobs that `storage` configures, until `stop` interrupts the watching.
pub async fn jobs_command(
    args: &JobsArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    match act(&args.action, storage, stop).await {
        Ok(code) => code,
        Err(error) => {
            console::err(&format!("jobs: {error}\n"));
            ExitCode::from(NOT_DONE)
        }
    }
}

async fn act(
    action: &Action,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> Result<ExitCode, CommandError> {
    let jobs = storage.open_existing_store().await?.jobs;
    let jobs = jobs.as_ref();
    match action {
        Action::List(_) => console::out(&list(&jobs.job_rows().await?)),
        Action::Show(OneArgs { id, .. }) => {
            let job = jobs.job(*id).await?;
            console::out(&show(&job.ok_or(CommandError::Missing(*id))?, now_ms()));
        }
        Action::Submit(args) => return submit_and_watch(args, jobs, stop).await,
        Action::Cancel(OneArgs { id, .. }) => {
            let job = change(jobs, *id, |job| cancel(job, now_ms())).await?;
            console::out(&format!("{}\n", line(&job)));
        }
        Action::Retry(OneArgs { id, .. }) => {
            let job = change(jobs, *id, |job| retry(job, now_ms())).await?;
            console::out(&format!("{}\n", line(&job)));
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
) -> Result<ExitCode, CommandError> {
    let kind = args.kind().ok_or(CommandError::NotOfThisKind)?;
    let now_ms = now_ms();
    let id = JobId::new(now_ms, Uuid::new_v4());
    let new = NewJob { id, kind, priority: args.priority, asked_by: this_person() };
    let job = submit(jobs, new, now_ms).await?;
    console::out(&format!("{id}\n"));
    if !args.watch {
        return Ok(ExitCode::SUCCESS);
    }
    match watch(jobs, job, stop).await? {
        Some(ended) => {
            console::out(&format!("{}\n", line(&ended)));
            Ok(ExitCode::from(exit_code(&ended)))
        }
        None => {
            console::err(&format!("jobs: interrupted; it goes on: `jobs show {id}`\n"));
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

/// Deletes a row that cannot be read. What can be is a job, which has an end of its own.
async fn delete(jobs: &dyn JobStore, id: JobId) -> Result<(), CommandError> {
    let JobRows { jobs: readable, unreadable } = jobs.job_rows().await?;
    if readable.iter().any(|job| job.id == id) {
        return Err(CommandError::Readable(id));
    }
    let row = unreadable.iter().find(|row| row.id == id).ok_or(CommandError::Missing(id))?;
    match jobs.delete_job(id, row.revision).await? {
        Conditional::Applied => Ok(()),
        Conditional::Refused => Err(CommandError::Changed(id)),
    }
}

/// Whoever gives the command, as far as the environment says.
fn this_person() -> JobName {
    std::env::var("USER").unwrap_or_else(|_| "the command line".to_owned()).into()
}

/// Shows how a job comes on. The job once it has ended; `None` if it was interrupted.
async fn watch(
    jobs: &dyn JobStore,
    job: Job,
    stop: CancellationToken,
) -> Result<Option<Job>, CommandError> {
    let (id, done) = (job.id, CancellationToken::new());
    let seen = Mutex::new(job);
    let shown = progress::show("job ", done.clone(), |_| {
        let job = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let message = format!("{} {}", job.state.name(), job.progress.line);
        let line = line(&job);
        progress::Look { done: job.progress.done, of: job.progress.of, message, line }
    });
    let watching = async {
        loop {
            match jobs.job(id).await {
                Ok(Some(job)) if job.is_ended() => return Ok(job),
                Ok(Some(job)) => *seen.lock().unwrap_or_else(PoisonError::into_inner) = job,
                Ok(None) => return Err(CommandError::Missing(id)),
                // It is asked again soon.
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let watched = async {
        let watched = stop.run_until_cancelled(watching).await;
        done.cancel();
        watched
    };
    let (watched, ()) = tokio::join!(watched, shown);
    watched.transpose()
}

fn exit_code(ended: &Job) -> u8 {
    match &ended.state {
        JobState::Succeeded { verdict: Verdict::Clean, .. } => 0,
        JobState::Succeeded { verdict: Verdict::Different, .. } => DIFFERENT,
        _ => NOT_DONE,
    }
}

fn list(JobRows { jobs, unreadable }: &JobRows) -> String {
    let mut text = String::new();
    for job in jobs {
        let _ = writeln!(text, "{}", line(job));
    }
    for row in unreadable {
        let _ = writeln!(text, "{}  cannot be read: of a newer release, or damaged", row.id);
    }
    let count = |state: &str| jobs.iter().filter(|job| job.state.name() == state).count();
    let counts: Vec<String> =
        JobState::NAMES.iter().map(|state| format!("{state}={}", count(state))).collect();
    let _ = writeln!(text, "JOBS {} unreadable={}", counts.join(" "), unreadable.len());
    text
}

/// A job in one line.
fn line(job: &Job) -> String {
    let kind = job.kind.to_string();
    let mut text = format!("{}  {:8}  {kind:17}  {:9}", job.id, job.priority, job.state.name());
    let what = match &job.state {
        JobState::Queued { cancelling: true, .. } | JobState::Running { cancelling: true, .. } => {
            "is being given up"
        }
        JobState::Queued { .. } => job.failed.last().map_or("", |last| last.error.as_str()),
        JobState::Running { .. } => job.progress.line.as_str(),
        JobState::Succeeded { result, .. } => result.as_str(),
        JobState::Dead { reason, .. } => reason.as_str(),
        JobState::Cancelled { .. } => "",
    };
    let first = what.lines().next().unwrap_or_default();
    let _ = write!(text, "  {first}");
    text.trim_end().to_owned()
}

/// Everything about a job.
fn show(job: &Job, now_ms: u64) -> String {
    let ago = |at_ms: u64| format!("{} s ago", now_ms.saturating_sub(at_ms) / 1_000);
    let mut text = format!("job {}\n", job.id);
    let mut say = |what: &str, value: String| {
        let _ = writeln!(text, "  {what:9} {}", value.replace('\n', "\n            "));
    };
    say("kind", job.kind.to_string());
    say("priority", job.priority.to_string());
    say("asked by", format!("{}, {}", job.asked_by, ago(job.created_at_ms)));
    say("state", job.state.name().to_owned());
    match &job.state {
        JobState::Queued { not_before_ms, cancelling } => {
            if let wait @ 1.. = not_before_ms.saturating_sub(now_ms) {
                say("due", format!("in {} s", wait.div_ceil(1_000)));
            }
            if *cancelling {
                say("cancel", "is given up by the next worker".to_owned());
            }
        }
        JobState::Running { attempt, cancelling } => {
            say("worker", format!("{}, since {}", attempt.worker, ago(attempt.began_at_ms)));
            say("heard of", ago(job.changed_at_ms));
            if *cancelling {
                say("cancel", "is given up by its worker".to_owned());
            }
        }
        JobState::Succeeded { attempt, ended_at_ms, verdict, result } => {
            let took_ms = ended_at_ms.saturating_sub(attempt.began_at_ms);
            say("worker", format!("{}, in {} ms", attempt.worker, took_ms));
            say("ended", ago(*ended_at_ms));
            say("verdict", verdict.name().to_owned());
            say("result", result.to_string());
        }
        JobState::Dead { ended_at_ms, reason, cancelling } => {
            say("ended", ago(*ended_at_ms));
            say("reason", reason.to_string());
            if *cancelling {
                say("cancel", "is given up by whoever retries it".to_owned());
            }
        }
        JobState::Cancelled { ended_at_ms } => say("ended", ago(*ended_at_ms)),
    }
    if !job.progress.line.as_str().is_empty() {
        say("progress", job.progress.line.to_string());
    }
    say("attempts", format!("{} of {MAX_ATTEMPTS}", job.attempts()));
    for failed in &job.failed {
        let when = ago(failed.failed_at_ms);
        say("failed", format!("{} of {}: {}", when, failed.attempt.worker, failed.error));
    }
    text
}
