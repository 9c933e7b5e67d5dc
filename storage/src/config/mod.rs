//! Storage settings: which backend stores each kind of data, and how to connect to it. `open` opens the adapters.

mod embedded_files;
mod lost_definitions;
mod open;

use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::config::{KeyDoc, Reader, parse, settings};
use schemas::{LogRef, PartitionCount, SecretFingerprint};

use crate::exports::Exports;
use crate::log::kafka::KafkaConfig;
use crate::redis_connection::{RedisConfig, RedisUrl};
use crate::store::scylla::{KeyspaceName, ScyllaConfig, ScyllaCredentials};

pub use open::{LogHandles, StoreHandles};

/// Backend of the log and the budget definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// Kafka topics.
    Kafka,
    /// SQLite files of a single process.
    Sqlite,
}

/// Backend of totals, person rows, generations and jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// ScyllaDB, or Cassandra.
    Scylla,
    /// A SQLite file of a single process.
    Sqlite,
}

/// Backend of the cache and of the submission ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// Redis.
    Redis,
    /// Memory of a single process.
    Memory,
}

fn log_kind(text: &str) -> Result<LogKind, String> {
    match text {
        "kafka" => Ok(LogKind::Kafka),
        "sqlite" => Ok(LogKind::Sqlite),
        _ => Err("expected `kafka` or `sqlite`".to_owned()),
    }
}

fn store_kind(text: &str) -> Result<StoreKind, String> {
    match text {
        "scylla" => Ok(StoreKind::Scylla),
        "sqlite" => Ok(StoreKind::Sqlite),
        _ => Err("expected `scylla` or `sqlite`".to_owned()),
    }
}

fn cache_kind(text: &str) -> Result<CacheKind, String> {
    match text {
        "redis" => Ok(CacheKind::Redis),
        "memory" => Ok(CacheKind::Memory),
        _ => Err("expected `redis` or `memory`".to_owned()),
    }
}

fn partition_count(text: &str) -> Result<PartitionCount, String> {
    let count = parse::positive_u64(text)?;
    PartitionCount::new(count).map_err(|fault| fault.to_string())
}

fn keyspace_name(text: &str) -> Result<KeyspaceName, String> {
    text.parse().map_err(|fault: crate::store::scylla::KeyspaceFault| fault.to_string())
}

fn redis_url(text: &str) -> Result<RedisUrl, String> {
    text.parse().map_err(|_| "expected a URL such as redis://127.0.0.1:6379".to_owned())
}

fn optional_redis_url(text: &str) -> Result<Option<RedisUrl>, String> {
    if text.is_empty() { Ok(None) } else { redis_url(text).map(Some) }
}

