//! Opens the log: for appending, for folding, for reading.

use std::sync::Arc;

use async_trait::async_trait;
use schemas::{LogRef, PartitionCount, PersonSecret};
use tokio::sync::watch;

use crate::config::embedded_files::{LOG_FILE, STORE_FILE};
use crate::config::{LogKind, StorageConfig, StoreKind};
use crate::control::{ActiveLog, ControlTopic, wait_until_loaded};
use crate::log::archive::{ArchivedReader, archive_dir_for};
use crate::log::kafka::cluster::{brokers_without_replicas, refused_settings_of};
use crate::log::kafka::{
    KafkaDeadLetterWriter, KafkaLogWriter, KafkaReader, KafkaSource, KafkaTail, TopicError,
    TopicMigrator,
};
use crate::log::sqlite::{SqliteLog, SqliteLogTrimmer, SqliteReader};
use crate::log::{
    DeadLetterWriter, LogReader, LogReaderOpener, LogSource, LogTail, LogWriter, PolledTail,
};
use crate::open_error::OpenError;

/// The handles of one log, opened together.
pub struct LogHandles {
    /// Appends submissions.
    pub writer: Arc<dyn LogWriter>,
    /// Reads the assigned partitions, for the processor.
    pub source: Box<dyn LogSource>,
    /// Appends dead letters.
    pub dead_letters: Arc<dyn DeadLetterWriter>,
}

impl StorageConfig {
    /// Opens the active log for appending records whose keys are derived from `person_secret`. The writer follows later
    /// switches of the active log.
    ///
    /// # Errors
    /// If the log is unreachable or has an unexpected partition count, or another secret is recorded with the data.
    pub async fn open_log_writer(
        &self,
        control: &ControlTopic,
        person_secret: &PersonSecret,
    ) -> Result<Arc<dyn LogWriter>, OpenError> {
        let active_log = control.active_log.as_ref();
        self.ensure_control_topic().await?;
        wait_until_loaded(active_log).await;
        let writer: Arc<dyn LogWriter> = match self.log {
            LogKind::Kafka => {
                let switches = active_log.subscribe();
                let log = switches.borrow().clone().unwrap_or_else(|| self.first_log());
                let opened = KafkaLogWriter::open(&self.kafka, &log, switches).await;
                Arc::new(opened?)
            }
            LogKind::Sqlite => self.open_writer_of(&self.first_log()).await?,
        };
        // After the topics were created: whether the log has records decides.
        self.record_secret(control, person_secret, &self.announced_log(active_log)).await?;
        Ok(writer)
    }

    /// Opens one log for appending. The writer does not follow switches of the active log.
    ///
    /// # Errors
    /// If the log is unreachable or has an unexpected partition count.
    pub async fn open_writer_of(&self, log: &LogRef) -> Result<Arc<dyn LogWriter>, OpenError> {
        match self.log {
            LogKind::Kafka => {
                let opened = KafkaLogWriter::open(&self.kafka, log, watch::channel(None).1).await;
                Ok(Arc::new(opened?))
            }
            LogKind::Sqlite => Ok(Arc::new(self.open_embedded_log(log.partitions)?)),
        }
    }

    /// Opens all handles of a log. The writer follows later switches of the active log.
    ///
    /// # Errors
    /// If the log is unreachable or has an unexpected partition count.
    pub async fn open_log(
        &self,
        log: &LogRef,
        active_log: &dyn ActiveLog,
    ) -> Result<LogHandles, OpenError> {
        match self.log {
            LogKind::Kafka => {
                let source = KafkaSource::open(&self.kafka, log).await?;
                let switches = active_log.subscribe();
                let writer = KafkaLogWriter::open_unchecked(&self.kafka, log, switches)?;
                let dead_letters = KafkaDeadLetterWriter::open(&self.kafka)?;
                Ok(LogHandles {
                    writer: Arc::new(writer),
                    source: Box::new(source),
                    dead_letters: Arc::new(dead_letters),
                })
            }
            LogKind::Sqlite => {
                let invalid = |error| OpenError::invalid("the log", error);
                let log = self.open_embedded_log(self.partitions)?;
                let source = Box::new(log.source().map_err(invalid)?);
                let log = Arc::new(log);
                Ok(LogHandles { writer: log.clone(), source, dead_letters: log })
            }
        }
    }

    /// Returns the migrator between topics. `None` for the embedded log, which has no topics.
    pub fn topic_migrator(&self) -> Option<TopicMigrator> {
        match self.log {
            LogKind::Kafka => Some(TopicMigrator::new(&self.kafka)),
            LogKind::Sqlite => None,
        }
    }

    /// Returns the trimmer of the embedded log. `None` for Kafka, whose topics have a retention.
    pub fn log_trimmer(&self) -> Option<SqliteLogTrimmer> {
        match self.log {
            LogKind::Kafka => None,
            LogKind::Sqlite => {
                let trimmer = SqliteLogTrimmer::new(&self.sqlite_dir.join(LOG_FILE));
                Some(match self.store {
                    StoreKind::Sqlite => trimmer.with_store(self.sqlite_dir.join(STORE_FILE)),
                    StoreKind::Scylla => trimmer,
                })
            }
        }
    }

    /// Returns how many brokers the cluster has if records have one replica and could have three.
    ///
    /// # Errors
    /// If Kafka is unreachable.
    pub async fn brokers_without_replicas(&self) -> Result<Option<usize>, OpenError> {
        match self.log {
            LogKind::Kafka => Ok(brokers_without_replicas(&self.kafka).await?),
            LogKind::Sqlite => Ok(None),
        }
    }

    /// Returns each setting of the topics of a log and of the control records with which a start would be refused, and
    /// each of these topics whose settings cannot be read.
    ///
    /// # Errors
    /// If Kafka is unreachable.
    pub async fn refused_topic_settings(&self, log: &LogRef) -> Result<Vec<TopicError>, OpenError> {
        match self.log {
            LogKind::Kafka => Ok(refused_settings_of(&self.kafka, log).await?),
            LogKind::Sqlite => Ok(Vec::new()),
        }
    }

    fn open_embedded_log(&self, partitions: PartitionCount) -> Result<SqliteLog, OpenError> {
        let path = self.embedded_file(LOG_FILE)?;
        SqliteLog::open_bounded(&path, partitions, self.max_log_bytes)
            .map_err(|error| OpenError::invalid("the log", error))
    }
}

#[async_trait]
impl LogReaderOpener for StorageConfig {
    async fn open(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        let alone = self.open_without_archive(log).await?;
        let Some(dir) = &self.archive_dir else { return Ok(alone) };
        Ok(Arc::new(ArchivedReader::open(&archive_dir_for(dir, log), &log.topic, alone).await))
    }

    async fn open_without_archive(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        match self.log {
            LogKind::Kafka => Ok(Arc::new(KafkaReader::open(&self.kafka, log).await?)),
            LogKind::Sqlite => {
                let opened = SqliteReader::open(&self.sqlite_dir.join(LOG_FILE), log.partitions);
                Ok(Arc::new(opened.map_err(|error| OpenError::invalid("the log", error))?))
            }
        }
    }

    async fn open_tail(&self, log: &LogRef) -> Result<Arc<dyn LogTail>, OpenError> {
        match self.log {
            LogKind::Kafka => Ok(Arc::new(KafkaTail::open(&self.kafka, log).await?)),
            LogKind::Sqlite => Ok(Arc::new(PolledTail(self.open_without_archive(log).await?))),
        }
    }
}
