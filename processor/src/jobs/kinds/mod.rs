//! What is done for each kind of job.

mod archive;
mod audit;
mod dead_letters;
mod export;
mod rebuild;
mod warm;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::LogRef;
use schemas::job::JobKind;
use storage::cache::Cache;
use storage::definitions::Definitions;
use storage::exports::Exports;
use storage::log::{LetterBook, LogReaders, LogWriter};
use storage::opening::OpenError;
use storage::store::{Store, StoreError};
use tokio::time::sleep;

use super::{Done, Failure, Held, Runner};

const TELL_INTERVAL: Duration = Duration::from_millis(500);

/// The places that jobs are about.
pub struct KindsParts {
    /// The logs.
    pub logs: Arc<dyn LogReaders>,
    /// Totals and people.
    pub store: Arc<dyn Store>,
    /// The readers' copy.
    pub cache: Arc<dyn Cache>,
    /// Which budgets there are.
    pub definitions: Arc<dyn Definitions>,
    /// The book of dead letters.
    pub letters: Arc<dyn LetterBook>,
    /// The log, for what is appended to it once more.
    pub writer: Arc<dyn LogWriter>,
    /// The folder of the logs' archives, if there is one.
    pub archive_dir: Option<PathBuf>,
    /// Where exports are written to.
    pub exports: Exports,
}

/// Does every kind of job.
pub struct Kinds(KindsParts);

impl Kinds {
    /// On these places.
    pub fn new(parts: KindsParts) -> Self {
        Self(parts)
    }
}

#[async_trait]
impl Runner for Kinds {
    async fn run(&self, job: &Held) -> Result<Done, Failure> {
        match job.kind() {
            JobKind::Rebuild { dry_run } => rebuild::run(&self.0, job, *dry_run).await,
            JobKind::Audit => audit::run(&self.0, job).await,
            JobKind::WarmCaches => warm::run(&self.0, job).await,
            JobKind::Export { budget, format, publish } => {
                export::run(&self.0, job, budget, *format, *publish).await
            }
            JobKind::Archive => archive::run(&self.0, job).await,
            JobKind::ReplayDeadLetter { letter, resume } => {
                dead_letters::replay(&self.0, job, *letter, *resume).await
            }
            JobKind::DropDeadLetter { letter } => dead_letters::discard(&self.0, *letter).await,
        }
    }

    async fn give_up(&self, job: &Held) -> Result<Option<Done>, Failure> {
        match job.kind() {
            JobKind::Rebuild { dry_run } => rebuild::give_up(&self.0, job, *dry_run).await,
            JobKind::ReplayDeadLetter { letter, .. } => {
                dead_letters::replayed(&self.0, *letter).await
            }
            // They begin nothing that stays, or that anybody minds.
            JobKind::Audit
            | JobKind::WarmCaches
            | JobKind::Export { .. }
            | JobKind::Archive
            | JobKind::DropDeadLetter { .. } => Ok(None),
        }
    }
}

impl KindsParts {
    /// The log that answers now.
    async fn current_log(&self) -> Result<LogRef, Failure> {
        let roster = self.store.roster().await?;
        let none = || Failure::Again("no processor ever started".to_owned());
        Ok(roster.ok_or_else(none)?.current.log)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Away { .. } => Self::Again(error.to_string()),
            OpenError::Wrong { .. } | OpenError::Secret(_) => Self::InVain(error.to_string()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Again(error.to_string()),
            StoreError::Corrupt(_) => Self::InVain(error.to_string()),
        }
    }
}

/// Works, and says meanwhile how far that has come: so much done, of so much, and the same in words.
async fn told<T>(
    job: &Held,
    look: impl Fn() -> (u64, u64, String),
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    loop {
        let done = tokio::select! {
            done = &mut work => Some(done),
            () = sleep(TELL_INTERVAL) => None,
        };
        let (so_much, of, line) = look();
        job.tell(so_much, of, line);
        if let Some(done) = done {
            return done;
        }
    }
}
