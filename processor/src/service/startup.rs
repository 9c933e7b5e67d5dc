//! Makes the components of a processor from its dependencies, and spawns those that run in the background.

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
use runtime::health::Check;
use runtime::metrics::{Metrics, MetricsError};
use schemas::{GenerationRegistry, owner_name};
use storage::control::BudgetDefinitions;
use storage::store::Store;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::ProcessorDeps;
use crate::component::{Component, ProcessorFailed};
use crate::config::ProcessorConfig;
use crate::start_error::StartError;

/// Commits of all partitions that a processor has in flight. More gain nothing and load the store: each is a Paxos
/// round of some milliseconds.
const MAX_COMMITS_IN_FLIGHT: usize = 32;

/// The metrics of all components.
pub(super) struct ComponentMetrics {
    pub(super) engine: EngineMetrics,
    generations: GenerationMetrics,
    closing: ClosingMetrics,
    signals: SignalMetrics,
    jobs: JobMetrics,
}

impl ComponentMetrics {
    pub(super) fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            engine: EngineMetrics::new(metrics)?,
            generations: GenerationMetrics::new(metrics)?,
            closing: ClosingMetrics::new(metrics)?,
            signals: SignalMetrics::new(metrics)?,
            jobs: JobMetrics::new(metrics)?,
        })
    }
}

/// A processor whose components are being made.
pub(super) struct Startup<'a> {
    config: &'a ProcessorConfig,
    deps: &'a ProcessorDeps,
    metrics: &'a ComponentMetrics,
    registry: watch::Receiver<GenerationRegistry>,
    /// Unique to this process.
    owner: String,
    /// Shared by the coordinator and the shadow generations.
    commit_permits: Arc<Semaphore>,
    shadow_owners: Arc<ShadowOwners>,
    stop: CancellationToken,
    components: Vec<Component>,
}

