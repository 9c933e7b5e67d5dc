//! Which partitions this process owns: holds the partitions that the log's consumer group assigns, delivers records to
//! their owners, and releases the revoked ones. The log source's one thread calls it; each partition is a task of its
//! own, which waits for no other partition. How a partition is claimed and folded is the `partition` module's.
//!
//! | file | owns |
//! |---|---|
//! | `assignment` | one assigned partition: claiming it, running its owner, claiming it again |
//! | `assignment_handle` | the task of one assigned partition, and how it is ended |
//! | `backoff` | how long a partition waits before it is claimed again |
//! | `ownership` | the states of an assigned partition and their transitions |
//! | `partitions` | the state of every assigned partition, as readiness and metrics show it |
//! | `owner_handle` | one running owner: its queue and its positions |
//! | `fetch_watch` | noticing that records are not fetched although there are some |
//! | `hand_over` | folding on until the next member has claimed the partition |
//! | `shadow_owners` | shadow partitions whose people are taken when their generation becomes active |
//! | `starts` | pending start positions for the source |
//! | `log_recovery` | how long a log may end before its totals do |

mod assignment;
mod assignment_handle;
mod backoff;
mod fetch_watch;
mod hand_over;
mod log_recovery;
mod owner_handle;
mod ownership;
mod partitions;
mod shadow_owners;
mod starts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use runtime::health::Check;
use schemas::{GenerationRegistry, LogRef, PartitionId, Position, Term};
use storage::log::{
    BoundsReader, DeadLetterWriter, LogIdentity, LogReaderOpener, PartitionHandler, RecordBatch,
    Revocation, StartPosition,
};
use storage::store::{PartitionRef, Store};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::metrics::EngineMetrics;
use crate::partition::{HaltReason, PartitionLimits};
use crate::publisher::Publisher;
use assignment_handle::AssignmentHandle;
use hand_over::HandOverTail;
use partitions::Partitions;
use starts::Starts;

pub use shadow_owners::ShadowOwners;

/// Dependencies of the coordinator and of each owner.
pub struct CoordinatorDeps {
    /// Stores totals, checkpoints and person rows.
    pub store: Arc<dyn Store>,
    /// Appends rejected records to the dead letter journal.
    pub dead_letters: Arc<dyn DeadLetterWriter>,
    /// Publishes committed totals to readers.
    pub publisher: Arc<Publisher>,
    /// Opens the log for partitions that are moved to another member.
    pub logs: Arc<dyn LogReaderOpener>,
    /// The shadow partitions of this process.
    pub shadow_owners: Arc<ShadowOwners>,
    /// Identifies the log that is folded.
    pub identity: LogIdentity,
    /// The generation registry, whose active generation is folded.
    pub registry: watch::Receiver<GenerationRegistry>,
    /// Intervals and bounds of each owner.
    pub limits: PartitionLimits,
    /// Limits the commits that this process has in flight.
    pub commit_permits: Arc<Semaphore>,
    /// Time for one claim of one partition, after which it is tried again.
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

/// Spawns the tasks that hold partitions.
pub trait Spawner: Send + Sync + 'static {
    /// Spawns a task.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> JoinHandle<()>;
}

impl Spawner for Handle {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> JoinHandle<()> {
        Handle::spawn(self, task)
    }
}

/// Claims, feeds and releases this process's partitions.
pub struct Coordinator {
    shared: Arc<Shared>,
    handle: Handle,
    held: Mutex<BTreeMap<PartitionId, AssignmentHandle>>,
    /// Partitions that are moved to another member, and folded until it has claimed them.
    moving: Mutex<BTreeMap<PartitionId, AssignmentHandle>>,
    assigned: watch::Sender<BTreeSet<PartitionId>>,
}

