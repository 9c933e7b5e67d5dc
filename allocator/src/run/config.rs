//! The settings of the one process: its own address, and those of everything in it.

use std::net::SocketAddr;

use api::ApiConfig;
use ingest::IngestConfig;
use processor::ProcessorConfig;
use runtime::admin::AdminConfig;
use runtime::config::{ConfigArgs, ConfigFaults, Key, KeyDoc, Settings, parse, reference};
use runtime::health::HealthConfig;
use runtime::http::HttpConfig;
use runtime::process::ProcessConfig;
use runtime::telemetry::TelemetryConfig;
use storage::config::StorageConfig;

const LISTEN: Key<SocketAddr> = Key::new(
    "allocator.listen",
    Some("127.0.0.1:8000"),
    "address:port",
    "Where `allocator run` serves everything.",
    parse::socket_addr,
);

/// Every key of every process.
const KEYS: &[&[KeyDoc]] = &[
    &[LISTEN.describe()],
    storage::config::KEYS,
    IngestConfig::KEYS,
    processor::config::KEYS,
    ApiConfig::KEYS,
    AdminConfig::KEYS,
    HttpConfig::KEYS,
    HealthConfig::KEYS,
    TelemetryConfig::KEYS,
];

/// What this process chooses where nobody says otherwise: files and memory, no servers.
const EMBEDDED: [(&str, &str); 3] =
    [("log.kind", "sqlite"), ("store.kind", "sqlite"), ("cache.kind", "memory")];

/// The settings.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// Where everything is served.
    pub listen: SocketAddr,
    /// Where data rests.
    pub storage: StorageConfig,
    /// Of HTTP to log.
    pub ingest: IngestConfig,
    /// Of log to totals.
    pub processor: ProcessorConfig,
    /// Of the reads.
    pub api: ApiConfig,
    /// Of administrators.
    pub admin: AdminConfig,
    /// Of logging, the server and readiness.
    pub process: ProcessConfig,
}

impl RunConfig {
    /// Reads the file, the environment and the flags.
    ///
    /// # Errors
    /// Every fault of the configuration.
    pub fn load(args: &ConfigArgs) -> Result<Self, ConfigFaults> {
        let embedded = EMBEDDED.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let settings = Settings::load(args)?.with_defaults(embedded);
        let mut reader = settings.reader();
        let listen = reader.read(&LISTEN);
        let storage = StorageConfig::read(&mut reader);
        let ingest = IngestConfig::read(&mut reader);
        let processor = ProcessorConfig::read(&mut reader);
        let api = ApiConfig::read(&mut reader);
        let admin = AdminConfig::read(&mut reader);
        let process = ProcessConfig::read(&mut reader);
        let whole = || {
            Some(Self {
                listen: listen?,
                storage: storage?,
                ingest: ingest?,
                processor: processor?,
                api: api?,
                admin: admin?,
                process: process?,
            })
        };
        reader.finish(whole())
    }
}

/// The settings of all processes, as a Markdown table.
pub fn configuration_reference() -> String {
    reference(KEYS)
}
