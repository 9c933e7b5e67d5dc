//! Opens the dead letter journal.

use std::sync::Arc;

use async_trait::async_trait;
use schemas::LogRef;

use crate::config::embedded_files::LOG_FILE;
use crate::config::{LogKind, StorageConfig};
use crate::log::dead_letters::DeadLetterJournalOpener;
use crate::log::kafka::KafkaDeadLetterJournal;
use crate::log::sqlite::SqliteDeadLetterJournal;
use crate::log::{DeadLetterJournal, LogReader, LogReaderOpener};
use crate::open_error::OpenError;

impl StorageConfig {
    /// Opens the dead letter journal. Creates nothing.
    ///
    /// # Errors
    /// If the embedded log does not exist.
    pub fn open_dead_letter_journal(&self) -> Result<Arc<dyn DeadLetterJournal>, OpenError> {
        match self.log {
            LogKind::Kafka => Ok(Arc::new(KafkaDeadLetterJournal::new(&self.kafka))),
            LogKind::Sqlite => {
                let opened = SqliteDeadLetterJournal::open(&self.sqlite_dir.join(LOG_FILE));
                Ok(Arc::new(opened.map_err(|error| OpenError::invalid("the log", error))?))
            }
        }
    }
}

#[async_trait]
impl DeadLetterJournalOpener for StorageConfig {
    fn open_dead_letter_journal(&self) -> Result<Arc<dyn DeadLetterJournal>, OpenError> {
        self.open_dead_letter_journal()
    }

    async fn open_log_reader(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        self.open(log).await
    }
}