/// State that the coordinator shares with the tasks that hold partitions.
struct Shared {
    deps: CoordinatorDeps,
    partitions: Partitions,
    starts: Starts,
    spawner: Box<dyn Spawner>,
    hand_over_tail: HandOverTail,
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
        Self::with_spawner(deps, handle.clone(), Box::new(handle))
    }

    /// Creates a coordinator whose owners are spawned by `spawner`.
    pub fn with_spawner(deps: CoordinatorDeps, handle: Handle, spawner: Box<dyn Spawner>) -> Self {
        let partitions = Partitions::new(deps.check.clone(), deps.metrics.clone());
        let mut registry = deps.registry.clone();
        let active = ActiveGeneration::of(&registry.borrow_and_update());
        deps.publisher.set_active_term(active.term, active.log.partitions);
        let shared = Arc::new(Shared {
            hand_over_tail: HandOverTail::new(Arc::clone(&deps.logs)),
            deps,
            partitions,
            starts: Starts::default(),
            spawner,
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
        let (held, moving, assigned) = Default::default();
        Self { shared, handle, held, moving, assigned }
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

    /// Switches to the registry's active generation. Call it only while no partition is held.
    pub fn adopt_active_generation(&self) {
        // Before the registry is read: a switch right afterwards is not missed.
        self.shared.generation_changed.store(false, Ordering::Relaxed);
        let next = ActiveGeneration::of(&self.shared.deps.registry.borrow());
        self.adopt(next);
    }

    fn adopt(&self, next: ActiveGeneration) {
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

    /// Whether the registry's active generation is derived from another log than the one that is folded here.
    fn log_changed(&self) -> bool {
        self.shared.deps.registry.borrow().active.log != self.shared.active.borrow().log
    }

    /// Switches to the registry's active generation, which is derived from the same log: the group assigns the same
    /// partitions, so each is released and claimed in the other generation.
    pub async fn switch_in_place(&self) {
        let held = std::mem::take(&mut *self.held.lock());
        let moving = std::mem::take(&mut *self.moving.lock());
        let bounds: Vec<_> =
            held.iter().map(|(partition, held)| (*partition, Arc::clone(held.bounds()))).collect();
        join_all(held.into_iter().chain(moving).map(|held| self.end(held, false))).await;
        self.shared.generation_changed.store(false, Ordering::Relaxed);
        let next = ActiveGeneration::of(&self.shared.deps.registry.borrow());
        if next.log != self.shared.active.borrow().log {
            // Another switch meanwhile, to another log: its partitions are the group's to assign, after a rejoin.
            self.shared.generation_changed.store(true, Ordering::Relaxed);
            return;
        }
        self.adopt(next);
        for (partition, bounds) in bounds {
            self.assigned(&[partition], &bounds);
        }
    }

    /// Releases the partitions that a stopped source still has.
    pub fn source_ended(&self) {
        let all: Vec<_> = self.assigned.borrow().iter().copied().collect();
        self.revoked(&all, Revocation::Released);
    }

    /// Waits, within a bound, until the partitions that are moved to other members are claimed there.
    pub async fn handed_over(&self) {
        let moving = std::mem::take(&mut *self.moving.lock());
        join_all(moving.into_iter().map(|(partition, held)| held.handed_over(partition))).await;
    }

    /// Ends the assignment of revoked partitions, within a bound.
    pub async fn release(&self, partitions: &[PartitionId], revocation: Revocation) {
        self.assigned.send_if_modified(|assigned| {
            let before = assigned.len();
            assigned.retain(|partition| !partitions.contains(partition));
            assigned.len() != before
        });
        let held: Vec<_> = {
            let mut held = self.held.lock();
            partitions.iter().filter_map(|id| Some((*id, held.remove(id)?))).collect()
        };
        // The next owner would be one of another generation.
        if revocation == Revocation::Moved && !self.generation_changed() {
            let mut moving = self.moving.lock();
            moving.retain(|_, held| !held.has_ended());
            for (partition, held) in held {
                held.hand_over();
                self.shared.partitions.remove(partition);
                self.shared.starts.forget(partition);
                moving.insert(partition, held);
            }
        } else {
            let lost = revocation == Revocation::Lost;
            join_all(held.into_iter().map(|held| self.end(held, lost))).await;
        }
    }

    async fn end(&self, (partition, held): (PartitionId, AssignmentHandle), lost: bool) {
        drop(held.release(partition, lost).await);
        self.shared.deps.publisher.forget(self.shared.id(partition));
        self.shared.partitions.remove(partition);
        self.shared.starts.forget(partition);
    }
}

impl PartitionHandler for Coordinator {
    fn assigned(&self, partitions: &[PartitionId], bounds: &Arc<dyn BoundsReader>) {
        let mut held = self.held.lock();
        for partition in partitions {
            self.shared.partitions.assign(*partition);
            held.entry(*partition).or_insert_with(|| {
                let former = self.moving.lock().remove(partition);
                AssignmentHandle::start(&self.shared, *partition, bounds, former)
            });
        }
        self.assigned.send_modify(|assigned| assigned.extend(partitions));
    }

    fn take_starts(&self) -> Vec<(PartitionId, StartPosition)> {
        self.shared.starts.take()
    }

    fn revoked(&self, partitions: &[PartitionId], revocation: Revocation) {
        self.handle.block_on(self.release(partitions, revocation));
    }

    fn deliver(&self, batch: RecordBatch, timeout: Duration) -> Result<(), RecordBatch> {
        let (partition, end) = (batch.partition(), batch.end());
        let owner = self
            .shared
            .partitions
            .with_owner(partition, |owner| Some((owner.queue()?, Arc::clone(&owner.progress))));
        let Some((records, progress)) = owner.flatten() else { return Ok(()) };
        let note_delivery = || {
            if let Some(end) = end {
                progress.set_delivered(end);
            }
        };
        match records.try_send(batch) {
            Ok(()) => {
                note_delivery();
                Ok(())
            }
            // The owner has ended: its records are dropped.
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(batch)) if timeout.is_zero() => Err(batch),
            Err(mpsc::error::TrySendError::Full(batch)) => {
                let reserved = self
                    .handle
                    .block_on(async { tokio::time::timeout(timeout, records.reserve()).await });
                match reserved {
                    Ok(Ok(permit)) => {
                        permit.send(batch);
                        note_delivery();
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

    /// The owner commits what it has received, and the partition is claimed again.
    fn read_failed(&self, partition: PartitionId, reason: &str) {
        tracing::warn!(%partition, reason, "partition cannot be read further, claiming it again");
        self.shared.partitions.with_owner(partition, |owner| {
            // Otherwise the source had not started to read for this owner.
            if owner.reading.has_started() {
                owner.stop.cancel();
            }
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
        if self.generation_changed() && !self.log_changed() {
            self.handle.block_on(self.switch_in_place());
        }
        self.generation_changed()
    }
}
