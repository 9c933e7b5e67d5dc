//! Opens the configured backends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime::limits::{LocalCounters, SharedCounters};
use schemas::{LogRef, PartitionCount, PersonKeyHasher};
use tokio::sync::watch;

use super::{CacheKind, LogKind, StorageConfig, StoreKind, lost_definitions};
use crate::cache::Cache;
use crate::cache::memory::MemoryCache;
use crate::cache::redis::RedisCache;
use crate::control::kafka::KafkaControlTopic;
use crate::control::sqlite::SqliteControlTopic;
use crate::control::{ActiveLog, BudgetDefinitions, ControlTopic, wait_until_loaded};
use crate::idempotency::Idempotency;
use crate::idempotency::layered::LayeredIdempotency;
use crate::idempotency::memory::{MemoryIdempotency, Retention};
use crate::idempotency::redis::RedisIdempotency;
use crate::jobs::JobStore;
use crate::limits::redis::RedisCounters;
use crate::log::archive::{ArchivedReader, archive_dir_for};
use crate::log::dead_letters::DeadLetterJournalOpener;
use crate::log::kafka::topics::{
    brokers_without_replicas, ensure_auxiliary_topics, refused_settings_of,
};
use crate::log::kafka::{
    KafkaDeadLetterJournal, KafkaDeadLetterWriter, KafkaLogWriter, KafkaReader, KafkaSource,
    KafkaTail, TopicError, TopicMigrator,
};
use crate::log::sqlite::{SqliteDeadLetterJournal, SqliteLog, SqliteLogTrimmer, SqliteReader};
use crate::log::{
    DeadLetterJournal, DeadLetterWriter, LogReader, LogReaderOpener, LogSource, LogTail, LogWriter,
    PolledTail,
};
use crate::one_time_codes::OneTimeCodes;
use crate::one_time_codes::memory::MemoryOneTimeCodes;
use crate::one_time_codes::redis::RedisOneTimeCodes;
use crate::open_error::OpenError;
use crate::private_files;
use crate::redis_connection::RedisConfig;
use crate::secret::open_secret;
use crate::signals::{
    KafkaSignalReader, KafkaSignalWriter, SignalEraser, SignalReader, SignalWriter,
    SqliteSignalReader, SqliteSignalWriter,
};
use crate::store::Store;
use crate::store::scylla::ScyllaStore;
use crate::store::sqlite::SqliteStore;

/// File name of the embedded log.
pub(super) const LOG_FILE: &str = "log.db";
/// File name of the embedded store.
const STORE_FILE: &str = "store.db";
/// File name of the embedded signals.
const SIGNALS_FILE: &str = "signals.db";
/// File name of the embedded control topic.
const CONTROL_FILE: &str = "definitions.db";

/// Submission ids that each ingest remembers itself, in front of Redis. About 50 MB.
const OWN_SUBMISSION_IDS: u64 = 250_000;
/// How much longer than all steps of an append an in-flight mark lasts: looking ids up and storing receipts takes time,
/// too.
const IN_FLIGHT_MARGIN: Duration = Duration::from_secs(3);

/// The handles of one log, opened together.
pub struct LogHandles {
    /// Appends submissions.
    pub writer: Arc<dyn LogWriter>,
    /// Reads the assigned partitions, for the processor.
    pub source: Box<dyn LogSource>,
    /// Appends dead letters.
    pub dead_letters: Arc<dyn DeadLetterWriter>,
}

/// The handles of the store, opened once.
#[derive(Clone)]
pub struct StoreHandles {
    /// Totals, person rows and generations.
    pub store: Arc<dyn Store>,
    /// Background jobs.
    pub jobs: Arc<dyn JobStore>,
}

impl StoreHandles {
    fn of(store: impl Store + JobStore) -> Self {
        let store = Arc::new(store);
        Self { store: Arc::clone(&store) as _, jobs: store }
    }
}

