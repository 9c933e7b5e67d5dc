//! Which partitions this process owns: claims the partitions that the log's consumer group assigns, delivers records to
//! their owners, and releases the revoked ones. The log source's one thread calls it; owners run as tasks. How a
//! partition is claimed and folded is the `partition` module's.
//!
//! | file | owns |
//! |---|---|
//! | `ownership` | the states of an assigned partition and their transitions |
//! | `partitions` | the state of every assigned partition, as readiness and metrics show it |
//! | `takeover` | claiming a partition, checking its log, starting its owner |
//! | `owner_handle` | one running owner: start, release, exit |
//! | `log_recovery` | how long a log may end before its totals do |
//! | `rejoin_timer` | when the group is joined again |

mod log_recovery;
mod owner_handle;
mod ownership;
mod partitions;
mod rejoin_timer;
mod takeover;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use runtime::health::Check;
use schemas::{GenerationRegistry, LogRef, PartitionId, Position, Term};
use storage::log::{
    DeadLetterWriter, LogBounds, LogIdentity, PartitionHandler, RecordBatch, StartPosition,
};
use storage::store::{PartitionRef, Store};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::metrics::EngineMetrics;
use crate::partition::{HaltReason, PartitionLimits};
use crate::publisher::Publisher;
use partitions::Partitions;
use rejoin_timer::RejoinTimer;

/// Delay before the group is rejoined for a partition that could not be claimed. The other partitions are folded
/// meanwhile.
const UNCLAIMED_REJOIN_DELAY: Duration = Duration::from_secs(15);

/// Dependencies of the coordinator and of each owner.
pub struct CoordinatorDeps {
    /// Stores totals, checkpoints and person rows.
    pub store: Arc<dyn Store>,
    /// Appends rejected records to the dead letter journal.
    pub dead_letters: Arc<dyn DeadLetterWriter>,
    /// Publishes committed totals to readers.
    pub publisher: Arc<Publisher>,
    /// Identifies the log that is folded.
    pub identity: LogIdentity,
    /// The generation registry, whose active generation is folded.
    pub registry: watch::Receiver<GenerationRegistry>,
    /// Intervals and bounds of each owner.
    pub limits: PartitionLimits,
    /// Limits the commits that this process has in flight.
    pub commit_permits: Arc<Semaphore>,
    /// Time for one claim, after which the other partitions start without it.
    pub claim_timeout: Duration,
    /// The owner name, unique to this process.
    pub owner: String,
    /// Metrics of all partitions.
    pub metrics: EngineMetrics,
    /// Unready while an assigned partition is not folded.
    pub check: Check,
}

/// The active generation, in which this process claims its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveGeneration {
    /// The generation and its registry term.
    pub term: Term,
    /// The log that the generation is derived from.
    pub log: LogRef,
}

impl ActiveGeneration {
    fn of(registry: &GenerationRegistry) -> Self {
        Self { term: registry.term(), log: registry.active.log.clone() }
    }
}

/// Claims, feeds and releases this process's partitions.
pub struct Coordinator {
    shared: Arc<Shared>,
    handle: Handle,
    assigned: watch::Sender<BTreeSet<PartitionId>>,
}

/// State that the coordinator shares with its owners' tasks.
struct Shared {
    deps: CoordinatorDeps,
    partitions: Partitions,
    rejoin_timer: RejoinTimer,
    /// The generation in which partitions are claimed.
    active: watch::Sender<ActiveGeneration>,
    /// Whether the registry has another active generation by now. The source reads it before each record.
    generation_changed: AtomicBool,
}

impl Shared {
    fn id(&self, partition: PartitionId) -> PartitionRef {
        PartitionRef { generation: self.term().generation, partition }
    }

    fn term(&self) -> Term {
        self.active.borrow().term
    }
}

impl Coordinator {
    /// Creates a coordinator without partitions, whose owners run on `handle`.
    pub fn new(deps: CoordinatorDeps, handle: Handle) -> Self {
        let partitions = Partitions::new(deps.check.clone(), deps.metrics.clone());
        let mut registry = deps.registry.clone();
        let active = ActiveGeneration::of(&registry.borrow_and_update());
        deps.publisher.set_active_term(active.term, active.log.partitions);
        let shared = Arc::new(Shared {
            deps,
            partitions,
            rejoin_timer: RejoinTimer::new(),
            active: watch::Sender::new(active),
            generation_changed: AtomicBool::new(false),
        });
        let watching = Arc::downgrade(&shared);
        handle.spawn(async move {
            while registry.changed().await.is_ok() {
                let Some(shared) = watching.upgrade() else { return };
                if registry.borrow_and_update().term() != shared.term() {
                    shared.generation_changed.store(true, Ordering::Relaxed);
                }
            }
        });
        Self { shared, handle, assigned: watch::Sender::default() }
    }

