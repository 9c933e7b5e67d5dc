//! Everything in one process: ingest, processor and api on one address, over whatever storage is configured; files
//! and memory, if nobody says otherwise.

mod config;
mod data_dir;
mod welcome;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::ApiParts;
use axum::Router;
use ingest::IngestParts;
use processor::{Processor, ProcessorParts, StartError, first_roster};
use runtime::admin::AdminGuard;
use runtime::console;
use runtime::health::Health;
use runtime::http::{self, ServeError};
use runtime::metrics::{Metrics, MetricsError};
use runtime::process::Process;
use runtime::telemetry::LogFormat;
use storage::cache::Cache;
use storage::config::{OpenLog, OpenStore, StorageConfig};
use storage::definitions::Definitions;
use storage::opening::OpenError;
use tokio_util::sync::CancellationToken;

pub use config::{RunConfig, configuration_reference};
pub use data_dir::{DataDir, DataDirError};

/// Why the process does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data folder is not ours.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The address is not ours.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A place where data rests cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The processor does not start.
    #[error(transparent)]
    Processor(#[from] StartError),
    /// Two parts want the same metric: a mistake of ours.
    #[error("metrics: {0}")]
    Metrics(#[from] MetricsError),
    /// As above.
    #[error("metrics: {0}")]
    LogMetrics(#[from] prometheus::Error),
}

/// Runs until a signal ends it, then drains: unready, no new connections, requests in flight finish, the last commits
/// are made.
///
/// # Errors
/// When it cannot start, or cannot serve.
pub async fn run(config: &RunConfig) -> Result<(), RunError> {
    let data_dir = config.storage.embedded_dir();
    let _data_dir = data_dir.map(|dir| DataDir::take(dir)).transpose()?;
    let process = Process::start("allocator", &config.process)?;
    let (metrics, health, stop) = (&process.metrics, &process.health, &process.stop);
    let listener = http::bind(config.listen)?;
    let listen = listener.local_addr().unwrap_or(config.listen);

    // The processor outlives the server: what is accepted while requests finish is counted as well.
    let stop_processor = CancellationToken::new();
    let start = async {
        let admin = AdminGuard::new(&config.admin, metrics)?;
        tokio::spawn(admin.clone().follow_tokens_file(stop.clone()));
        let places = Places::open(&config.storage, admin).await?;
        places.start(config, metrics, health, stop, stop_processor.clone()).await
    };
    // Places that do not answer must not keep it from ending when it is told to.
    let Some(started) = stop.run_until_cancelled(start).await else { return Ok(()) };
    let (processor, routes) = started?;
    let limits = &config.process.http;
    let router = http::router("allocator", routes, metrics, health, limits);
    if config.process.telemetry.format == LogFormat::Human {
        let text = welcome::welcome(listen, data_dir.map(|dir| dir.as_path()));
        tokio::spawn(print_when_ready(text, health.clone(), stop.clone()));
    }
    tracing::info!(%listen, "serving everything");
    let served = http::serve(listener, router, limits, metrics, stop.clone()).await;
    tracing::info!("stopping: the last commits are made");
    stop_processor.cancel();
    processor.stopped().await;
    Ok(served?)
}

/// Where everything rests, open.
struct Places {
    log: OpenLog,
    store: OpenStore,
    cache: Arc<dyn Cache>,
    definitions: Arc<dyn Definitions>,
    ingest: IngestParts,
}

impl Places {
    async fn open(storage: &StorageConfig, admin: AdminGuard) -> Result<Self, RunError> {
        let store = storage.open_store().await?;
        storage.ensure_definitions().await?;
        let definitions = storage.open_definitions()?;
        let first_log = storage.first_log();
        let roster = first_roster(store.store.as_ref(), definitions.as_ref(), &first_log).await?;
        let log = storage.open_log(&roster.current.log, definitions.as_ref()).await?;
        Ok(Self {
            ingest: IngestParts {
                log: Arc::clone(&log.writer),
                definitions: Arc::clone(&definitions),
                idempotency: storage.open_idempotency().await,
                hasher: storage.hasher()?,
                admin,
            },
            log,
            store,
            cache: storage.open_cache().await,
            definitions,
        })
    }

    /// Starts the three parts; answers the processor and the routes of the other two.
    async fn start(
        self,
        config: &RunConfig,
        metrics: &Metrics,
        health: &Health,
        stop: &CancellationToken,
        stop_processor: CancellationToken,
    ) -> Result<(Processor, Router), RunError> {
        let Self { log, store, cache, definitions, ingest } = self;
        let parts = ProcessorParts {
            source: log.source,
            logs: Arc::new(config.storage.clone()),
            first_log: config.storage.first_log(),
            dead_letters: log.dead_letters,
            letters: config.storage.open_letter_book()?,
            writer: Arc::clone(&log.writer),
            archive_dir: config.storage.archive_dir().map(Path::to_owned),
            store: Arc::clone(&store.store),
            jobs: Arc::clone(&store.jobs),
            cache: Arc::clone(&cache),
            definitions: Arc::clone(&definitions),
            exports: config.storage.exports(),
        };
        let processor =
            Processor::start(&config.processor, parts, metrics, health, stop_processor).await?;
        let parts = ApiParts {
            store: store.store,
            cache,
            definitions: Arc::clone(&definitions),
            hasher: ingest.hasher.clone(),
            jobs: store.jobs,
            letters: Arc::new(config.storage.clone()),
            exports: config.storage.exports(),
            admin: ingest.admin.clone(),
        };
        let reads = api::routes(&config.api, parts, metrics, health, stop.clone())?;
        tokio::spawn(ingest::watch_readiness(
            log.writer,
            Arc::clone(&definitions),
            health.clone(),
            stop.clone(),
        ));
        tokio::spawn(ingest::define_default_budgets(definitions, stop.clone()));
        let writes = ingest::routes(&config.ingest, ingest, metrics)?;
        Ok((processor, writes.merge(reads)))
    }
}

/// Prints once everything works, so that what is printed works.
async fn print_when_ready(text: String, health: Health, stop: CancellationToken) {
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    while !health.is_ready() {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    console::out(&text);
}