settings! {
    /// The settings as configured, one field per key.
    struct StorageSettings {
        /// Where submissions and budget definitions are stored; `allocator run` defaults to `sqlite`.
        log_kind: LogKind = "log.kind", default "kafka",
            unit "kafka, sqlite", parse log_kind;
        /// Partition count of a new deployment's log. To change it later: `processor repartition`.
        log_partitions: PartitionCount = "log.partitions", default "12",
            unit "partitions", parse partition_count;
        /// Kafka bootstrap servers.
        kafka_brokers: String = "kafka.brokers", default "127.0.0.1:9092",
            unit "host:port, ...", parse parse::non_empty;
        /// First topic of submissions of a new deployment; dead letters go to the same name with `.dead-letters`,
        /// signals to that with `.signals`.
        kafka_topic: String = "kafka.topic", default "submissions",
            unit "topic", parse parse::non_empty;
        /// Compacted control topic: budget definitions, active log, revoked codes, annulments.
        kafka_definitions_topic: String = "kafka.definitions_topic", default "budgets",
            unit "topic", parse parse::non_empty;
        /// Replication factor of topics created at startup. Production: 3. `min.insync.replicas` must be a majority of
        /// it: created topics have it, and a start with a topic that has less is refused.
        kafka_replication_factor: u32 = "kafka.replication_factor", default "1",
            unit "copies", parse parse::positive_u32;
        /// Consumer group of the processors.
        kafka_group: String = "kafka.group", default "processors",
            unit "group", parse parse::non_empty;
        /// Consumer session timeout, after which the partitions of a silent processor are reassigned.
        kafka_session_timeout: Duration = "kafka.session_timeout_ms", default "6000",
            unit "ms", parse parse::positive_duration_ms;
        /// Producer delivery timeout, after which a submission is answered 503.
        kafka_delivery_timeout: Duration = "kafka.delivery_timeout_ms", default "800",
            unit "ms", parse parse::positive_duration_ms;
        /// How long the producer waits to batch records.
        kafka_linger: Duration = "kafka.linger_ms", default "10",
            unit "ms", parse parse::duration_ms;
        /// Directory of the log's archive, from which rebuilds, audits and exports read records that the log no longer
        /// retains. If empty: `archive` in `sqlite.dir` with the embedded log; with Kafka, no archive is read.
        archive_dir: Option<PathBuf> = "archive.dir", default "",
            unit "path", parse parse::optional_path;
        /// Directory to which export jobs write and from which the API serves published exports; created if absent.
        /// All processors and APIs must share it.
        exports_dir: PathBuf = "exports.dir", default "./data/exports",
            unit "path", parse parse::path;
        /// Where totals and person rows are stored; `allocator run` defaults to `sqlite`.
        store_kind: StoreKind = "store.kind", default "scylla",
            unit "scylla, sqlite", parse store_kind;
        /// ScyllaDB contact points.
        scylla_nodes: Vec<String> = "scylla.nodes", default "127.0.0.1:9042",
            unit "host:port, ...", parse parse::list;
        /// Keyspace, created at startup if absent.
        scylla_keyspace: KeyspaceName = "scylla.keyspace", default "allocator",
            unit "keyspace", parse keyspace_name;
        /// Replication factor of a keyspace created at startup. Production: 3.
        scylla_replication_factor: u32 = "scylla.replication_factor", default "1",
            unit "copies", parse parse::positive_u32;
        /// Local datacenter; required only if the cluster has several.
        scylla_datacenter: Option<String> = "scylla.datacenter", default "",
            unit "name", parse parse::optional_text;
        /// Timeout of one request.
        scylla_request_timeout: Duration = "scylla.request_timeout_ms", default "5000",
            unit "ms", parse parse::positive_duration_ms;
        /// Timeout of connecting at startup, including schema migrations.
        scylla_connect_timeout: Duration = "scylla.connect_timeout_ms", default "30000",
            unit "ms", parse parse::positive_duration_ms;
        /// Where the cache and the submission ids are stored; `allocator run` defaults to `memory`.
        cache_kind: CacheKind = "cache.kind", default "redis",
            unit "redis, memory", parse cache_kind;
        /// URL of the cache's Redis; may contain a user and a password.
        redis_url: RedisUrl = "redis.url", default "redis://127.0.0.1:6379",
            unit "URL", parse redis_url, secret;
        /// URL of the Redis of rate limits; if empty, `redis.url`. A server of its own with `noeviction` keeps floods
        /// of new keys from evicting answers, and the limits from being evicted.
        limits_redis_url: Option<RedisUrl> = "redis.limits_url", default "",
            unit "URL", parse optional_redis_url, secret;
        /// URL of the Redis of submission ids; if empty, `redis.limits_url`. An id takes about 250 bytes for a day.
        /// With `noeviction`, a flood of ids evicts nothing, and nothing evicts ids.
        ids_redis_url: Option<RedisUrl> = "redis.ids_url", default "",
            unit "URL", parse optional_redis_url, secret;
        /// Timeout of one Redis call.
        redis_timeout: Duration = "redis.timeout_ms", default "250",
            unit "ms", parse parse::positive_duration_ms;
        /// Directory of the embedded databases.
        sqlite_dir: PathBuf = "sqlite.dir", default "./data",
            unit "path", parse parse::path;
        /// Size of what is in the embedded log's file from which on submissions are answered 503, instead of filling
        /// the disk. A submission takes about 100 bytes; `allocator archive --trim` makes room, but the id that
        /// a client has chosen stays, at about 120 bytes.
        sqlite_max_log_bytes: u64 = "sqlite.max_log_bytes", default "8589934592",
            unit "bytes", parse parse::positive_u64;
        /// File of at least 32 bytes, the secret with which person ids are hashed. Every `ingest` and `api` must share
        /// it, processors do not read it, and it must never change. If empty: `person.secret` in `sqlite.dir`, created
        /// at the first start.
        person_key_secret_file: Option<PathBuf> = "privacy.person_key_secret_file", default "",
            unit "path", parse parse::optional_path;
        /// Fingerprint that the secret must have, as `ingest` logs it. Needed only where the control topic was lost,
        /// and with it the recorded fingerprint.
        person_key_fingerprint: Option<SecretFingerprint> = "privacy.person_key_fingerprint", default "",
            unit "fingerprint", parse fingerprint, secret;
    }
}

