//! The processor as a whole: the source's thread, the coordinator behind it, the publisher and a worker beside it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::clock::now_ms;
use runtime::health::{Check, Health};
use runtime::metrics::{Metrics, MetricsError};
use schemas::{LogRef, Roster};
use storage::cache::Cache;
use storage::definitions::{Definitions, until_loaded};
use storage::exports::Exports;
use storage::jobs::JobStore;
use storage::log::{DeadLetters, LetterBook, LogReaders, LogSource, LogWriter};
use storage::store::{Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::beside::{Beside, BesideParts, Readers, Turns};
use crate::config::ProcessorConfig;
use crate::coordinator::{Coordinator, CoordinatorParts};
use crate::generations::{begin_first, check_configured, watch_roster};
use crate::jobs::{JobMetrics, Kinds, KindsParts, Worker, WorkerParts};
use crate::metrics::ProcessorMetrics;
use crate::publisher::Publisher;
use crate::repartition::Announcer;

const FIRST_REJOIN_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_REJOIN_PAUSE: Duration = Duration::from_secs(5);
const STORE_PAUSE: Duration = Duration::from_millis(500);
/// So often it is said that the definitions are waited for.
const DEFINITIONS_PAUSE: Duration = Duration::from_secs(5);

/// Where the processor reads from and writes to.
pub struct ProcessorParts {
    /// The log, as a member of its group.
    pub source: Box<dyn LogSource>,
    /// The logs, read back for generations that are folded beside the one that answers, and for jobs.
    pub logs: Arc<dyn LogReaders>,
    /// The log that a new deployment begins with.
    pub first_log: LogRef,
    /// Where records go that cannot be folded.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// What operators decide about those.
    pub letters: Arc<dyn LetterBook>,
    /// The log, for what they replay.
    pub writer: Arc<dyn LogWriter>,
    /// Totals and people.
    pub store: Arc<dyn Store>,
    /// What is asked for in the background.
    pub jobs: Arc<dyn JobStore>,
    /// The readers' copy.
    pub cache: Arc<dyn Cache>,
    /// Which budgets there are.
    pub definitions: Arc<dyn Definitions>,
    /// The folder of the logs' archives, if there is one.
    pub archive_dir: Option<PathBuf>,
    /// Where exports are written to.
    pub exports: Exports,
}

/// Why the processor did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The deployment began with another topic or partition count than is configured.
    #[error("{0}")]
    OtherGeneration(String),
    /// The store holds what cannot be.
    #[error("{0}")]
    Store(String),
    /// Metrics clash.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The operating system gave no thread.
    #[error("no thread for the log's source")]
    Thread(#[from] std::io::Error),
}

/// A running processor.
pub struct Processor {
    source: Option<std::thread::JoinHandle<()>>,
    publisher: JoinHandle<()>,
    beside: JoinHandle<()>,
    worker: JoinHandle<()>,
    stop_publisher: CancellationToken,
}

impl Processor {
    /// Finds the generation and starts to fold. `stop` ends it; then await [`Processor::stopped`].
    ///
    /// # Errors
    /// When the generation is another than is configured, or the process lacks something.
    pub async fn start(
        config: &ProcessorConfig,
        parts: ProcessorParts,
        metrics: &Metrics,
        health: &Health,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let job_metrics = JobMetrics::new(metrics)?;
        let metrics = ProcessorMetrics::new(metrics)?;
        let group = health.check("group");
        let roster =
            first_roster(parts.store.as_ref(), parts.definitions.as_ref(), &parts.first_log)
                .await?;
        let (watching, roster) = watch::channel(roster);
        tokio::spawn(watch_roster(Arc::clone(&parts.store), watching, stop.clone()));
        let owner = owner_name();
        let worker = Worker::new(WorkerParts {
            jobs: parts.jobs,
            runner: Arc::new(Kinds::new(KindsParts {
                logs: Arc::clone(&parts.logs),
                store: Arc::clone(&parts.store),
                cache: Arc::clone(&parts.cache),
                definitions: Arc::clone(&parts.definitions),
                letters: parts.letters,
                writer: parts.writer,
                archive_dir: parts.archive_dir,
                exports: parts.exports,
            })),
            name: owner.as_str().into(),
            metrics: job_metrics,
            now_ms,
        });
        let announcing = Announcer {
            roster: roster.clone(),
            definitions: Arc::clone(&parts.definitions),
            metrics: metrics.clone(),
        };
        tokio::spawn(announcing.run(stop.clone()));
        let publisher = Arc::new(Publisher::new(parts.cache, parts.definitions, metrics.clone()));
        let beside = Beside::new(BesideParts {
            readers: Readers::new(parts.logs),
            store: Arc::clone(&parts.store),
            dead_letters: Arc::clone(&parts.dead_letters),
            limits: config.limits,
            owner: format!("{owner}-beside"),
            metrics: metrics.clone(),
            turns: Turns::new(),
        })?;
        let coordinator = Coordinator::new(
            CoordinatorParts {
                store: parts.store,
                dead_letters: parts.dead_letters,
                publisher: Arc::clone(&publisher),
                identity: parts.source.identity(),
                roster: roster.clone(),
                limits: config.limits,
                claim_timeout: config.claim_timeout,
                owner,
                metrics: metrics.clone(),
                check: health.check("partitions"),
            },
            Handle::current(),
        );
        let (assigned, here) = (coordinator.assigned_here(), coordinator.here());
        let beside = tokio::spawn(beside.run(assigned, here, roster, stop.clone()));
        let worker = tokio::spawn(worker.run(stop.clone()));
        let following = Following { coordinator, metrics, group, stop, handle: Handle::current() };
        let source = parts.source;
        let thread = std::thread::Builder::new()
            .name("log-source".into())
            .spawn(move || following.run(source))?;
        let stop_publisher = CancellationToken::new();
        let (stop, interval) = (stop_publisher.clone(), config.republish_interval);
        let publisher = tokio::spawn(async move { publisher.run(interval, stop).await });
        Ok(Self { source: Some(thread), publisher, beside, worker, stop_publisher })
    }

    /// Waits until everything that was folded is committed and told, and a job that is not done handed back, after `stop`
    /// was cancelled.
    pub async fn stopped(mut self) {
        if let Some(source) = self.source.take() {
            let joined = tokio::task::spawn_blocking(move || source.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                tracing::error!("the log's source failed");
            }
        }
        if let Err(error) = self.worker.await {
            tracing::error!(%error, "the worker of background jobs failed");
        }
        if let Err(error) = self.beside.await {
            tracing::error!(%error, "the owners beside failed");
        }
        self.stop_publisher.cancel();
        if let Err(error) = self.publisher.await {
            tracing::error!(%error, "the publisher failed");
        }
    }
}

/// What the source's thread, which feeds all owners, works with.
struct Following {
    coordinator: Coordinator,
    metrics: ProcessorMetrics,
    group: Check,
    stop: CancellationToken,
    handle: Handle,
}

impl Following {
    /// Joins the log's group, again and again, until told to stop.
    fn run(&self, mut source: Box<dyn LogSource>) {
        let mut pause = FIRST_REJOIN_PAUSE;
        while !self.stop.is_cancelled() {
            self.group.set_ready();
            self.coordinator.follow_the_roster();
            let joined_at = Instant::now();
            // A bug in the source must not end the folding of every partition silently.
            let log = self.coordinator.here().borrow().log.clone();
            let run = AssertUnwindSafe(|| source.run(&log, &self.coordinator, &self.stop));
            let reason = match catch_unwind(run) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "a bug: the source of the log panicked".to_owned(),
            };
            if self.coordinator.is_flipped() {
                tracing::info!(
                    "left the log's group, to join it again in the generation that answers now"
                );
                self.coordinator.source_ended();
                continue;
            }
            tracing::warn!(reason, "left the log's group");
            self.group.set_unready(reason);
            self.coordinator.source_ended();
            self.metrics.rejoined();
            if joined_at.elapsed() > LONGEST_REJOIN_PAUSE {
                pause = FIRST_REJOIN_PAUSE;
            }
            rest(pause, &self.stop, &self.handle);
            pause = (pause * 2).min(LONGEST_REJOIN_PAUSE);
        }
    }
}

