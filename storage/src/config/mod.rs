//! From settings to adapters: which place each kind of data rests in, and how to reach it. `open` opens them.
//!
//! It and `service_config` are what knows the runtime's configuration here.

mod open;

use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::config::{Key, KeyDoc, Reader, parse};
use schemas::{LogRef, PartitionCount};

use crate::exports::Exports;
use crate::log::kafka::KafkaConfig;
use crate::redis_connection::{RedisConfig, RedisUrl};
use crate::store::scylla::{KeyspaceName, ScyllaConfig, ScyllaCredentials};

pub use open::{OpenLog, OpenStore};

/// Where the log and the definitions rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// Kafka topics.
    Kafka,
    /// SQLite files, in one process.
    Sqlite,
}

/// Where totals and people rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// ScyllaDB, or Cassandra.
    Scylla,
    /// A SQLite file, in one process.
    Sqlite,
}

/// Where the readers' copy and the ids seen rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// Redis.
    Redis,
    /// The memory of one process.
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

macro_rules! keys {
    ($($const:ident: $type:ty = $name:literal, $default:expr, $unit:literal, $doc:literal, $parse:expr $(, $secret:ident)?;)*) => {
        $(const $const: Key<$type> = Key::new($name, $default, $unit, $doc, $parse)$(.$secret())?;)*

        /// Every key of this crate.
        pub const KEYS: &[KeyDoc] = &[$($const.describe()),*];
    };
}

keys! {
    LOG_KIND: LogKind = "log.kind", Some("kafka"), "kafka, sqlite",
        "Where submissions and definitions rest. The embedded binary's default is sqlite.", log_kind;
    LOG_PARTITIONS: PartitionCount = "log.partitions", Some("12"), "partitions",
        "How many partitions a new deployment's log is created with. Afterwards the log may be given another count: `processor repartition`.", partition_count;
    KAFKA_BROKERS: String = "kafka.brokers", Some("127.0.0.1:9092"), "host:port, ...",
        "Brokers to begin with.", parse::non_empty;
    KAFKA_TOPIC: String = "kafka.topic", Some("submissions"), "topic",
        "The topic of submissions that a new deployment begins with; dead letters are in the same name with .dead-letters.", parse::non_empty;
    KAFKA_DEFINITIONS_TOPIC: String = "kafka.definitions_topic", Some("budgets"), "topic",
        "The compacted topic of budgets' definitions.", parse::non_empty;
    KAFKA_REPLICATION_FACTOR: u32 = "kafka.replication_factor", Some("1"), "copies",
        "Copies of each partition of a topic that is created at start. Production: 3.", parse::positive_u32;
    KAFKA_GROUP: String = "kafka.group", Some("processors"), "group",
        "The processors' consumer group.", parse::non_empty;
    KAFKA_SESSION_TIMEOUT: Duration = "kafka.session_timeout_ms", Some("6000"), "ms",
        "After how much silence a processor's partitions are given to others.", parse::positive_duration_ms;
    KAFKA_DELIVERY_TIMEOUT: Duration = "kafka.delivery_timeout_ms", Some("800"), "ms",
        "How long a submission may take to be acknowledged before it is answered with 503.", parse::positive_duration_ms;
    KAFKA_LINGER: Duration = "kafka.linger_ms", Some("10"), "ms",
        "How long the producer waits for more records to send together.", parse::duration_ms;
    ARCHIVE_DIR: Option<PathBuf> = "archive.dir", Some(""), "path",
        "The folder of the log's archive, which has what the log no longer has: for rebuilds, audits and exports. None, if empty.",
        parse::optional_path;
    EXPORTS_DIR: PathBuf = "exports.dir", Some("./data/exports"), "path",
        "The folder that exports which are asked for as jobs are written to, by whichever processor does them, and which the apis hand published ones out of; made if absent.",
        parse::path;
    STORE_KIND: StoreKind = "store.kind", Some("scylla"), "scylla, sqlite",
        "Where totals and people rest. The embedded binary's default is sqlite.", store_kind;
    SCYLLA_NODES: Vec<String> = "scylla.nodes", Some("127.0.0.1:9042"), "host:port, ...",
        "Nodes to begin with.", parse::list;
    SCYLLA_KEYSPACE: KeyspaceName = "scylla.keyspace", Some("allocator"), "keyspace",
        "Created at start if absent.", keyspace_name;
    SCYLLA_REPLICATION_FACTOR: u32 = "scylla.replication_factor", Some("1"), "copies",
        "Copies of each row in a keyspace that is created at start. Production: 3.", parse::positive_u32;
    SCYLLA_DATACENTER: Option<String> = "scylla.datacenter", Some(""), "name",
        "The datacenter that everything happens in; needed only where the cluster has several.", parse::optional_text;
    SCYLLA_USER: Option<String> = "scylla.user", Some(""), "name",
        "The user; none, if empty.", parse::optional_text;
    SCYLLA_PASSWORD_FILE: Option<PathBuf> = "scylla.password_file", Some(""), "path",
        "A file that holds the user's password.", parse::optional_path;
    SCYLLA_REQUEST_TIMEOUT: Duration = "scylla.request_timeout_ms", Some("5000"), "ms",
        "How long one request may take.", parse::positive_duration_ms;
    SCYLLA_CONNECT_TIMEOUT: Duration = "scylla.connect_timeout_ms", Some("30000"), "ms",
        "How long connecting may take at start, migrations of the schema included.", parse::positive_duration_ms;
    CACHE_KIND: CacheKind = "cache.kind", Some("redis"), "redis, memory",
        "Where the readers' copy rests. The embedded binary's default is memory.", cache_kind;
    REDIS_URL: RedisUrl = "redis.url", Some("redis://127.0.0.1:6379"), "URL",
        "Where Redis is; may hold a user and a password.", redis_url, secret;
    REDIS_TIMEOUT: Duration = "redis.timeout_ms", Some("250"), "ms",
        "How long one call may take.", parse::positive_duration_ms;
    SQLITE_DIR: PathBuf = "sqlite.dir", Some("./data"), "path",
        "The folder of the embedded files.", parse::path;
    PERSON_KEY_SECRET_FILE: Option<PathBuf> = "privacy.person_key_secret_file", Some(""), "path",
        "A file of at least 32 bytes by which persons' ids are hashed. All processes must share it for ever. If empty: person.secret in sqlite.dir, made at first start.",
        parse::optional_path;
}

