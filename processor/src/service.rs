//! The running processor: log source thread, coordinator, publisher, shadow generations and job
//! worker.
//!
//! Owns wiring and shutdown order. The work itself is done by `engine`, `generations` and
//! `operations`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use engine::closing::{BudgetCloser, ClosingDeps, ClosingMetrics};
use engine::coordinator::{Coordinator, CoordinatorDeps, ShadowOwners};
use engine::metrics::EngineMetrics;
use engine::publisher::Publisher;
use fraud::monitor::{SignalMetrics, SignalMonitor, SignalMonitorDeps};
use generations::metrics::GenerationMetrics;
use generations::registry::{watch_cache_term, watch_registry};
use generations::repartition::ActiveLogAnnouncer;
use generations::shadow::{LogReaderPool, ShadowDeps, ShadowGenerations, ShadowPermits};
use jiff::Timestamp;
use operations::jobs::{
    JobExecutorDeps, JobExecutors, JobMetrics, JobWorker, JobWorkerDeps, ScanTurns,
};
use operations::report::schedule::{ReportScheduleDeps, ReportScheduler};
use runtime::clock::now_ms;
use runtime::health::{Check, Health};
use runtime::metrics::Metrics;
use schemas::{GenerationRegistry, LogRef, owner_name};
use storage::cache::Cache;
use storage::control::ControlTopic;
use storage::exports::Exports;
use storage::jobs::JobStore;
use storage::log::{DeadLetterJournal, DeadLetterWriter, LogReaderOpener, LogSource, LogWriter};
use storage::signals::SignalReader;
use storage::store::Store;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::component::{Component, ProcessorFailed};
use crate::config::ProcessorConfig;
use crate::first_registry::first_registry;
use crate::source_loop::SourceLoop;
use crate::start_error::StartError;

/// The component that feeds all partitions.
const LOG_SOURCE: &str = "log source";

