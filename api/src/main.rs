//! The process that answers reads. It starts whatever is away, and answers from what is there.

use std::process::ExitCode;

use api::{ApiConfig, ApiParts, LateStore};
use clap::Parser;
use runtime::config::{ConfigArgs, ConfigFaults, Settings};
use runtime::http;
use runtime::process::{self, Process, ProcessConfig};
use storage::config::StorageConfig;

const SERVICE: &str = "api";
/// Sections of the shared file that are other processes'.
const FOREIGN_SECTIONS: [&str; 4] = ["ingest", "admin", "processor", "allocator"];

/// Answers reads: budgets, their aggregates, a person's own allocation.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

struct Config {
    process: ProcessConfig,
    storage: StorageConfig,
    api: ApiConfig,
}

impl Config {
    fn load(args: &ConfigArgs) -> Result<Self, ConfigFaults> {
        let settings = Settings::load(args)?;
        let mut reader = settings.reader();
        reader.ignore_sections(&FOREIGN_SECTIONS);
        let process = ProcessConfig::read(&mut reader);
        let storage = StorageConfig::read_shared(&mut reader);
        let api = ApiConfig::read(&mut reader);
        let whole = || Some(Self { process: process?, storage: storage?, api: api? });
        reader.finish(whole())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    process::exit_code(SERVICE, run(&Args::parse()).await)
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let process = Process::start(SERVICE, &config.process)?;
    let (metrics, health, stop) = (&process.metrics, &process.health, &process.stop);
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
    let routes = api::routes(&config.api, parts, metrics, health, stop.clone())?;
    let router = http::router(SERVICE, routes, metrics, health, &config.process.http);
    tracing::info!(address = %config.api.listen, "answering reads");
    http::serve(listener, router, &config.process.http, metrics, stop.clone()).await?;
    Ok(())
}