impl StorageConfig {
    /// Opens the active log for appending what `hasher` made the keys of. The writer follows later switches of the
    /// active log.
    ///
    /// # Errors
    /// If the log is unreachable or has an unexpected partition count, or another secret is recorded with the data.
    pub async fn open_log_writer(
        &self,
        control: &ControlTopic,
        hasher: &PersonKeyHasher,
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
        self.record_secret(control, hasher, &self.published_log(active_log)).await?;
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

    /// Creates the writer of signals, which connects at the first append.
    pub fn signal_writer(&self) -> Arc<dyn SignalWriter> {
        match self.log {
            LogKind::Kafka => Arc::new(KafkaSignalWriter::new(&self.kafka)),
            LogKind::Sqlite => {
                Arc::new(SqliteSignalWriter::new(&self.sqlite_dir.join(SIGNALS_FILE)))
            }
        }
    }

    /// Creates the eraser of signals, which connects at the first erasure.
    pub fn signal_eraser(&self) -> Arc<dyn SignalEraser> {
        match self.log {
            LogKind::Kafka => Arc::new(KafkaSignalWriter::new(&self.kafka)),
            LogKind::Sqlite => {
                Arc::new(SqliteSignalWriter::new(&self.sqlite_dir.join(SIGNALS_FILE)))
            }
        }
    }

    /// Creates the reader of signals, which connects at each read.
    pub fn signal_reader(&self) -> Arc<dyn SignalReader> {
        match self.log {
            LogKind::Kafka => Arc::new(KafkaSignalReader::new(&self.kafka)),
            LogKind::Sqlite => {
                Arc::new(SqliteSignalReader::new(&self.sqlite_dir.join(SIGNALS_FILE)))
            }
        }
    }

    /// Opens the cache, if other processes can reach it.
    pub async fn open_shared_cache(&self) -> Option<Arc<dyn Cache>> {
        match self.cache {
            CacheKind::Redis => Some(self.open_cache().await),
            CacheKind::Memory => None,
        }
    }

    /// Opens the store, and migrates its schema.
    ///
    /// # Errors
    /// If the store is unreachable or has an unexpected schema.
    pub async fn open_store(&self) -> Result<StoreHandles, OpenError> {
        match self.store {
            StoreKind::Scylla => {
                // Boxed: the driver's nested futures would exceed the compiler's depth limit in the callers.
                let opened = Box::pin(ScyllaStore::connect(&self.scylla)).await;
                Ok(StoreHandles::of(opened?))
            }
            StoreKind::Sqlite => {
                let opened = SqliteStore::open(&self.embedded_file(STORE_FILE)?);
                Ok(StoreHandles::of(
                    opened.map_err(|error| OpenError::invalid("the store", error))?,
                ))
            }
        }
    }

    /// Opens an existing store without changing its schema.
    ///
    /// # Errors
    /// If the store is unreachable, does not exist, or has an old schema.
    pub async fn open_existing_store(&self) -> Result<StoreHandles, OpenError> {
        match self.store {
            StoreKind::Scylla => {
                let opened = Box::pin(ScyllaStore::connect_to_existing(&self.scylla)).await;
                Ok(StoreHandles::of(opened?))
            }
            StoreKind::Sqlite => {
                let opened = SqliteStore::open_existing(&self.sqlite_dir.join(STORE_FILE));
                Ok(StoreHandles::of(
                    opened.map_err(|error| OpenError::invalid("the store", error))?,
                ))
            }
        }
    }

    /// Opens the cache, which may be unreachable.
    pub async fn open_cache(&self) -> Arc<dyn Cache> {
        match self.cache {
            CacheKind::Redis => Arc::new(RedisCache::connect(&self.redis).await),
            CacheKind::Memory => Arc::new(MemoryCache::new()),
        }
    }

    /// Opens the control topic. It may not be loaded yet.
    ///
    /// # Errors
    /// If the thread cannot be started, or the embedded file cannot be opened, or is missing or without a definition
    /// where there is a log.
    pub fn open_control_topic(&self) -> Result<ControlTopic, OpenError> {
        match self.log {
            LogKind::Kafka => {
                let opened = KafkaControlTopic::open(&self.kafka);
                let topic = opened.map_err(|error| OpenError::invalid("the definitions", error))?;
                Ok(ControlTopic::new(topic))
            }
            LogKind::Sqlite => {
                let (path, log) =
                    (self.embedded_file(CONTROL_FILE)?, self.sqlite_dir.join(LOG_FILE));
                lost_definitions::require_file(&path, &log)?;
                let opened = SqliteControlTopic::open(&path);
                let topic = opened.map_err(|error| OpenError::invalid("the definitions", error))?;
                lost_definitions::require_definitions(&topic.catalog(), &path, &log)?;
                Ok(ControlTopic::new(topic))
            }
        }
    }

    /// Creates the control topic if it does not exist. Without it, it is never loaded.
    ///
    /// # Errors
    /// If Kafka is unreachable, or the topic has an unexpected partition count.
    pub async fn ensure_control_topic(&self) -> Result<(), OpenError> {
        match self.log {
            LogKind::Kafka => Ok(ensure_auxiliary_topics(&self.kafka).await?),
            // Opening it creates the file.
            LogKind::Sqlite => Ok(()),
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

    /// Returns each setting of the topics of a log and of the control records with which a start would be refused.
    ///
    /// # Errors
    /// If Kafka is unreachable.
    pub async fn refused_topic_settings(&self, log: &LogRef) -> Result<Vec<TopicError>, OpenError> {
        match self.log {
            LogKind::Kafka => Ok(refused_settings_of(&self.kafka, log).await?),
            LogKind::Sqlite => Ok(Vec::new()),
        }
    }

    /// Opens the store of submission ids, which may be unreachable.
    pub async fn open_idempotency(&self) -> Arc<dyn Idempotency> {
        let in_flight = self.in_flight();
        match self.cache {
            CacheKind::Redis => {
                let mut shared = RedisIdempotency::connect(&self.ids_redis).await;
                if let Some(former) = self.former_ids_redis() {
                    shared = shared.with_former(former).await;
                }
                let retention =
                    Retention { attempts: OWN_SUBMISSION_IDS, in_flight, ..Retention::default() };
                Arc::new(LayeredIdempotency::new(
                    MemoryIdempotency::new(retention),
                    shared.with_in_flight(in_flight),
                ))
            }
            CacheKind::Memory => {
                Arc::new(MemoryIdempotency::new(Retention { in_flight, ..Retention::default() }))
            }
        }
    }

    /// Opens the counters of rate limits, which may be unreachable.
    pub async fn open_limit_counters(&self) -> Arc<dyn SharedCounters> {
        match self.cache {
            CacheKind::Redis => Arc::new(RedisCounters::connect(&self.limits_redis).await),
            CacheKind::Memory => Arc::new(LocalCounters::default()),
        }
    }

    /// Opens the store of one-time codes, which may be unreachable.
    pub async fn open_one_time_codes(&self) -> Arc<dyn OneTimeCodes> {
        match self.cache {
            CacheKind::Redis => Arc::new(RedisOneTimeCodes::connect(&self.limits_redis).await),
            CacheKind::Memory => Arc::new(MemoryOneTimeCodes::default()),
        }
    }

    /// Returns where the release before stored submission ids, if ids are stored elsewhere now.
    pub(super) fn former_ids_redis(&self) -> Option<&RedisConfig> {
        let is_another = self.redis.url.to_string() != self.ids_redis.url.to_string();
        is_another.then_some(&self.redis)
    }

    /// Returns how long a submission id is marked as in flight, besides the steps around its append: longer than any append
    /// takes.
    pub(super) fn in_flight(&self) -> Duration {
        self.kafka.max_append_duration() + IN_FLIGHT_MARGIN
    }

    /// Returns the hasher of person ids. Call it before the embedded files are created: a missing secret is created
    /// only where these files do not exist.
    ///
    /// # Errors
    /// If its secret cannot be read or created, or is missing where there is data.
    pub fn hasher(&self) -> Result<PersonKeyHasher, OpenError> {
        let data = [LOG_FILE, STORE_FILE];
        Ok(open_secret(self.person_key_secret_file.as_deref(), &self.sqlite_dir, &data)?)
    }

    fn open_embedded_log(&self, partitions: PartitionCount) -> Result<SqliteLog, OpenError> {
        let path = self.embedded_file(LOG_FILE)?;
        SqliteLog::open_bounded(&path, partitions, self.max_log_bytes)
            .map_err(|error| OpenError::invalid("the log", error))
    }

    fn embedded_file(&self, name: &str) -> Result<PathBuf, OpenError> {
        private_files::create_dir(&self.sqlite_dir)
            .map_err(|error| OpenError::invalid("the embedded files", error))?;
        Ok(self.sqlite_dir.join(name))
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

#[async_trait]
impl DeadLetterJournalOpener for StorageConfig {
    fn open_dead_letter_journal(&self) -> Result<Arc<dyn DeadLetterJournal>, OpenError> {
        self.open_dead_letter_journal()
    }

    async fn open_log_reader(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        self.open(log).await
    }
}
