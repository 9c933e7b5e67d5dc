//! Executors: one file per kind of job.

mod annulment;
mod annulment_lock;
mod archive;
mod audit;
mod dead_letters;
mod export;
mod rebuild;
mod report;
mod warm;

pub use rebuild::{RebuildComparison, rebuild_result};

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use generations::registry::FoldVersionGate;
use schemas::job::JobKind;
use schemas::{Budget, BudgetId, GenerationRegistry, LogRef};
use storage::cache::Cache;
use storage::control::{AnnulmentRegisters, BudgetDefinitions, Catalog};
use storage::exports::Exports;
use storage::log::{DeadLetterJournal, LogReaderOpener, LogWriter, ReadError};
use storage::open_error::OpenError;
use storage::signals::SignalReader;
use storage::store::{Store, StoreError};
use tokio::time::sleep;

use super::{JobExecutor, JobFailure, JobLease, JobOutcome};
use crate::BackendError;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Dependencies of all executors.
pub struct JobExecutorDeps {
    /// The logs.
    pub logs: Arc<dyn LogReaderOpener>,
    /// Totals and people.
    pub store: Arc<dyn Store>,
    /// The cache.
    pub cache: Arc<dyn Cache>,
    /// The budget definitions.
    pub definitions: Arc<dyn BudgetDefinitions>,
    /// The dead letter journal.
    pub dead_letter_journal: Arc<dyn DeadLetterJournal>,
    /// Appends replayed records and annulments to the log.
    pub writer: Arc<dyn LogWriter>,
    /// The operators' list of annulments.
    pub annulments: Arc<dyn AnnulmentRegisters>,
    /// The signals of submissions, by which people are selected.
    pub signals: Arc<dyn SignalReader>,
    /// The directory of the logs' archives, if there is one.
    pub archive_dir: Option<PathBuf>,
    /// Writes exports.
    pub exports: Exports,
}

/// Executes every kind of job.
pub struct JobExecutors {
    deps: JobExecutorDeps,
    fold_version: FoldVersionGate,
}

impl JobExecutors {
    /// Creates executors with these dependencies.
    pub fn new(deps: JobExecutorDeps) -> Self {
        Self { deps, fold_version: FoldVersionGate::default() }
    }
}

#[async_trait]
impl JobExecutor for JobExecutors {
    async fn run(&self, job: &JobLease) -> Result<JobOutcome, JobFailure> {
        match job.kind() {
            JobKind::Rebuild { dry_run } => rebuild::run(&self.deps, job, *dry_run).await,
            JobKind::Audit => audit::run(&self.deps, job).await,
            JobKind::WarmCaches => warm::run(&self.deps, job).await,
            JobKind::Export { budget, format, publish } => {
                export::run(&self.deps, job, budget, *format, *publish).await
            }
            JobKind::Report { budget } => report::run(&self.deps, job, budget).await,
            JobKind::Archive => archive::run(&self.deps, job).await,
            JobKind::ReplayDeadLetter { dead_letter, resume } => {
                dead_letters::replay(&self.deps, job, *dead_letter, *resume).await
            }
            JobKind::DropDeadLetter { dead_letter } => {
                dead_letters::drop_one(&self.deps, *dead_letter).await
            }
            JobKind::Annul { annulment } => {
                annulment::annul(&self.deps, &self.fold_version, job, annulment).await
            }
            JobKind::RestoreAnnulment { budget, annulment, dry_run } => {
                annulment::restore(
                    &self.deps,
                    &self.fold_version,
                    job,
                    budget,
                    *annulment,
                    *dry_run,
                )
                .await
            }
        }
    }

    async fn abort(&self, job: &JobLease) -> Result<Option<JobOutcome>, JobFailure> {
        match job.kind() {
            JobKind::Rebuild { dry_run } => rebuild::abort(&self.deps, job, *dry_run).await,
            JobKind::ReplayDeadLetter { dead_letter, .. } => {
                dead_letters::replayed(&self.deps, *dead_letter).await
            }
            JobKind::Annul { annulment } => annulment::cancel(&self.deps, annulment).await,
            // Nothing to undo: these leave nothing behind that matters, and a restoration can be repeated.
            JobKind::Audit
            | JobKind::WarmCaches
            | JobKind::Export { .. }
            | JobKind::Report { .. }
            | JobKind::Archive
            | JobKind::DropDeadLetter { .. }
            | JobKind::RestoreAnnulment { .. } => Ok(None),
        }
    }
}

impl JobExecutorDeps {
    /// Reads the generation registry.
    async fn registry(&self) -> Result<GenerationRegistry, JobFailure> {
        let registry = self.store.registry().await?;
        registry.ok_or_else(|| JobFailure::Transient("no processor has started yet".to_owned()))
    }

    /// Reads the active generation's log from the registry.
    async fn active_log(&self) -> Result<LogRef, JobFailure> {
        Ok(self.registry().await?.active.log)
    }

    /// Returns the budget definitions once they are loaded.
    fn catalog(&self) -> Result<Arc<Catalog>, JobFailure> {
        if !self.definitions.is_loaded() {
            let reason = "the budget definitions are not loaded yet".to_owned();
            return Err(JobFailure::Transient(reason));
        }
        Ok(self.definitions.catalog())
    }

    /// Returns a budget's definition.
    fn definition(&self, budget: &BudgetId) -> Result<Arc<Budget>, JobFailure> {
        let catalog = self.catalog()?;
        if catalog.is_unreadable(budget.as_str()) {
            let reason = format!("only a newer release can read the definition of `{budget}`");
            return Err(JobFailure::Transient(reason));
        }
        let definition = catalog.get(budget.as_str()).cloned();
        definition.ok_or_else(|| JobFailure::Permanent(format!("there is no budget `{budget}`")))
    }
}

impl From<BackendError> for JobFailure {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Unavailable(reason) => Self::Transient(reason),
            BackendError::Invalid(reason) => Self::Permanent(reason),
        }
    }
}

impl From<ReadError> for JobFailure {
    fn from(error: ReadError) -> Self {
        BackendError::from(error).into()
    }
}

impl From<OpenError> for JobFailure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Unavailable { .. } => Self::Transient(error.to_string()),
            OpenError::Invalid { .. } | OpenError::Secret(_) => Self::Permanent(error.to_string()),
        }
    }
}

impl From<StoreError> for JobFailure {
    fn from(error: StoreError) -> Self {
        BackendError::from(error).into()
    }
}

/// Runs `work` and reports its progress meanwhile: done, total, and a message.
async fn report_while<T>(
    job: &JobLease,
    progress: impl Fn() -> (u64, u64, String),
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    loop {
        let finished = tokio::select! {
            done = &mut work => Some(done),
            () = sleep(PROGRESS_INTERVAL) => None,
        };
        let (done, total, message) = progress();
        job.report_progress(done, total, message);
        if let Some(result) = finished {
            return result;
        }
    }
}
