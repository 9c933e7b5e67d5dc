//! The process that answers reads. It starts whatever is away, and answers from what is there.

use std::process::ExitCode;

use anyhow::Context;
use api::{ApiConfig, ApiParts, LateStore};
use clap::Parser;
use runtime::config::{ConfigArgs, Settings};
use runtime::health::{Health, HealthConfig};
use runtime::http::{self, HttpConfig};
use runtime::metrics::Metrics;
use runtime::shutdown::Shutdown;
use runtime::telemetry::{self, TelemetryConfig};
use storage::config::{NEEDS_SHARED, StorageConfig};

/// Answers reads: budgets, their aggregates, a person's own allocation.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// What the process is set up with.
struct Config {
    api: ApiConfig,
    storage: StorageConfig,
    http: HttpConfig,
    health: HealthConfig,
    telemetry: TelemetryConfig,
}

/// Sections of the shared file that are other processes'.
const FOREIGN_SECTIONS: [&str; 4] = ["ingest", "admin", "processor", "allocator"];

impl Config {
    fn load(args: &ConfigArgs) -> anyhow::Result<Self> {
        let settings = Settings::load(args)?;
        let mut reader = settings.reader();
        FOREIGN_SECTIONS.into_iter().for_each(|section| reader.ignore_section(section));
        let api = ApiConfig::read(&mut reader);
        let storage = StorageConfig::read(&mut reader);
        let http = HttpConfig::read(&mut reader);
        let health = HealthConfig::read(&mut reader);
        let telemetry = TelemetryConfig::read(&mut reader);
        if storage.as_ref().is_some_and(|storage| !storage.is_shared()) {
            reader.fault("store.kind", NEEDS_SHARED.to_owned());
        }
        let values = api.zip(storage).zip(http).zip(health).zip(telemetry);
        let config = values.map(|((((api, storage), http), health), telemetry)| Self {
            api,
            storage,
            http,
            health,
            telemetry,
        });
        reader.finish(&[
            ApiConfig::KEYS,
            storage::config::KEYS,
            HttpConfig::KEYS,
            HealthConfig::KEYS,
            TelemetryConfig::KEYS,
        ])?;
        // A value that is missing has left a fault, so that this line is not reached.
        config.context("the configuration is incomplete")
    }
}

fn main() -> ExitCode {
    let config = match Config::load(&Args::parse().config) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("api: {faults}");
            return ExitCode::from(2);
        }
    };
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("api: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: &Config) -> anyhow::Result<()> {
    let logging = telemetry::init(&config.telemetry);
    let metrics = Metrics::new("api");
    logging.expose(&metrics).context("metrics")?;
    let health = Health::new(&config.health);
    let stop = Shutdown::listen().token();
    health.drain_with(stop.clone());
    let listener = http::bind(config.api.listen)?;

    let storage = config.storage.clone();
    let open_store = move || {
        let storage = storage.clone();
        async move { storage.open_store().await }
    };
    let parts = ApiParts {
        store: LateStore::open(open_store, stop.clone()),
        cache: config.storage.open_cache().await,
        definitions: config.storage.open_definitions()?,
        hasher: config.storage.hasher()?,
        partitions: config.storage.partitions(),
    };
    let routes = api::routes(&config.api, parts, &metrics, &health, stop.clone())?;
    let router = http::router("api", routes, &metrics, &health, &config.http);
    tracing::info!(address = %config.api.listen, "answering reads");
    http::serve(listener, router, &config.http, &metrics, stop).await?;
    Ok(())
}
