//! The process that takes submissions.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use ingest::{IngestConfig, IngestParts};
use runtime::config::{ConfigArgs, KeyDoc, Settings};
use runtime::health::{Health, HealthConfig};
use runtime::http::{self, HttpConfig};
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;
use runtime::telemetry::{self, TelemetryConfig};
use storage::config::StorageConfig;

/// A request is many small pieces of memory that one thread takes and another gives back: what glibc's allocator is
/// slow at. (The processor keeps glibc's, which holds less in reserve.)
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SERVICE: &str = "ingest";
const KEYS: &[&[KeyDoc]] = &[
    IngestConfig::KEYS,
    HttpConfig::KEYS,
    HealthConfig::KEYS,
    TelemetryConfig::KEYS,
    storage::config::KEYS,
];

/// Takes submissions over HTTP and puts them into the log.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

struct Config {
    ingest: IngestConfig,
    http: HttpConfig,
    health: HealthConfig,
    telemetry: TelemetryConfig,
    storage: StorageConfig,
}

impl Config {
    fn load(args: &ConfigArgs) -> anyhow::Result<Self> {
        let settings = Settings::load(args)?;
        let mut reader = settings.reader();
        let ingest = IngestConfig::read(&mut reader);
        let http = HttpConfig::read(&mut reader);
        let health = HealthConfig::read(&mut reader);
        let telemetry = TelemetryConfig::read(&mut reader);
        let storage = StorageConfig::read(&mut reader);
        if storage.as_ref().is_some_and(|storage| !storage.is_shared()) {
            reader.fault("log.kind", storage::config::NEEDS_SHARED.to_owned());
        }
        for foreign in ["api", "processor", "allocator"] {
            reader.ignore_section(foreign);
        }
        reader.finish(KEYS)?;
        let config = || {
            Some(Self {
                ingest: ingest?,
                http: http?,
                health: health?,
                telemetry: telemetry?,
                storage: storage?,
            })
        };
        config().context("a setting is wrong")
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{SERVICE}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let telemetry = telemetry::init(&config.telemetry);
    let metrics = Metrics::new(SERVICE);
    telemetry.expose(&metrics)?;
    let health = Health::new(&config.health);
    let shutdown = Shutdown::listen();
    let stop = shutdown.token();
    health.drain_with(stop.clone());

    let parts = IngestParts {
        log: config.storage.open_log_writer().await?,
        definitions: config.storage.open_definitions()?,
        idempotency: config.storage.open_idempotency().await,
        hasher: config.storage.hasher()?,
    };
    let watched = (Arc::clone(&parts.log), Arc::clone(&parts.definitions), health.clone());
    tokio::spawn(ingest::watch_readiness(watched.0, watched.1, watched.2, stop.clone()));
    tokio::spawn(ingest::define_default_budgets(Arc::clone(&parts.definitions), stop.clone()));

    let routes = ingest::routes(&config.ingest, parts, &metrics)?;
    let router = http::router(SERVICE, routes, &metrics, &health, &config.http);
    let listener = http::bind(config.ingest.listen)?;
    tracing::info!(address = %listener.local_addr()?, "taking submissions");
    http::serve(listener, router, &config.http, &metrics, stop).await?;
    Ok(())
}
