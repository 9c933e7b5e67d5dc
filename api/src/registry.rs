//! Reads the generation registry and the shadow partitions' reports, for administrators.
//!
//! Every request reads the store: administrators are few and need the present state.

use std::sync::Arc;
use std::time::Duration;

use schemas::{Generation, GenerationRegistry, PartitionReport};
use storage::store::{Generations, StoreError};
use tokio::time::timeout;

/// Reads the generation registry and the partition reports.
#[derive(Clone)]
pub struct RegistryReader {
    store: Arc<dyn Generations>,
    deadline: Duration,
}

/// The generation registry and the reports of its shadow generations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryOverview {
    /// The generation registry.
    pub registry: GenerationRegistry,
    /// The latest report of each partition of each shadow generation.
    pub shadow_reports: Vec<(Generation, Vec<Option<PartitionReport>>)>,
}

impl RegistryReader {
    /// Creates a reader; one whole read may take `deadline`.
    pub fn new(store: Arc<dyn Generations>, deadline: Duration) -> Self {
        Self { store, deadline }
    }

    /// Reads the registry and all reports; `None` before the first processor started.
    ///
    /// # Errors
    /// When the store fails, or takes too long.
    pub async fn read(&self) -> Result<Option<RegistryOverview>, StoreError> {
        let timed_out = |_| StoreError::Unavailable("no answer in time".to_owned());
        timeout(self.deadline, self.read_all()).await.map_err(timed_out)?
    }

    async fn read_all(&self) -> Result<Option<RegistryOverview>, StoreError> {
        let Some(registry) = self.store.registry().await? else { return Ok(None) };
        let mut shadow_reports = Vec::new();
        for record in registry.shadows() {
            let reports = self.store.reports(record.generation, record.log.partitions).await?;
            shadow_reports.push((record.generation, reports));
        }
        Ok(Some(RegistryOverview { registry, shadow_reports }))
    }
}