/// The sections of the shared file that not every process reads.
const SECTIONS_OF_SOME: [&str; 5] = ["ingest", "admin", "processor", "api", "allocator"];

/// What is wrong when a service of its own is configured with places that only one process can reach.
const NEEDS_SHARED: &str = "a service of its own needs log.kind = kafka, store.kind = scylla and cache.kind = redis; \
     for everything in one process use `allocator run`";

/// Where everything rests, checked but not opened.
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
    sqlite_dir: PathBuf,
    person_key_secret_file: Option<PathBuf>,
}

impl StorageConfig {
    /// Reads the settings; `None` once faults were noted.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let log = reader.read(&LOG_KIND);
        let partitions = reader.read(&LOG_PARTITIONS);
        let store = reader.read(&STORE_KIND);
        let cache = reader.read(&CACHE_KIND);
        let kafka = read_kafka(reader, partitions);
        let archive_dir = reader.read(&ARCHIVE_DIR);
        let exports_dir = reader.read(&EXPORTS_DIR);
        let scylla = read_scylla(reader);
        let url = reader.read(&REDIS_URL);
        let timeout = reader.read(&REDIS_TIMEOUT);
        let sqlite_dir = reader.read(&SQLITE_DIR);
        let person_key_secret_file = reader.read(&PERSON_KEY_SECRET_FILE);
        Some(Self {
            log: log?,
            partitions: partitions?,
            kafka: kafka?,
            archive_dir: archive_dir?,
            exports_dir: exports_dir?,
            store: store?,
            scylla: scylla?,
            cache: cache?,
            redis: RedisConfig { url: url?, timeout: timeout? },
            sqlite_dir: sqlite_dir?,
            person_key_secret_file: person_key_secret_file?,
        })
    }

    /// As [`read`](Self::read), for a service that is a process of its own: everything must rest where several
    /// processes can reach it.
    pub fn read_shared(reader: &mut Reader<'_>) -> Option<Self> {
        reader.shares_its_file(&SECTIONS_OF_SOME);
        let config = Self::read(reader)?;
        for (kind, is_shared) in [
            (LOG_KIND.name, config.log == LogKind::Kafka),
            (STORE_KIND.name, config.store == StoreKind::Scylla),
            (CACHE_KIND.name, config.cache == CacheKind::Redis),
        ] {
            if !is_shared {
                reader.fault(kind, NEEDS_SHARED.to_owned());
            }
        }
        Some(config)
    }

    /// The log that a new deployment begins with.
    pub fn first_log(&self) -> LogRef {
        self.kafka.first_log()
    }

    /// The folder of the logs' archives, if there is one.
    pub fn archive_dir(&self) -> Option<&Path> {
        self.archive_dir.as_deref()
    }

    /// Where exports are.
    pub fn exports(&self) -> Exports {
        Exports::new(&self.exports_dir)
    }

    /// The folder of the embedded files, if anything rests there.
    pub fn embedded_dir(&self) -> Option<&PathBuf> {
        let embedded = self.log == LogKind::Sqlite || self.store == StoreKind::Sqlite;
        embedded.then_some(&self.sqlite_dir)
    }
}