/// Parses the fingerprint of a secret. It is never printed: some write the secret itself.
fn fingerprint(text: &str) -> Result<Option<SecretFingerprint>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("expected the 32 hexadecimal digits that `ingest` logs".to_owned());
    }
    Ok(Some(SecretFingerprint::from_text(text.to_ascii_lowercase())))
}

settings! {
    /// The ScyllaDB login as configured.
    struct ScyllaLogin {
        /// ScyllaDB user; empty for none.
        user: Option<String> = "scylla.user", default "",
            unit "name", parse parse::optional_text;
        /// File with the password of `scylla.user`.
        password_file: Option<PathBuf> = "scylla.password_file", default "",
            unit "path", parse parse::optional_path;
    }
}

/// The keys of this crate, for the configuration reference.
pub const KEYS: &[&[KeyDoc]] = &[StorageSettings::KEYS, ScyllaLogin::KEYS];

/// Sections of the shared settings file that belong to single services.
const SERVICE_SECTIONS: [&str; 9] =
    ["ingest", "signals", "admin", "limits", "identity", "email", "processor", "api", "allocator"];

/// Directory of the embedded log's archive, in the directory of the embedded databases.
const ARCHIVE_DIR: &str = "archive";

/// The fault of a separate service configured with backends that only one process can open.
const NEEDS_SHARED_BACKENDS: &str = "a separate service needs log.kind = kafka, store.kind = scylla and cache.kind = redis; \
     to run everything in one process use `allocator run`";

/// The configured backends: checked, not opened.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    log: LogKind,
    partitions: PartitionCount,
    kafka: KafkaConfig,
    archive_dir: Option<PathBuf>,
    exports_dir: PathBuf,
    store: StoreKind,
    scylla: ScyllaConfig,
    cache: CacheKind,
    redis: RedisConfig,
    limits_redis: RedisConfig,
    ids_redis: RedisConfig,
    sqlite_dir: PathBuf,
    max_log_bytes: u64,
    person_key_secret_file: Option<PathBuf>,
    person_key_fingerprint: Option<SecretFingerprint>,
}

