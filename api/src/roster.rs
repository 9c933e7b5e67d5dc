//! Every generation, for administrators: the roster, and what is said of those that are folded beside the one that
//! answers. Asked for at each request: administrators are few, and want to see what is true now.

use std::sync::Arc;
use std::time::Duration;

use schemas::{Generation, PartitionReport, Roster};
use storage::store::{Store, StoreError};
use tokio::time::timeout;

/// Reads the roster and the reports.
#[derive(Clone)]
pub struct RosterReader {
    store: Arc<dyn Store>,
    deadline: Duration,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// Which generations.
    pub roster: Roster,
    /// What was said last of each partition of those that are folded without answering.
    pub beside: Vec<(Generation, Vec<Option<PartitionReport>>)>,
}

impl RosterReader {
    /// Of this store, which is given so much time for all of it.
    pub fn new(store: Arc<dyn Store>, deadline: Duration) -> Self {
        Self { store, deadline }
    }

    /// Reads everything; `None` before the first processor began.
    ///
    /// # Errors
    /// When the store fails, or takes too long.
    pub async fn read(&self) -> Result<Option<Overview>, StoreError> {
        let late = |_| StoreError::Unavailable("no answer in time".to_owned());
        timeout(self.deadline, self.read_all()).await.map_err(late)?
    }

    async fn read_all(&self) -> Result<Option<Overview>, StoreError> {
        let Some(roster) = self.store.roster().await? else { return Ok(None) };
        let mut beside = Vec::new();
        for record in roster.beside() {
            let reports = self.store.reports(record.generation, record.log.partitions).await?;
            beside.push((record.generation, reports));
        }
        Ok(Some(Overview { roster, beside }))
    }
}