/// Rests so long, or until told to stop.
fn rest(pause: Duration, stop: &CancellationToken, handle: &Handle) {
    let resting = async { stop.run_until_cancelled(tokio::time::sleep(pause)).await };
    handle.block_on(resting);
}

/// The roster, which is begun if there is none, and whose log has to be what is configured, or a later one.
///
/// # Errors
/// When it is another; a store, or definitions, that do not answer are waited for.
pub async fn first_roster(
    store: &dyn Store,
    definitions: &dyn Definitions,
    first_log: &LogRef,
) -> Result<Roster, StartError> {
    let roster = loop {
        match begun(store, definitions, first_log).await {
            Ok(roster) => break roster,
            Err(StoreError::Corrupt(reason)) => return Err(StartError::Store(reason)),
            Err(StoreError::Unavailable(reason)) => {
                tracing::warn!(reason, "the store does not tell the generation yet");
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
    };
    check_configured(&roster.current, first_log).map_err(StartError::OtherGeneration)?;
    Ok(roster)
}

/// The roster; where there is none, one that begins with the log to which submissions go by now. It need not be the first:
/// the store may have been lost after a repartition, and nobody appends to the first log any more.
async fn begun(
    store: &dyn Store,
    definitions: &dyn Definitions,
    first_log: &LogRef,
) -> Result<Roster, StoreError> {
    if let Some(roster) = store.roster().await? {
        return Ok(roster);
    }
    while tokio::time::timeout(DEFINITIONS_PAUSE, until_loaded(definitions)).await.is_err() {
        tracing::warn!(
            "there is no generation, and the definitions do not tell yet with which log to begin"
        );
    }
    let told = definitions.log().borrow().clone();
    if let Some(log) = &told {
        tracing::warn!(
            topic = log.topic,
            "there is no generation: everything is counted anew in the log to which submissions go by now",
        );
    }
    begin_first(store, told.as_ref().unwrap_or(first_log)).await
}

/// A name that no other process ever has.
fn owner_name() -> String {
    format!("{}-{}", std::process::id(), uuid::Uuid::new_v4())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_between_two_joins_ends_when_told_to_stop() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (stop, began) = (CancellationToken::new(), Instant::now());
        let (theirs, handle) = (stop.clone(), runtime.handle().clone());
        let resting = std::thread::spawn(move || {
            rest(Duration::from_secs(3_600), &theirs, &handle);
        });
        stop.cancel();
        resting.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