impl StorageConfig {
    /// Reads the settings. `None` if the reader recorded a fault.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let settings = StorageSettings::read(reader);
        let credentials = read_credentials(reader);
        let (settings, credentials) = (settings?, credentials?);
        let limits_redis_url =
            settings.limits_redis_url.unwrap_or_else(|| settings.redis_url.clone());
        let ids_redis_url = settings.ids_redis_url.unwrap_or_else(|| limits_redis_url.clone());
        let redis = |url| RedisConfig { url, timeout: settings.redis_timeout };
        Some(Self {
            log: settings.log_kind,
            partitions: settings.log_partitions,
            kafka: KafkaConfig {
                brokers: settings.kafka_brokers,
                topic: settings.kafka_topic,
                control_topic: settings.kafka_definitions_topic,
                partitions: settings.log_partitions,
                replication_factor: settings.kafka_replication_factor,
                group: settings.kafka_group,
                session_timeout: settings.kafka_session_timeout,
                delivery_timeout: settings.kafka_delivery_timeout,
                linger: settings.kafka_linger,
            },
            archive_dir: settings.archive_dir.or_else(|| match settings.log_kind {
                LogKind::Kafka => None,
                LogKind::Sqlite => Some(settings.sqlite_dir.join(ARCHIVE_DIR)),
            }),
            exports_dir: settings.exports_dir,
            store: settings.store_kind,
            scylla: ScyllaConfig {
                nodes: settings.scylla_nodes,
                keyspace: settings.scylla_keyspace,
                replication_factor: settings.scylla_replication_factor,
                datacenter: settings.scylla_datacenter,
                credentials,
                request_timeout: settings.scylla_request_timeout,
                connect_timeout: settings.scylla_connect_timeout,
            },
            cache: settings.cache_kind,
            limits_redis: redis(limits_redis_url),
            ids_redis: redis(ids_redis_url),
            redis: redis(settings.redis_url),
            sqlite_dir: settings.sqlite_dir,
            max_log_bytes: settings.sqlite_max_log_bytes,
            person_key_secret_file: settings.person_key_secret_file,
            person_key_fingerprint: settings.person_key_fingerprint,
        })
    }

    /// Reads the settings of a separate service, whose backends several processes must be able to open.
    pub fn read_shared(reader: &mut Reader<'_>) -> Option<Self> {
        reader.ignore_sections_of_other_services(&SERVICE_SECTIONS);
        let config = Self::read(reader)?;
        for (key, is_shared) in [
            (StorageSettings::log_kind.name, config.log == LogKind::Kafka),
            (StorageSettings::store_kind.name, config.store == StoreKind::Scylla),
            (StorageSettings::cache_kind.name, config.cache == CacheKind::Redis),
        ] {
            if !is_shared {
                reader.fault(key, NEEDS_SHARED_BACKENDS.to_owned());
            }
        }
        Some(config)
    }

    /// Returns the first log of a new deployment.
    pub fn first_log(&self) -> LogRef {
        self.kafka.first_log()
    }

    /// Returns the directory of the log archives. `None` for Kafka without a configured one.
    pub fn archive_dir(&self) -> Option<&Path> {
        self.archive_dir.as_deref()
    }

    /// Returns the directory of exports.
    pub fn exports(&self) -> Exports {
        Exports::new(&self.exports_dir)
    }

    /// Returns the directory of the embedded databases, if any backend is embedded.
    pub fn embedded_dir(&self) -> Option<&PathBuf> {
        let embedded = self.log == LogKind::Sqlite || self.store == StoreKind::Sqlite;
        embedded.then_some(&self.sqlite_dir)
    }
}

/// Reads the ScyllaDB login. `None` if the reader recorded a fault, `Some(None)` if no user is configured.
fn read_credentials(reader: &mut Reader<'_>) -> Option<Option<ScyllaCredentials>> {
    let login = ScyllaLogin::read(reader)?;
    let Some(user) = login.user else { return Some(None) };
    let password = read_password(reader, login.password_file)?;
    Some(Some(ScyllaCredentials { user, password }))
}

fn read_password(reader: &mut Reader<'_>, path: Option<PathBuf>) -> Option<String> {
    let key = ScyllaLogin::password_file.name;
    let Some(path) = path else {
        reader.fault(key, "required if scylla.user is set".to_owned());
        return None;
    };
    match std::fs::read_to_string(&path) {
        Ok(password) => Some(password.trim_end().to_owned()),
        Err(error) => {
            reader.fault(key, format!("expected a readable file: {error}"));
            None
        }
    }
}
