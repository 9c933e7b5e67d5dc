//! Finds out whether the definitions of budgets were lost: a log with records, and no definition. The fingerprint of the
//! person secret is lost with them.
//!
//! With salts made anew, everyone in the log would be counted again as a new person. Owns the rule of the embedded
//! files; on Kafka the service that defines the default budgets asks [`StorageConfig::has_records`].

use std::path::Path;
use std::time::Duration;

use schemas::{LogNumber, LogRef, PersonSecret, Position};

use super::embedded_files::LOG_FILE;
use super::{LogKind, StorageConfig};
use crate::control::{ActiveLog, Catalog, ControlTopic, record_secret};
use crate::log::LogReaderOpener;
use crate::log::kafka::cluster::later_logs;
use crate::log::sqlite::has_records;
use crate::open_error::OpenError;
use crate::secret::SecretError;

/// Pause between two reads of the definitions that both must find none.
const CONFIRMATION_PAUSE: Duration = Duration::from_secs(1);

impl StorageConfig {
    /// Records the fingerprint of the person secret, or checks that it is the recorded or configured one.
    ///
    /// A fingerprint that nobody has confirmed is not recorded where the control topic was lost: `log` has records, to
    /// which submissions go as far as the caller knows.
    ///
    /// # Errors
    /// When the secret is or may be another one than that of the data, or a topic is unavailable.
    pub async fn record_secret(
        &self,
        control: &ControlTopic,
        person_secret: &PersonSecret,
        log: &LogRef,
    ) -> Result<(), OpenError> {
        let own = person_secret.fingerprint();
        let is_recorded = control.secret.subscribe_secret().borrow().is_some();
        match &self.person_key_fingerprint {
            Some(expected) if *expected != own => {
                let recorded = expected.clone();
                return Err(SecretError::Other { own, recorded }.into());
            }
            None if !is_recorded && self.is_control_topic_lost(control, log).await? => {
                return Err(SecretError::Unconfirmed { own }.into());
            }
            Some(_) | None => {}
        }
        record_secret(control.secret.as_ref(), person_secret).await?;
        tracing::info!(fingerprint = %own, "person secret is that of the data");
        Ok(())
    }

    /// Returns whether the log has records and no budget was ever defined.
    ///
    /// The log is read first: a submission that another process has accepted meanwhile follows a definition, and that
    /// follows the fingerprint. The first of the two reads of definitions may lack one that was written at the same
    /// moment.
    async fn is_control_topic_lost(
        &self,
        control: &ControlTopic,
        log: &LogRef,
    ) -> Result<bool, OpenError> {
        let definitions = control.definitions.as_ref();
        if !definitions.catalog().is_empty() || !self.has_records(log).await? {
            return Ok(false);
        }
        for pause in [CONFIRMATION_PAUSE, Duration::ZERO] {
            let confirmed = definitions.confirmed().await;
            let confirmed = confirmed.map_err(|error| OpenError::Unavailable {
                backend: "the control topic",
                reason: error.to_string(),
            })?;
            if !confirmed.is_empty() {
                return Ok(false);
            }
            tokio::time::sleep(pause).await;
        }
        Ok(true)
    }

    /// Returns the log to which submissions go, as a loaded control topic names it.
    pub fn announced_log(&self, active_log: &dyn ActiveLog) -> LogRef {
        active_log.subscribe().borrow().clone().unwrap_or_else(|| self.first_log())
    }

    /// Returns whether a record was ever appended to a log, or to a later one of this deployment.
    ///
    /// A lost control topic no longer names the later log, and the first one may have been deleted since a repartition.
    ///
    /// # Errors
    /// If the log is unreachable.
    pub async fn has_records(&self, log: &LogRef) -> Result<bool, OpenError> {
        if self.log == LogKind::Sqlite {
            return embedded_log_has_records(&self.sqlite_dir.join(LOG_FILE));
        }
        if log.number == LogNumber::FIRST {
            for later in later_logs(&self.kafka).await? {
                if self.was_appended_to(&later).await? {
                    return Ok(true);
                }
            }
        }
        self.was_appended_to(log).await
    }

    async fn was_appended_to(&self, log: &LogRef) -> Result<bool, OpenError> {
        let reader = self.open_without_archive(log).await?;
        for partition in log.partitions.partitions() {
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
    OpenError::invalid("the control topic", reason)
}
