//! Dependencies of a repartition.

use std::sync::Arc;

use schemas::LogRef;
use storage::control::ActiveLog;
use storage::log::LogReaderOpener;
use storage::log::kafka::TopicMigrator;
use storage::store::Store;

/// Dependencies of a repartition.
pub struct RepartitionDeps {
    /// The store of the registry and the generations.
    pub store: Arc<dyn Store>,
    /// Opens the old and the new log.
    pub logs: Arc<dyn LogReaderOpener>,
    /// Creates, seals and deletes topics.
    pub migrator: TopicMigrator,
    /// Publishes the active log to ingest.
    pub active_log: Arc<dyn ActiveLog>,
    /// The log that a new deployment begins with.
    pub first_log: LogRef,
}