fn read_kafka(reader: &mut Reader<'_>, partitions: Option<PartitionCount>) -> Option<KafkaConfig> {
    let brokers = reader.read(&KAFKA_BROKERS);
    let topic = reader.read(&KAFKA_TOPIC);
    let definitions_topic = reader.read(&KAFKA_DEFINITIONS_TOPIC);
    let replication_factor = reader.read(&KAFKA_REPLICATION_FACTOR);
    let group = reader.read(&KAFKA_GROUP);
    let session_timeout = reader.read(&KAFKA_SESSION_TIMEOUT);
    let delivery_timeout = reader.read(&KAFKA_DELIVERY_TIMEOUT);
    let linger = reader.read(&KAFKA_LINGER);
    Some(KafkaConfig {
        brokers: brokers?,
        topic: topic?,
        definitions_topic: definitions_topic?,
        partitions: partitions?,
        replication_factor: replication_factor?,
        group: group?,
        session_timeout: session_timeout?,
        delivery_timeout: delivery_timeout?,
        linger: linger?,
    })
}

fn read_scylla(reader: &mut Reader<'_>) -> Option<ScyllaConfig> {
    let nodes = reader.read(&SCYLLA_NODES);
    let keyspace = reader.read(&SCYLLA_KEYSPACE);
    let replication_factor = reader.read(&SCYLLA_REPLICATION_FACTOR);
    let datacenter = reader.read(&SCYLLA_DATACENTER);
    let user = reader.read(&SCYLLA_USER);
    let password_file = reader.read(&SCYLLA_PASSWORD_FILE);
    let request_timeout = reader.read(&SCYLLA_REQUEST_TIMEOUT);
    let connect_timeout = reader.read(&SCYLLA_CONNECT_TIMEOUT);
    let credentials = match (user?, password_file?) {
        (None, _) => None,
        (Some(user), path) => {
            Some(ScyllaCredentials { user, password: read_password(reader, path)? })
        }
    };
    Some(ScyllaConfig {
        nodes: nodes?,
        keyspace: keyspace?,
        replication_factor: replication_factor?,
        datacenter: datacenter?,
        credentials,
        request_timeout: request_timeout?,
        connect_timeout: connect_timeout?,
    })
}

fn read_password(reader: &mut Reader<'_>, path: Option<PathBuf>) -> Option<String> {
    let Some(path) = path else {
        reader.fault(SCYLLA_PASSWORD_FILE.name, "needed when scylla.user is set".to_owned());
        return None;
    };
    match std::fs::read_to_string(&path) {
        Ok(password) => Some(password.trim_end().to_owned()),
        Err(error) => {
            reader.fault(SCYLLA_PASSWORD_FILE.name, format!("cannot be read: {error}"));
            None
        }
    }
}
