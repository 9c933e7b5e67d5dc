//! What is done for each kind of job.

mod audit;
mod rebuild;
mod warm;

use std::sync::Arc;

use async_trait::async_trait;
use schemas::job::JobKind;
use storage::cache::Cache;
use storage::definitions::Definitions;
use storage::log::LogReader;
use storage::store::{Store, StoreError};

use super::{Done, Failure, Held, Runner};

/// The places that jobs are about.
pub struct KindsParts {
    /// The log.
    pub log: Arc<dyn LogReader>,
    /// Its topic, as the generation records it.
    pub topic: String,
    /// Totals and people.
    pub store: Arc<dyn Store>,
    /// The readers' copy.
    pub cache: Arc<dyn Cache>,
    /// Which budgets there are.
    pub definitions: Arc<dyn Definitions>,
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
        }
    }

    async fn give_up(&self, job: &Held) -> Result<Option<Done>, Failure> {
        match job.kind() {
            JobKind::Rebuild { .. } => rebuild::give_up(&self.0, job).await,
            // They begin nothing that stays.
            JobKind::Audit | JobKind::WarmCaches => Ok(None),
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