impl<'a> Startup<'a> {
    pub(super) fn new(
        config: &'a ProcessorConfig,
        deps: &'a ProcessorDeps,
        metrics: &'a ComponentMetrics,
        registry: watch::Receiver<GenerationRegistry>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            config,
            deps,
            metrics,
            registry,
            owner: owner_name(std::process::id(), uuid::Uuid::new_v4()),
            commit_permits: Arc::new(Semaphore::new(MAX_COMMITS_IN_FLIGHT)),
            shadow_owners: Arc::default(),
            stop,
            components: Vec::new(),
        }
    }

    /// Returns the spawned components, which end once `stop` is cancelled.
    pub(super) fn into_components(self) -> Vec<Component> {
        self.components
    }

    fn spawn(&mut self, name: &'static str, run: impl Future<Output = ()> + Send + 'static) {
        self.components.push(Component::spawn(name, &self.stop, run));
    }

    fn definitions(&self) -> Arc<dyn BudgetDefinitions> {
        Arc::clone(&self.deps.control.definitions)
    }

    pub(super) fn follow_registry(
        &mut self,
        updates: watch::Sender<GenerationRegistry>,
        check: Check,
    ) {
        let (store, metrics) = (Arc::clone(&self.deps.store), self.metrics.generations.clone());
        let follow = follow_registry(store, updates, metrics, check, self.stop.clone());
        self.components.push(Component::spawn_fallible("registry watcher", &self.stop, follow));
    }

    pub(super) fn announce_active_log(&mut self) {
        let announcer = ActiveLogAnnouncer {
            registry: self.registry.clone(),
            active_log: Arc::clone(&self.deps.control.active_log),
            metrics: self.metrics.generations.clone(),
        };
        self.spawn("active log announcer", announcer.run(self.stop.clone()));
    }

    pub(super) fn watch_cache_term(&mut self) {
        let definitions = self.definitions();
        let budgets =
            move || definitions.catalog().iter().map(|budget| budget.id.clone()).collect();
        let watch = watch_cache_term(
            Arc::clone(&self.deps.cache),
            budgets,
            Arc::clone(&self.deps.store),
            self.metrics.generations.clone(),
            self.stop.clone(),
        );
        self.spawn("cache term watcher", watch);
    }

    pub(super) fn publisher(&self) -> Arc<Publisher> {
        let cache = Arc::clone(&self.deps.cache);
        Arc::new(Publisher::new(cache, self.definitions(), self.metrics.engine.clone()))
    }

    /// Makes the coordinator of the active generation's partitions. The thread of the log source runs it.
    pub(super) fn coordinator(&self, publisher: &Arc<Publisher>, check: Check) -> Coordinator {
        let deps = CoordinatorDeps {
            store: Arc::clone(&self.deps.store),
            dead_letters: Arc::clone(&self.deps.dead_letters),
            publisher: Arc::clone(publisher),
            logs: Arc::clone(&self.deps.logs),
            shadow_owners: Arc::clone(&self.shadow_owners),
            identity: self.deps.source.identity(),
            registry: self.registry.clone(),
            limits: self.config.limits,
            commit_permits: Arc::clone(&self.commit_permits),
            claim_timeout: self.config.claim_timeout,
            owner: self.owner.clone(),
            metrics: self.metrics.engine.clone(),
            check,
        };
        Coordinator::new(deps, Handle::current())
    }

    pub(super) fn shadow_generations(&self) -> Result<ShadowGenerations, StartError> {
        Ok(ShadowGenerations::new(ShadowDeps {
            readers: LogReaderPool::new(Arc::clone(&self.deps.logs)),
            store: Arc::clone(&self.deps.store),
            dead_letters: Arc::clone(&self.deps.dead_letters),
            limits: self.config.limits,
            owner: format!("{}-shadow", self.owner),
            owners: Arc::clone(&self.shadow_owners),
            metrics: self.metrics.generations.clone(),
            permits: ShadowPermits::new(Arc::clone(&self.commit_permits)),
        })?)
    }

    pub(super) fn fold_shadow_generations(
        &mut self,
        shadow: ShadowGenerations,
        coordinator: &Coordinator,
    ) {
        let (assigned, adopted) =
            (coordinator.assigned_partitions(), coordinator.active_generation());
        let run = shadow.run(assigned, adopted, self.registry.clone(), self.stop.clone());
        self.spawn("shadow generations", run);
    }

    pub(super) fn schedule_reports(&mut self, coordinator: &Coordinator) {
        let scheduler = ReportScheduler::new(ReportScheduleDeps {
            definitions: self.definitions(),
            store: Arc::clone(&self.deps.store),
            jobs: Arc::clone(&self.deps.jobs),
            registry: self.registry.clone(),
            assigned: coordinator.assigned_partitions(),
        });
        self.spawn("report schedule", scheduler.run(self.stop.clone()));
    }

    pub(super) fn watch_signals(&mut self, coordinator: &Coordinator) {
        let monitor = SignalMonitor::new(SignalMonitorDeps {
            signals: Arc::clone(&self.deps.signals),
            definitions: self.definitions(),
            assigned: coordinator.assigned_partitions(),
            metrics: self.metrics.signals.clone(),
        });
        self.spawn("signal monitor", monitor.run(self.stop.clone()));
    }

    pub(super) fn close_budgets(&mut self, coordinator: &Coordinator) {
        let closer = BudgetCloser::new(ClosingDeps {
            definitions: self.definitions(),
            store: Arc::clone(&self.deps.store),
            writer: Arc::clone(&self.deps.writer),
            registry: self.registry.clone(),
            assigned: coordinator.assigned_partitions(),
            metrics: self.metrics.closing.clone(),
            clock: Timestamp::now,
        });
        self.spawn("budget closer", closer.run(self.stop.clone()));
    }

    pub(super) fn run_jobs(&mut self, coordinator: &Coordinator) {
        let executors = JobExecutors::new(JobExecutorDeps {
            logs: Arc::clone(&self.deps.logs),
            store: Arc::clone(&self.deps.store),
            cache: Arc::clone(&self.deps.cache),
            definitions: self.definitions(),
            dead_letter_journal: Arc::clone(&self.deps.dead_letter_journal),
            writer: Arc::clone(&self.deps.writer),
            annulments: Arc::clone(&self.deps.control.annulments),
            signals: Arc::clone(&self.deps.signals),
            archive_dir: self.deps.archive_dir.clone(),
            exports: self.deps.exports.clone(),
        });
        let worker = JobWorker::new(JobWorkerDeps {
            jobs: Arc::clone(&self.deps.jobs),
            executor: Arc::new(executors),
            name: self.owner.as_str().into(),
            metrics: self.metrics.jobs.clone(),
            now_ms,
            turns: ScanTurns::shared(
                coordinator.assigned_partitions(),
                coordinator.active_generation(),
            ),
        });
        self.spawn("job worker", worker.run(self.stop.clone()));
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
