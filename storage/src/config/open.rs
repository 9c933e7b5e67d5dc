//! Opens the places that are configured.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use schemas::{LogRef, PersonKeyHasher};
use tokio::sync::watch;

use super::{CacheKind, LogKind, StorageConfig, StoreKind};
use crate::cache::Cache;
use crate::cache::memory::MemoryCache;
use crate::cache::redis::RedisCache;
use crate::definitions::kafka::KafkaDefinitions;
use crate::definitions::sqlite::SqliteDefinitions;
use crate::definitions::{Definitions, until_loaded};
use crate::idempotency::Idempotency;
use crate::idempotency::memory::MemoryIdempotency;
use crate::idempotency::redis::RedisIdempotency;
use crate::jobs::JobStore;
use crate::log::archive::{ArchivedReader, folder_of};
use crate::log::kafka::topics::ensure_topics_beside;
use crate::log::kafka::{
    KafkaDeadLetters, KafkaLetterBook, KafkaLog, KafkaReader, KafkaSource, LogMover,
};
use crate::log::letters::LetterPlaces;
use crate::log::sqlite::{SqliteLetterBook, SqliteLog, SqliteReader};
use crate::log::{DeadLetters, LetterBook, LogReader, LogReaders, LogSource, LogWriter};
use crate::opening::OpenError;
use crate::secret::open_secret;
use crate::store::Store;
use crate::store::scylla::ScyllaStore;
use crate::store::sqlite::SqliteStore;

/// The embedded log, in the folder of the embedded files.
const LOG_FILE: &str = "log.db";
/// The embedded store, there as well.
const STORE_FILE: &str = "store.db";

/// The log's ends, opened together.
pub struct OpenLog {
    /// For submissions.
    pub writer: Arc<dyn LogWriter>,
    /// For the processor.
    pub source: Box<dyn LogSource>,
    /// For what cannot be folded.
    pub dead_letters: Arc<dyn DeadLetters>,
}

/// The store, opened once for all that rests there.
#[derive(Clone)]
pub struct OpenStore {
    /// Totals, people and generations.
    pub store: Arc<dyn Store>,
    /// Background jobs.
    pub jobs: Arc<dyn JobStore>,
}

impl OpenStore {
    fn of(store: impl Store + JobStore) -> Self {
        let store = Arc::new(store);
        Self { store: Arc::clone(&store) as _, jobs: store }
    }
}

impl StorageConfig {
    /// Opens the log for appending only: the one to which submissions go by now, as the definitions say, and any to which
    /// they will.
    ///
    /// # Errors
    /// When it does not answer, or has another partition count.
    pub async fn open_log_writer(
        &self,
        definitions: &dyn Definitions,
    ) -> Result<Arc<dyn LogWriter>, OpenError> {
        match self.log {
            LogKind::Kafka => {
                self.ensure_definitions().await?;
                until_loaded(definitions).await;
                let moves = definitions.log();
                let log = moves.borrow().clone().unwrap_or_else(|| self.first_log());
                let opened = KafkaLog::open(&self.kafka, &log, moves).await;
                Ok(Arc::new(opened.map_err(OpenError::log)?))
            }
            LogKind::Sqlite => self.open_writer_of(&self.first_log()).await,
        }
    }

    /// Opens one log for appending only, and no other to which submissions may be moved.
    ///
    /// # Errors
    /// When it does not answer, or has another partition count.
    pub async fn open_writer_of(&self, log: &LogRef) -> Result<Arc<dyn LogWriter>, OpenError> {
        match self.log {
            LogKind::Kafka => {
                let opened = KafkaLog::open(&self.kafka, log, watch::channel(None).1).await;
                Ok(Arc::new(opened.map_err(OpenError::log)?))
            }
            LogKind::Sqlite => {
                let opened = SqliteLog::open(&self.embedded_file(LOG_FILE)?, log.partitions);
                Ok(Arc::new(opened.map_err(|error| OpenError::wrong("the log", error))?))
            }
        }
    }

    /// Opens all ends of a log. Its writer goes on to any to which submissions are moved.
    ///
    /// # Errors
    /// When it does not answer, or has another partition count.
    pub async fn open_log(
        &self,
        log: &LogRef,
        definitions: &dyn Definitions,
    ) -> Result<OpenLog, OpenError> {
        match self.log {
            LogKind::Kafka => {
                let source = KafkaSource::open(&self.kafka, log).await.map_err(OpenError::log)?;
                let writer = KafkaLog::open_unchecked(&self.kafka, log, definitions.log())
                    .map_err(OpenError::log)?;
                let dead_letters = KafkaDeadLetters::open(&self.kafka).map_err(OpenError::log)?;
                Ok(OpenLog {
                    writer: Arc::new(writer),
                    source: Box::new(source),
                    dead_letters: Arc::new(dead_letters),
                })
            }
            LogKind::Sqlite => {
                let wrong = |error| OpenError::wrong("the log", error);
                let log = SqliteLog::open(&self.embedded_file(LOG_FILE)?, self.partitions)
                    .map_err(wrong)?;
                let source = Box::new(log.source().map_err(wrong)?);
                let log = Arc::new(log);
                Ok(OpenLog { writer: log.clone(), source, dead_letters: log })
            }
        }
    }

    /// What moves submissions to another topic; `None` where they are in no topic.
    pub fn log_mover(&self) -> Option<LogMover> {
        match self.log {
            LogKind::Kafka => Some(LogMover::new(&self.kafka)),
            LogKind::Sqlite => None,
        }
    }