    /// Watches the generation in which this process claims its partitions.
    pub fn active_generation(&self) -> watch::Receiver<ActiveGeneration> {
        self.shared.active.subscribe()
    }

    /// Watches the partitions that the consumer group has assigned to this process, folded or not.
    pub fn assigned_partitions(&self) -> watch::Receiver<BTreeSet<PartitionId>> {
        self.assigned.subscribe()
    }

    /// Whether the registry's active generation is no longer the one that is folded here.
    pub fn generation_changed(&self) -> bool {
        self.shared.generation_changed.load(Ordering::Relaxed)
    }

    /// Switches to the registry's active generation. Call it only while the source is stopped.
    pub fn adopt_active_generation(&self) {
        // Before the registry is read: a switch right afterwards is not missed.
        self.shared.generation_changed.store(false, Ordering::Relaxed);
        let next = ActiveGeneration::of(&self.shared.deps.registry.borrow());
        let (term, partitions) = (next.term, next.log.partitions);
        let switched = self
            .shared
            .active
            .send_if_modified(|active| std::mem::replace(active, next).term != term);
        if switched {
            tracing::info!(term = term.number, generation = %term.generation, "active generation switched");
            self.shared.deps.publisher.set_active_term(term, partitions);
        }
    }

    /// Releases the partitions that a stopped source still has. Also cancels the scheduled rejoin, which the final
    /// commits may have scheduled again.
    pub fn source_ended(&self) {
        let all: Vec<_> = self.assigned.borrow().iter().copied().collect();
        self.revoked(&all, false);
        self.shared.rejoin_timer.clear();
    }
}

impl PartitionHandler for Coordinator {
    fn assigned(
        &self,
        partitions: &[(PartitionId, LogBounds)],
    ) -> Vec<(PartitionId, StartPosition)> {
        let takeovers = partitions.iter().map(|(partition, bounds)| async {
            (*partition, self.take_over(*partition, *bounds).await)
        });
        let starts = self.handle.block_on(join_all(takeovers));
        let all = partitions.iter().map(|(partition, _)| *partition);
        self.assigned.send_modify(|assigned| assigned.extend(all));
        if self.shared.partitions.any_claimed_by_rejoining() {
            // Leaving the group also releases the partitions that are folded: delay it if there are any.
            let any_owned = self.shared.partitions.any_owned();
            let delay = if any_owned { UNCLAIMED_REJOIN_DELAY } else { Duration::ZERO };
            tracing::info!(
                retry_in_ms = delay.as_millis() as u64,
                "group rejoin scheduled for unclaimed partitions",
            );
            self.shared.rejoin_timer.schedule(delay, Instant::now());
        }
        starts
    }

    fn revoked(&self, partitions: &[PartitionId], lost: bool) {
        self.assigned.send_if_modified(|assigned| {
            let before = assigned.len();
            assigned.retain(|partition| !partitions.contains(partition));
            assigned.len() != before
        });
        let mut releases = Vec::new();
        for partition in partitions {
            if let Some(owner) = self.shared.partitions.detach_owner(*partition) {
                releases.push(owner.release(&self.shared, *partition, lost));
            }
        }
        self.handle.block_on(join_all(releases));
        for partition in partitions {
            self.shared.partitions.remove(*partition);
        }
    }

    fn deliver(&self, batch: RecordBatch, patience: Duration) -> Result<(), RecordBatch> {
        let records =
            self.shared.partitions.with_owner(batch.partition(), |owner| owner.records.clone());
        let Some(records) = records else { return Ok(()) };
        match records.try_send(batch) {
            Ok(()) => Ok(()),
            // The owner was fenced or has halted: its records are dropped.
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(batch)) if patience.is_zero() => Err(batch),
            Err(mpsc::error::TrySendError::Full(batch)) => {
                let reserved = self
                    .handle
                    .block_on(async { tokio::time::timeout(patience, records.reserve()).await });
                match reserved {
                    Ok(Ok(permit)) => {
                        permit.send(batch);
                        Ok(())
                    }
                    Ok(Err(_)) => Ok(()),
                    Err(_) => Err(batch),
                }
            }
        }
    }

    fn high_watermark(&self, partition: PartitionId, high: Position) {
        self.shared.partitions.with_owner(partition, |owner| {
            owner.progress.set_high(high);
            let metrics = self.shared.deps.metrics.partition(partition);
            metrics.set_progress(owner.progress.committed().0, owner.progress.lag());
        });
    }

    /// The owner keeps running: the records that it has received are valid and are still committed.
    fn halt(&self, partition: PartitionId, reason: String) {
        self.shared.partitions.halt(partition, &HaltReason::Log(reason));
    }

    fn committed(&self) -> Vec<(PartitionId, Position)> {
        self.shared.partitions.committed()
    }

    fn wants_to_rejoin(&self) -> bool {
        // After a switch every partition is claimed again, in the generation that is active now.
        self.generation_changed() || self.shared.rejoin_timer.is_due(Instant::now)
    }
}