/// Commits of all partitions that a processor has in flight. More gain nothing and load the store: each is a Paxos
/// round of some milliseconds.
const MAX_COMMITS_IN_FLIGHT: usize = 32;

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
        let job_metrics = JobMetrics::new(metrics)?;
        let generation_metrics = GenerationMetrics::new(metrics)?;
        let closing_metrics = ClosingMetrics::new(metrics)?;
        let signal_metrics = SignalMetrics::new(metrics)?;
        let metrics = EngineMetrics::new(metrics)?;
        let group = health.check("group");
        let registry =
            first_registry(deps.store.as_ref(), deps.control.active_log.as_ref(), &deps.first_log)
                .await?;
        let (registry_updates, registry) = watch::channel(registry);
        let stop = stop.child_token();
        let followed = follow_registry(
            Arc::clone(&deps.store),
            registry_updates,
            generation_metrics.clone(),
            health.check("registry"),
            stop.clone(),
        );
        let followed = Component::spawn_fallible("registry watcher", &stop, followed);
        let stopping = stop.clone();
        let owner = owner_name(std::process::id(), uuid::Uuid::new_v4());
        let worker_name = owner.as_str().into();
        let executor = Arc::new(JobExecutors::new(JobExecutorDeps {
            logs: Arc::clone(&deps.logs),
            store: Arc::clone(&deps.store),
            cache: Arc::clone(&deps.cache),
            definitions: Arc::clone(&deps.control.definitions),
            dead_letter_journal: deps.dead_letter_journal,
            writer: Arc::clone(&deps.writer),
            annulments: Arc::clone(&deps.control.annulments),
            signals: Arc::clone(&deps.signals),
            archive_dir: deps.archive_dir,
            exports: deps.exports,
        }));
        let active_log_announcer = ActiveLogAnnouncer {
            registry: registry.clone(),
            active_log: deps.control.active_log,
            metrics: generation_metrics.clone(),
        };
        let active_log_announcer =
            Component::spawn("active log announcer", &stop, active_log_announcer.run(stop.clone()));
        let definitions = Arc::clone(&deps.control.definitions);
        let catalog = Arc::clone(&definitions);
        let budgets = move || catalog.catalog().iter().map(|budget| budget.id.clone()).collect();
        let cache_term = watch_cache_term(
            Arc::clone(&deps.cache),
            budgets,
            Arc::clone(&deps.store),
            generation_metrics.clone(),
            stop.clone(),
        );
        let cache_term = Component::spawn("cache term watcher", &stop, cache_term);
        let publisher =
            Arc::new(Publisher::new(deps.cache, deps.control.definitions, metrics.clone()));
        let closing_store = Arc::clone(&deps.store);
        let report_store = Arc::clone(&deps.store);
        let commit_permits = Arc::new(Semaphore::new(MAX_COMMITS_IN_FLIGHT));
        let shadow_owners = Arc::new(ShadowOwners::default());
        let shadow = ShadowGenerations::new(ShadowDeps {
            readers: LogReaderPool::new(Arc::clone(&deps.logs)),
            store: Arc::clone(&deps.store),
            dead_letters: Arc::clone(&deps.dead_letters),
            limits: config.limits,
            owner: format!("{owner}-shadow"),
            owners: Arc::clone(&shadow_owners),
            metrics: generation_metrics,
            permits: ShadowPermits::new(Arc::clone(&commit_permits)),
        })?;
        let coordinator = Coordinator::new(
            CoordinatorDeps {
                store: deps.store,
                dead_letters: deps.dead_letters,
                publisher: Arc::clone(&publisher),
                logs: deps.logs,
                shadow_owners,
                identity: deps.source.identity(),
                registry: registry.clone(),
                limits: config.limits,
                commit_permits,
                claim_timeout: config.claim_timeout,
                owner,
                metrics: metrics.clone(),
                check: health.check("partitions"),
            },
            Handle::current(),
        );
        let assigned = coordinator.assigned_partitions();
        let adopted = coordinator.active_generation();
        let reports = ReportScheduler::new(ReportScheduleDeps {
            definitions: Arc::clone(&definitions),
            store: report_store,
            jobs: Arc::clone(&deps.jobs),
            registry: registry.clone(),
            assigned: assigned.clone(),
        });
        let reports = Component::spawn("report schedule", &stop, reports.run(stop.clone()));
        let monitor = SignalMonitor::new(SignalMonitorDeps {
            signals: deps.signals,
            definitions: Arc::clone(&definitions),
            assigned: assigned.clone(),
            metrics: signal_metrics,
        });
        let monitor = Component::spawn("signal monitor", &stop, monitor.run(stop.clone()));
        let closer = BudgetCloser::new(ClosingDeps {
            definitions,
            store: closing_store,
            writer: deps.writer,
            registry: registry.clone(),
            assigned: assigned.clone(),
            metrics: closing_metrics,
            clock: Timestamp::now,
        });
        let closer = Component::spawn("budget closer", &stop, closer.run(stop.clone()));
        let shadow = shadow.run(assigned, adopted, registry, stop.clone());
        let shadow = Component::spawn("shadow generations", &stop, shadow);
        let worker = JobWorker::new(JobWorkerDeps {
            jobs: deps.jobs,
            executor,
            name: worker_name,
            metrics: job_metrics,
            now_ms,
            turns: ScanTurns::shared(
                coordinator.assigned_partitions(),
                coordinator.active_generation(),
            ),
        });
        let worker = Component::spawn("job worker", &stop, worker.run(stop.clone()));
        let source_loop =
            SourceLoop { coordinator, metrics, group, stop, handle: Handle::current() };
        let source = deps.source;
        let stop_on_panic = stopping.clone();
        let thread = std::thread::Builder::new().name("log-source".into()).spawn(move || {
            // Without this thread no partition is folded.
            catch_unwind(AssertUnwindSafe(|| source_loop.run(source))).map_err(|_| {
                tracing::error!(
                    component = LOG_SOURCE,
                    "component panicked, stopping the processor"
                );
                stop_on_panic.cancel();
                ProcessorFailed::ComponentPanicked(LOG_SOURCE)
            })
        })?;
        let stop_publisher = CancellationToken::new();
        let (stop, interval) = (stop_publisher.clone(), config.republish_interval);
        let publisher = Component::spawn("publisher", &stopping, async move {
            publisher.run(interval, stop).await;
        });
        Ok(Self {
            source: Some(thread),
            components: vec![
                followed,
                active_log_announcer,
                cache_term,
                reports,
                monitor,
                closer,
                worker,
                shadow,
            ],
            publisher,
            stop_publisher,
            stopping,
        })
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

/// Follows the registry until `stop` is cancelled, and cancels it when the registry becomes unreadable.
async fn follow_registry(
    store: Arc<dyn Store>,
    updates: watch::Sender<GenerationRegistry>,
    metrics: GenerationMetrics,
    check: Check,
    stop: CancellationToken,
) -> Result<(), ProcessorFailed> {
    check.set_ready();
    watch_registry(store, updates, metrics, stop.clone()).await.map_err(|error| {
        tracing::error!(%error, "generation registry is unreadable, stopping the processor");
        check.set_unready(error.to_string());
        stop.cancel();
        ProcessorFailed::RegistryUnreadable(error)
    })
}