    /// Opens the book of dead letters. Creates nothing.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open_letter_book(&self) -> Result<Arc<dyn LetterBook>, OpenError> {
        match self.log {
            LogKind::Kafka => Ok(Arc::new(KafkaLetterBook::new(&self.kafka))),
            LogKind::Sqlite => {
                let opened = SqliteLetterBook::open(&self.sqlite_dir.join(LOG_FILE));
                Ok(Arc::new(opened.map_err(|error| OpenError::wrong("the log", error))?))
            }
        }
    }

    /// The cache, if other processes than its own can reach it.
    pub async fn open_shared_cache(&self) -> Option<Arc<dyn Cache>> {
        match self.cache {
            CacheKind::Redis => Some(self.open_cache().await),
            CacheKind::Memory => None,
        }
    }

    /// Opens the store.
    ///
    /// # Errors
    /// When it does not answer, or is not what it should be.
    pub async fn open_store(&self) -> Result<OpenStore, OpenError> {
        match self.store {
            StoreKind::Scylla => {
                let opened = ScyllaStore::connect(&self.scylla).await;
                Ok(OpenStore::of(opened.map_err(OpenError::store)?))
            }
            StoreKind::Sqlite => {
                let opened = SqliteStore::open(&self.embedded_file(STORE_FILE)?);
                Ok(OpenStore::of(opened.map_err(|error| OpenError::wrong("the store", error))?))
            }
        }
    }

    /// Opens a store that is there, and changes nothing of its schema.
    ///
    /// # Errors
    /// When it does not answer, is not there, or is not up to date.
    pub async fn open_existing_store(&self) -> Result<OpenStore, OpenError> {
        match self.store {
            StoreKind::Scylla => {
                let opened = ScyllaStore::connect_to_existing(&self.scylla).await;
                Ok(OpenStore::of(opened.map_err(OpenError::store)?))
            }
            StoreKind::Sqlite => {
                let opened = SqliteStore::open_existing(&self.sqlite_dir.join(STORE_FILE));
                Ok(OpenStore::of(opened.map_err(|error| OpenError::wrong("the store", error))?))
            }
        }
    }

    /// Opens the cache. It may be away.
    pub async fn open_cache(&self) -> Arc<dyn Cache> {
        match self.cache {
            CacheKind::Redis => Arc::new(RedisCache::connect(&self.redis).await),
            CacheKind::Memory => Arc::new(MemoryCache::new()),
        }
    }

    /// Opens the definitions. They may not be loaded yet.
    ///
    /// # Errors
    /// When there is no thread, or no file.
    pub fn open_definitions(&self) -> Result<Arc<dyn Definitions>, OpenError> {
        match self.log {
            LogKind::Kafka => {
                let opened = KafkaDefinitions::open(&self.kafka);
                Ok(Arc::new(opened.map_err(|error| OpenError::wrong("the definitions", error))?))
            }
            LogKind::Sqlite => {
                let opened = SqliteDefinitions::open(&self.embedded_file("definitions.db")?);
                Ok(Arc::new(opened.map_err(|error| OpenError::wrong("the definitions", error))?))
            }
        }
    }

    /// Creates what the definitions rest in, if it is not there: without, they are never loaded.
    ///
    /// # Errors
    /// When it cannot be created now, or is not what it should be.
    pub async fn ensure_definitions(&self) -> Result<(), OpenError> {
        match self.log {
            LogKind::Kafka => ensure_topics_beside(&self.kafka).await.map_err(OpenError::log),
            // The file is there once they are open.
            LogKind::Sqlite => Ok(()),
        }
    }

    /// Opens the memory of submission ids. It may be away.
    pub async fn open_idempotency(&self) -> Arc<dyn Idempotency> {
        match self.cache {
            CacheKind::Redis => Arc::new(RedisIdempotency::connect(&self.redis).await),
            CacheKind::Memory => Arc::new(MemoryIdempotency::default()),
        }
    }

    /// The maker of persons' keys.
    ///
    /// # Errors
    /// When its secret cannot be read, or made.
    pub fn hasher(&self) -> Result<PersonKeyHasher, OpenError> {
        Ok(open_secret(self.person_key_secret_file.as_deref(), &self.sqlite_dir)?)
    }

    fn embedded_file(&self, name: &str) -> Result<PathBuf, OpenError> {
        std::fs::create_dir_all(&self.sqlite_dir)
            .map_err(|error| OpenError::wrong("the embedded files", error))?;
        Ok(self.sqlite_dir.join(name))
    }
}

#[async_trait]
impl LogReaders for StorageConfig {
    async fn open(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        let alone = self.open_alone(log).await?;
        let Some(dir) = &self.archive_dir else { return Ok(alone) };
        Ok(Arc::new(ArchivedReader::open(&folder_of(dir, log), &log.topic, alone).await))
    }

    async fn open_alone(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        match self.log {
            LogKind::Kafka => {
                Ok(Arc::new(KafkaReader::open(&self.kafka, log).await.map_err(OpenError::log)?))
            }
            LogKind::Sqlite => {
                let opened = SqliteReader::open(&self.sqlite_dir.join(LOG_FILE), log.partitions);
                Ok(Arc::new(opened.map_err(|error| OpenError::wrong("the log", error))?))
            }
        }
    }
}

#[async_trait]
impl LetterPlaces for StorageConfig {
    fn open_letter_book(&self) -> Result<Arc<dyn LetterBook>, OpenError> {
        self.open_letter_book()
    }

    async fn open_log_reader(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        self.open(log).await
    }
}
