//! Runs ingest, processor and api in one process on one address.
//!
//! The default storage is embedded: SQLite files and an in-process cache. Any configured storage works.

mod admin_token;
mod config;
mod data_dir;
mod welcome;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::ApiDeps;
use axum::Router;
use identity::{Authorizer, AuthorizerError};
use ingest::{CountedPeople, EmailError, IngestDeps, PendingSignals};
use processor::{Processor, ProcessorDeps, ProcessorFailed, StartError, first_registry};
use runtime::admin::{AdminConfig, AdminGuard};
use runtime::console;
use runtime::health::Health;
use runtime::http::{self, ServeError};
use runtime::limits::RequestLimits;
use runtime::metrics::{Metrics, MetricsError};
use runtime::process::Process;
use runtime::telemetry::LogFormat;
use schemas::{LogRef, PersonSecret};
use storage::cache::Cache;
use storage::config::{LogHandles, StoreHandles};
use storage::control::{ControlTopic, wait_until_loaded};
use storage::open_error::OpenError;
use tokio_util::sync::CancellationToken;

pub use admin_token::{AdminTokenError, TOKEN_FILE};
pub use config::{RunConfig, configuration_reference};
pub use data_dir::{DataDir, DataDirError};

/// Why the process could not start or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory is locked or unusable.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The first start cannot make an administrator's token, or its files are unusable.
    #[error(transparent)]
    AdminToken(#[from] AdminTokenError),
    /// The server could not bind its address or failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A storage backend cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The processor could not start.
    #[error(transparent)]
    Processor(#[from] StartError),
    /// The processor ended by itself.
    #[error(transparent)]
    ProcessorFailed(#[from] ProcessorFailed),
    /// Authorizer cannot start.
    #[error(transparent)]
    Authorizer(#[from] AuthorizerError),
    /// Signing in by e-mail cannot start.
    #[error(transparent)]
    Email(#[from] EmailError),
    /// A metric was registered twice, which is a bug.
    #[error("metrics: {0}")]
    Metrics(#[from] MetricsError),
    /// A metric was registered twice through `prometheus`, which is a bug.
    #[error("metrics: {0}")]
    LogMetrics(#[from] prometheus::Error),
}

/// Runs until a signal, then drains.
///
/// Draining reports unready, refuses new connections, finishes the requests in flight, appends the queued signals and
/// makes the last commits.
///
/// # Errors
/// When the process cannot start or serve.
pub async fn run(config: &RunConfig) -> Result<(), RunError> {
    let data_dir = config.storage.embedded_dir();
    let _data_dir = data_dir.map(|dir| DataDir::lock(dir)).transpose()?;
    let admin_config = with_own_token(&config.admin, data_dir.map(|dir| dir.as_path()))?;
    let process = Process::start("allocator", &config.process)?;
    let (metrics, health, stop) = (&process.metrics, &process.health, &process.stop);
    let listener = http::bind(config.listen)?;
    let listen = listener.local_addr().unwrap_or(config.listen);

    // The processor stops after the server, so that submissions accepted during the drain are folded too.
    let stop_processor = CancellationToken::new();
    let start = async {
        let admin = AdminGuard::new(&admin_config, metrics)?;
        tokio::spawn(admin.clone().reload_tokens_file(stop.clone()));
        // First: a secret is created only where there is no data.
        let person_secret = config.storage.person_secret()?;
        let backends = Backends::open(config, person_secret, admin, metrics, stop).await?;
        tokio::spawn(backends.ingest.authorizer.clone().run(stop.clone()));
        backends.start_services(config, metrics, health, stop, stop_processor.clone()).await
    };
    // An unreachable backend must not delay a requested stop.
    let Some(started) = stop.run_until_cancelled(start).await else { return Ok(()) };
    let (processor, routes, signals) = started?;
    let limits = &config.process.http;
    let readers = config.metrics_readers;
    let router = http::router_for(readers, "allocator", routes, metrics, health, limits);
    if config.process.telemetry.format == LogFormat::Human {
        let text = welcome::welcome(listen, data_dir.map(|dir| dir.as_path()));
        tokio::spawn(print_when_ready(text, health.clone(), stop.clone()));
    }
    tracing::info!(%listen, "allocator started");
    let (stopping, stop_all) = (processor.stopping(), stop.clone());
    tokio::spawn(async move {
        stopping.cancelled().await;
        stop_all.cancel();
    });
    let proxies = &config.admin.trusted_proxies;
    let served = http::serve(listener, router, limits, proxies, metrics, stop.clone()).await;
    tracing::info!("draining the processor");
    stop_processor.cancel();
    let ((), ended) = tokio::join!(signals.flush(), processor.stopped());
    served?;
    Ok(ended?)
}

/// Adds the tokens file of the data directory if none is configured.
fn with_own_token(config: &AdminConfig, data: Option<&Path>) -> Result<AdminConfig, RunError> {
    let mut config = config.clone();
    if let (None, Some(dir)) = (&config.tokens, data) {
        config.tokens = Some(admin_token::ensure(dir)?);
    }
    Ok(config)
}

/// The opened storage backends.
struct Backends {
    log: LogHandles,
    store: StoreHandles,
    cache: Arc<dyn Cache>,
    control: ControlTopic,
    /// The log to which submissions go.
    active_log: LogRef,
    ingest: IngestDeps,
}

impl Backends {
    async fn open(
        config: &RunConfig,
        person_secret: PersonSecret,
        admin: AdminGuard,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> Result<Self, RunError> {
        let storage = &config.storage;
        storage.ensure_control_topic().await?;
        let control = storage.open_control_topic()?;
        wait_until_loaded(control.active_log.as_ref()).await;
        let revoked = control.revocations.subscribe_revoked();
        let authorizer =
            Authorizer::new(&config.identity, &person_secret, revoked, admin.clone(), metrics)?;
        let authenticator = authorizer.authenticator().clone();
        let counters = storage.open_limit_counters().await;
        // One for ingest and api, so that the requests of both share one maximum.
        let (limits, max_requests) = (&config.limits, config.process.http.max_requests);
        let limits = RequestLimits::new(limits, max_requests, authenticator, counters, metrics)?;
        let codes = storage.open_one_time_codes().await;
        let email =
            ingest::email_sign_in(&config.email, &person_secret, codes, metrics, stop.clone())?;
        let store = storage.open_store().await?;
        let first_log = storage.first_log();
        let registry =
            first_registry(store.store.as_ref(), control.active_log.as_ref(), &first_log).await?;
        let log = storage.open_log(&registry.active.log, control.active_log.as_ref()).await?;
        // After the topics were created: whether the log has records decides.
        storage.record_secret(&control, &person_secret, &registry.active.log).await?;
        let cache = storage.open_cache().await;
        let people = CountedPeople::opened(Arc::clone(&cache), Arc::clone(&store.store));
        Ok(Self {
            ingest: IngestDeps {
                log: Arc::clone(&log.writer),
                definitions: Arc::clone(&control.definitions),
                idempotency: storage.open_idempotency(&control.active_log).await,
                person_secret,
                signals: storage.signal_writer(),
                people: Arc::new(people),
                admin,
                limits,
                authorizer,
                email,
            },
            log,
            store,
            cache,
            control,
            active_log: registry.active.log,
        })
    }

    /// Starts the processor and builds the routes of ingest and api. Also returns the queue of signals.
    async fn start_services(
        self,
        config: &RunConfig,
        metrics: &Metrics,
        health: &Health,
        stop: &CancellationToken,
        stop_processor: CancellationToken,
    ) -> Result<(Processor, Router, PendingSignals), RunError> {
        let Self { log, store, cache, control, active_log, ingest } = self;
        let definitions = Arc::clone(&control.definitions);
        let annulments = Arc::clone(&control.annulments);
        let announced = Arc::clone(&control.active_log);
        let deps = ProcessorDeps {
            source: log.source,
            logs: Arc::new(config.storage.clone()),
            first_log: config.storage.first_log(),
            dead_letters: log.dead_letters,
            dead_letter_journal: config.storage.open_dead_letter_journal()?,
            writer: Arc::clone(&log.writer),
            archive_dir: config.storage.archive_dir().map(Path::to_owned),
            store: Arc::clone(&store.store),
            jobs: Arc::clone(&store.jobs),
            cache: Arc::clone(&cache),
            control,
            exports: config.storage.exports(),
            signals: config.storage.signal_reader(),
        };
        let processor =
            Processor::start(&config.processor, deps, metrics, health, stop_processor).await?;
        let deps = ApiDeps {
            store: store.store,
            cache,
            definitions: Arc::clone(&definitions),
            person_secret: ingest.person_secret.clone(),
            jobs: store.jobs,
            dead_letters: Arc::new(config.storage.clone()),
            signals: config.storage.signal_reader(),
            signal_eraser: config.storage.signal_eraser(),
            annulments,
            exports: config.storage.exports(),
            admin: ingest.admin.clone(),
            limits: ingest.limits.clone(),
            authorizer: ingest.authorizer.clone(),
        };
        let reads = api::routes(&config.api, deps, metrics, health, stop.clone())?;
        tokio::spawn(ingest::watch_readiness(
            log.writer,
            Arc::clone(&definitions),
            health.clone(),
            metrics,
            stop.clone(),
        )?);
        if ingest.email.is_none() {
            let definitions = Arc::clone(&definitions);
            tokio::spawn(ingest::report_budgets_without_email(definitions, stop.clone()));
        }
        let (storage, active) = (config.storage.clone(), active_log);
        let has_records = move || {
            let (storage, log) = (storage.clone(), active.clone());
            async move { storage.has_records(&log).await }
        };
        let storage = config.storage.clone();
        let count_brokers = move || {
            let storage = storage.clone();
            async move { storage.brokers_without_replicas().await }
        };
        tokio::spawn(ingest::report_replication(count_brokers, metrics, stop.clone())?);
        let storage = config.storage.clone();
        let refused_settings = move || {
            let (storage, log) = (storage.clone(), storage.announced_log(announced.as_ref()));
            async move { storage.refused_topic_settings(&log).await }
        };
        tokio::spawn(ingest::report_topic_settings(refused_settings, metrics, stop.clone())?);
        tokio::spawn(ingest::define_default_budgets(
            definitions,
            has_records,
            metrics,
            stop.clone(),
        )?);
        let (writes, signals) = ingest::routes(&config.ingest, ingest, metrics)?;
        Ok((processor, writes.merge(reads), signals))
    }
}

/// Prints the welcome text once the process is ready, so that its commands work.
async fn print_when_ready(text: String, health: Health, stop: CancellationToken) {
    const POLL_INTERVAL: Duration = Duration::from_millis(20);
    while !health.is_ready() {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
    }
    console::out(&text);
}
