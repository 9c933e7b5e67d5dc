//! The settings of `allocator run`: its listen address and the settings of every service in it.

use std::net::SocketAddr;

use api::ApiConfig;
use ingest::{EmailConfig, IngestConfig};
use processor::ProcessorConfig;
use runtime::admin::AdminConfig;
use runtime::config::{ConfigArgs, ConfigFaults, KeyDoc, Settings, parse, reference, settings};
use runtime::health::HealthConfig;
use runtime::http::HttpConfig;
use runtime::http::MetricsReaders;
use runtime::limits::LimitsConfig;
use runtime::principal::IdentityConfig;
use runtime::process::ProcessConfig;
use runtime::telemetry::TelemetryConfig;
use storage::config::StorageConfig;

settings! {
    /// Settings of this process alone.
    struct AllocatorSettings {
        /// Listen address of `allocator run`, for all services.
        listen: SocketAddr = "allocator.listen", default "127.0.0.1:8000",
            unit "address:port", parse parse::socket_addr;
        /// Who may read `/metrics`, which counts submissions, also while results are withheld: `same-machine` or
        /// `everyone`.
        metrics_readers: MetricsReaders = "allocator.metrics_readers", default "same-machine",
            unit "clients", parse metrics_readers;
    }
}

/// Defaults of this process: embedded storage, no servers.
const EMBEDDED_DEFAULTS: [(&str, &str); 3] =
    [("log.kind", "sqlite"), ("store.kind", "sqlite"), ("cache.kind", "memory")];

/// Settings of `allocator run`.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// Listen address of all services.
    pub listen: SocketAddr,
    /// Who may read `/metrics`.
    pub metrics_readers: MetricsReaders,
    /// Storage backends.
    pub storage: StorageConfig,
    /// Settings of ingest.
    pub ingest: IngestConfig,
    /// Settings of the processor.
    pub processor: ProcessorConfig,
    /// Settings of the read API.
    pub api: ApiConfig,
    /// Settings of administrator access.
    pub admin: AdminConfig,
    /// Rate limits.
    pub limits: LimitsConfig,
    /// Settings of persons' credentials.
    pub identity: IdentityConfig,
    /// Settings of persons by e-mail.
    pub email: EmailConfig,
    /// Settings of logging, the server and readiness.
    pub process: ProcessConfig,
}

impl RunConfig {
    /// Reads the file, the environment and the flags.
    ///
    /// # Errors
    /// All faults of the configuration.
    pub fn load(args: &ConfigArgs) -> Result<Self, ConfigFaults> {
        let defaults = EMBEDDED_DEFAULTS.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let settings = Settings::load(args)?.with_defaults(defaults);
        let mut reader = settings.reader();
        let own = AllocatorSettings::read(&mut reader);
        let storage = StorageConfig::read(&mut reader);
        let ingest = IngestConfig::read(&mut reader);
        let processor = ProcessorConfig::read(&mut reader);
        let api = ApiConfig::read(&mut reader);
        let admin = AdminConfig::read(&mut reader);
        let limits = LimitsConfig::read(&mut reader);
        let identity = IdentityConfig::read(&mut reader);
        let email = EmailConfig::read(&mut reader);
        let process = ProcessConfig::read(&mut reader);
        let typed = || {
            let own = own?;
            Some(Self {
                listen: own.listen,
                metrics_readers: own.metrics_readers,
                storage: storage?,
                ingest: ingest?,
                processor: processor?,
                api: api?,
                admin: admin?,
                limits: limits?,
                identity: identity?,
                email: email?,
                process: process?,
            })
        };
        reader.finish(typed())
    }
}

fn metrics_readers(text: &str) -> Result<MetricsReaders, String> {
    match text {
        "same-machine" => Ok(MetricsReaders::SameMachine),
        "everyone" => Ok(MetricsReaders::Everyone),
        _ => Err("expected `same-machine` or `everyone`".to_owned()),
    }
}

/// Renders the settings of all processes as a Markdown table.
pub fn configuration_reference() -> String {
    let services: &[&[KeyDoc]] = &[
        IngestConfig::KEYS,
        processor::config::KEYS,
        ApiConfig::KEYS,
        AdminConfig::KEYS,
        LimitsConfig::KEYS,
        IdentityConfig::KEYS,
        EmailConfig::KEYS,
        HttpConfig::KEYS,
        HealthConfig::KEYS,
        TelemetryConfig::KEYS,
    ];
    reference(&[&[AllocatorSettings::KEYS], storage::config::KEYS, services].concat())
}
