//! Finds out whether the definitions of budgets were lost: a log with records, and no definition.
//!
//! With salts made anew, everyone in the log would be counted again as a new person. Owns the rule of the embedded
//! files; on Kafka the service that defines the default budgets asks [`StorageConfig::has_records`].

use std::path::Path;

use schemas::{LogRef, PartitionId, Position};

use super::open::LOG_FILE;
use super::{LogKind, StorageConfig};
use crate::control::{ActiveLog, Catalog};
use crate::log::LogReaderOpener;
use crate::log::sqlite::has_records;
use crate::open_error::OpenError;

impl StorageConfig {
    /// Returns the log to which submissions go, as a loaded control topic names it.
    pub fn published_log(&self, active_log: &dyn ActiveLog) -> LogRef {
        active_log.subscribe().borrow().clone().unwrap_or_else(|| self.first_log())
    }

    /// Returns whether a record was ever appended to a log.
    ///
    /// # Errors
    /// If the log is unreachable.
    pub async fn has_records(&self, log: &LogRef) -> Result<bool, OpenError> {
        if self.log == LogKind::Sqlite {
            return embedded_log_has_records(&self.sqlite_dir.join(LOG_FILE));
        }
        let reader = self.open_without_archive(log).await?;
        for partition in (0..log.partitions.get()).map(PartitionId) {
            let bounds = reader.bounds(partition).await;
            let bounds = bounds.map_err(|error| OpenError::Unavailable {
                backend: "the log",
                reason: error.to_string(),
            })?;
            // Also if the records have been deleted since: they were counted.
            if bounds.high > Position(0) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Requires the file of definitions where there is a log, before it is created.
pub(super) fn require_file(path: &Path, log: &Path) -> Result<(), OpenError> {
    if path.exists() || !log.exists() { Ok(()) } else { Err(lost(path, "is missing")) }
}

/// Requires a definition where the log has a record: the file may be a new one.
pub(super) fn require_definitions(
    catalog: &Catalog,
    path: &Path,
    log: &Path,
) -> Result<(), OpenError> {
    if catalog.is_empty() && embedded_log_has_records(log)? {
        return Err(lost(path, "has no definition"));
    }
    Ok(())
}

fn embedded_log_has_records(log: &Path) -> Result<bool, OpenError> {
    has_records(log).map_err(|error| OpenError::invalid("the log", error))
}

fn lost(path: &Path, what: &str) -> OpenError {
    let reason = format!(
        "{} {what}, and there is a log: restore it, since only it has the salts with which persons are found",
        path.display()
    );
    OpenError::invalid("the definitions", reason)
}
