//! The running processor: log source thread, coordinator, publisher, shadow generations and job
//! worker.
//!
//! Owns the order of start and shutdown; `startup` makes the components. The work itself is done by `engine`,
//! `generations` and `operations`.

mod startup;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use runtime::health::Health;
use runtime::metrics::Metrics;
use schemas::LogRef;
use storage::cache::Cache;
use storage::control::ControlTopic;
use storage::exports::Exports;
use storage::jobs::JobStore;
use storage::log::{DeadLetterJournal, DeadLetterWriter, LogReaderOpener, LogSource, LogWriter};
use storage::signals::SignalReader;
use storage::store::Store;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::startup::{ComponentMetrics, Startup};
use crate::component::{Component, ProcessorFailed};
use crate::config::ProcessorConfig;
use crate::first_registry::first_registry;
use crate::source_loop::SourceLoop;
use crate::start_error::StartError;

/// The component that feeds all partitions.
const LOG_SOURCE: &str = "log source";

/// Dependencies of the processor.
pub struct ProcessorDeps {
    /// The log as a member of the consumer group.
    pub source: Box<dyn LogSource>,
    /// Opens logs for shadow generations and jobs.
    pub logs: Arc<dyn LogReaderOpener>,
    /// The log that a new deployment begins with.
    pub first_log: LogRef,
    /// Appends dead letters of rejected records.
    pub dead_letters: Arc<dyn DeadLetterWriter>,
    /// Dead letters and the operators' decisions on them.
    pub dead_letter_journal: Arc<dyn DeadLetterJournal>,
    /// Appends replayed dead letters, and the markers of closing budgets, to the log.
    pub writer: Arc<dyn LogWriter>,
    /// Totals, checkpoints and person rows.
    pub store: Arc<dyn Store>,
    /// Background jobs.
    pub jobs: Arc<dyn JobStore>,
    /// The cache that totals are published to.
    pub cache: Arc<dyn Cache>,
    /// Budget definitions and the announced active log.
    pub control: ControlTopic,
    /// Directory of the logs' archives, if configured.
    pub archive_dir: Option<PathBuf>,
    /// Destination of exports.
    pub exports: Exports,
    /// Signals of submissions, for their metrics.
    pub signals: Arc<dyn SignalReader>,
}

/// A running processor.
pub struct Processor {
    source: Option<std::thread::JoinHandle<Result<(), ProcessorFailed>>>,
    /// Components that end once `stopping` is cancelled.
    components: Vec<Component>,
    publisher: Component,
    stop_publisher: CancellationToken,
    stopping: CancellationToken,
}

impl Processor {
    /// Starts all components. Cancel `stop` to end them, then await [`Processor::stopped`]. They also end when the
    /// generation registry becomes unreadable, or a component panics: see [`Processor::stopping`].
    ///
    /// # Errors
    /// When the deployment began with another log than is configured, the registry is damaged, or
    /// metrics or threads cannot be created.
    pub async fn start(
        config: &ProcessorConfig,
        deps: ProcessorDeps,
        metrics: &Metrics,
        health: &Health,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let metrics = ComponentMetrics::new(metrics)?;
        let group = health.check("group");
        let registry =
            first_registry(deps.store.as_ref(), deps.control.active_log.as_ref(), &deps.first_log)
                .await?;
        let (registry_updates, registry) = watch::channel(registry);
        let stopping = stop.child_token();

        let mut startup = Startup::new(config, &deps, &metrics, registry, stopping.clone());
        startup.follow_registry(registry_updates, health.check("registry"));
        startup.announce_active_log();
        startup.watch_cache_term();
        let publisher = startup.publisher();
        let shadow = startup.shadow_generations()?;
        let coordinator = startup.coordinator(&publisher, health.check("partitions"));
        startup.schedule_reports(&coordinator);
        startup.watch_signals(&coordinator);
        startup.close_budgets(&coordinator);
        startup.run_jobs(&coordinator);
        startup.fold_shadow_generations(shadow, &coordinator);
        let components = startup.into_components();

        let source_loop = SourceLoop {
            coordinator,
            metrics: metrics.engine,
            group,
            stop: stopping.clone(),
            handle: Handle::current(),
        };
        let source = spawn_source_thread(source_loop, deps.source, stopping.clone())?;
        let stop_publisher = CancellationToken::new();
        let (stop, interval) = (stop_publisher.clone(), config.republish_interval);
        let publisher = Component::spawn("publisher", &stopping, async move {
            publisher.run(interval, stop).await;
        });
        Ok(Self { source: Some(source), components, publisher, stop_publisher, stopping })
    }

    /// Returns a token that is cancelled when the components end, on request or by themselves.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Waits for a clean shutdown after `stop` was cancelled.
    ///
    /// Afterwards everything folded is committed and published, and a running job is released.
    ///
    /// # Errors
    /// When the components ended by themselves: the reason.
    pub async fn stopped(mut self) -> Result<(), ProcessorFailed> {
        let mut ended = Ok(());
        if let Some(source) = self.source.take() {
            let joined = tokio::task::spawn_blocking(move || source.join()).await;
            let panicked = Err(ProcessorFailed::ComponentPanicked(LOG_SOURCE));
            ended = joined.ok().and_then(Result::ok).unwrap_or(panicked);
        }
        for component in self.components {
            ended = ended.and(component.ended().await);
        }
        // Last: the owners' final commits are published, too.
        self.stop_publisher.cancel();
        ended.and(self.publisher.ended().await)
    }
}

/// Starts the thread of the log source, without which no partition is folded.
fn spawn_source_thread(
    source_loop: SourceLoop,
    source: Box<dyn LogSource>,
    stop_on_panic: CancellationToken,
) -> std::io::Result<std::thread::JoinHandle<Result<(), ProcessorFailed>>> {
    std::thread::Builder::new().name("log-source".into()).spawn(move || {
        catch_unwind(AssertUnwindSafe(|| source_loop.run(source))).map_err(|_| {
            tracing::error!(component = LOG_SOURCE, "component panicked, stopping the processor");
            stop_on_panic.cancel();
            ProcessorFailed::ComponentPanicked(LOG_SOURCE)
        })
    })
}
