//! Which partitions this process has: claims what the log's group assigns, hands records to each owner, and lets go of
//! what is revoked. Called from the log source's one thread; owners run as tasks.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use runtime::health::Check;
use schemas::{Generation, PartitionCount, PartitionId, Position};
use storage::log::{DeadLetters, LogBounds, LogIdentity, PartitionHandler, RecordBatch, Start};
use storage::store::{PartitionRef, Store};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::ProcessorMetrics;
use crate::partition::{
    ClaimError, Ended, HaltReason, Limits, Partition, PartitionParts, check_log, claim,
};
use crate::publisher::Publisher;

/// Batches that may wait for an owner: with the source's batch size, some ten thousand records.
const WAITING_BATCHES: usize = 16;
/// How long a release with its last commit may take before the partition is let go without it.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);

/// What the coordinator gives each owner.
pub struct CoordinatorParts {
    /// Where totals and rows go.
    pub store: Arc<dyn Store>,
    /// Where records go that cannot be folded.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Who tells the readers.
    pub publisher: Arc<Publisher>,
    /// Which log is folded.
    pub identity: LogIdentity,
    /// Which derivation this is.
    pub generation: Generation,
    /// Its partition count.
    pub partitions: PartitionCount,
    /// The owners' pace.
    pub limits: Limits,
    /// How long claims may take.
    pub claim_timeout: Duration,
    /// A name that no other process ever has.
    pub owner: String,
    /// The metrics.
    pub metrics: ProcessorMetrics,
    /// Unready while a partition is halted.
    pub check: Check,
}

/// The owners of this process's partitions.
pub struct Coordinator {
    parts: CoordinatorParts,
    handle: Handle,
    owners: Mutex<BTreeMap<PartitionId, Owner>>,
    rejoin: Arc<AtomicBool>,
    halted: Arc<Halted>,
}

struct Owner {
    records: mpsc::Sender<RecordBatch>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    progress: Arc<Progress>,
}

/// How far a partition has come, for everyone but its owner.
#[derive(Debug, Default)]
pub struct Progress {
    high: AtomicU64,
    folded: AtomicU64,
    committed: AtomicU64,
}

impl Progress {
    /// The log's high watermark, as last heard.
    pub fn high(&self) -> Position {
        Position(self.high.load(Ordering::Relaxed))
    }

    /// The committed position.
    pub fn committed(&self) -> Position {
        Position(self.committed.load(Ordering::Relaxed))
    }

    /// Takes the log's high watermark. It never goes back.
    pub fn set_high(&self, high: Position) {
        self.high.fetch_max(high.0, Ordering::Relaxed);
    }

    pub(crate) fn set_folded(&self, folded: Position) {
        self.folded.store(folded.0, Ordering::Relaxed);
        self.set_high(folded);
    }

    pub(crate) fn set_committed(&self, committed: Position) {
        self.committed.store(committed.0, Ordering::Relaxed);
        self.set_high(committed);
    }

    fn lag(&self) -> u64 {
        self.high().0.saturating_sub(self.committed().0)
    }
}

/// The halted partitions and why: what readiness says.
struct Halted {
    reasons: Mutex<BTreeMap<PartitionId, String>>,
    check: Check,
}

impl Halted {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<PartitionId, String>)) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut reasons);
        if reasons.is_empty() {
            self.check.set_ready();
        } else {
            let all: Vec<_> =
                reasons.iter().map(|(id, reason)| format!("partition {id}: {reason}")).collect();
            self.check.set_unready(all.join("; "));
        }
    }
}

impl Coordinator {
    /// A coordinator without partitions, whose owners run on `handle`.
    pub fn new(parts: CoordinatorParts, handle: Handle) -> Self {
        let halted = Halted { reasons: Mutex::default(), check: parts.check.clone() };
        halted.check.set_ready();
        Self {
            parts,
            handle,
            owners: Mutex::default(),
            rejoin: Arc::default(),
            halted: Arc::new(halted),
        }
    }

    fn owners(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Owner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, partition: PartitionId) -> PartitionRef {
        PartitionRef { generation: self.parts.generation, partition }
    }

    fn halt(&self, partition: PartitionId, reason: &HaltReason) {
        announce_halt(&self.halted, &self.parts.metrics, partition, reason);
    }

    async fn claim_one(&self, partition: PartitionId, bounds: LogBounds) -> Start {
        let claimed_at = Instant::now();
        let claiming = claim(self.parts.store.as_ref(), self.id(partition), &self.parts.owner);
        let stored = match tokio::time::timeout(self.parts.claim_timeout, claiming).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(ClaimError::Corrupt(reason))) => {
                self.halt(partition, &HaltReason::Store(reason));
                return Start::Nowhere;
            }
            Ok(Err(ClaimError::Outrun)) | Err(_) => {
                tracing::warn!(%partition, "the partition could not be claimed; joining the group again");
                self.rejoin.store(true, Ordering::Relaxed);
                return Start::Nowhere;
            }
        };
        let resume = match check_log(&stored.checkpoint, &self.parts.identity, bounds) {
            Ok(resume) => resume,
            Err(reason) => {
                self.halt(partition, &reason);
                return Start::Nowhere;
            }
        };
        tracing::info!(
            %partition,
            epoch = stored.epoch.0,
            position = %stored.checkpoint.position,
            state_position = %stored.checkpoint.state_position,
            high = %bounds.high,
            "partition claimed",
        );
        let progress = Arc::new(Progress::default());
        progress.set_high(bounds.high);
        let owner = Partition::new(
            self.id(partition),
            stored,
            resume,
            claimed_at,
            PartitionParts {
                store: Arc::clone(&self.parts.store),
                dead_letters: Arc::clone(&self.parts.dead_letters),
                publisher: Arc::clone(&self.parts.publisher),
                identity: self.parts.identity.clone(),
                partitions: self.parts.partitions,
                limits: self.parts.limits,
                metrics: self.parts.metrics.partition(partition),
                progress: Arc::clone(&progress),
            },
        );
        self.start(partition, owner, progress);
        Start::At(resume.from)
    }

    fn start(&self, partition: PartitionId, owner: Partition, progress: Arc<Progress>) {
        let (records, inbox) = mpsc::channel(WAITING_BATCHES);
        let stop = CancellationToken::new();
        self.parts.metrics.partition(partition).set_owned();
        self.halted.change(|reasons| {
            reasons.remove(&partition);
        });
        let watch = Watch {
            id: self.id(partition),
            metrics: self.parts.metrics.clone(),
            publisher: Arc::clone(&self.parts.publisher),
            halted: Arc::clone(&self.halted),
            rejoin: Arc::clone(&self.rejoin),
        };
        let life = owner.run(inbox, stop.clone());
        let task = self.handle.spawn(async move {
            // A bug in one owner must not take its partition away silently.
            let ended = AssertUnwindSafe(life).catch_unwind().await.unwrap_or_else(|_| {
                Ended::Halted(HaltReason::Failed("it panicked; see the log".into()))
            });
            watch.ended(&ended);
        });
        self.owners().insert(partition, Owner { records, stop, task, progress });
    }

    async fn release(&self, partition: PartitionId, owner: Owner, lost: bool) {
        owner.stop.cancel();
        let mut task = owner.task;
        let patience = if lost { Duration::ZERO } else { RELEASE_PATIENCE };
        if tokio::time::timeout(patience, &mut task).await.is_err() {
            // Its commits are fenced by the next owner's claim; what it folded is folded again there.
            task.abort();
            let _ = task.await;
            if !lost {
                tracing::warn!(%partition, "released without a last commit: the store did not answer in time");
            }
        }
        self.parts.publisher.forget(self.id(partition));
    }
}

/// What is done when an owner's life ends.
struct Watch {
    id: PartitionRef,
    metrics: ProcessorMetrics,
    publisher: Arc<Publisher>,
    halted: Arc<Halted>,
    rejoin: Arc<AtomicBool>,
}

impl Watch {
    fn ended(&self, ended: &Ended) {
        let partition = self.id.partition;
        match ended {
            Ended::Released => tracing::info!(%partition, "partition released"),
            Ended::Fenced => {
                tracing::warn!(%partition, "another owner has claimed the partition; joining the group again");
                self.metrics.fenced();
                self.publisher.forget(self.id);
                self.rejoin.store(true, Ordering::Relaxed);
            }
            Ended::StoreWentBack => {
                self.publisher.forget(self.id);
                self.rejoin.store(true, Ordering::Relaxed);
            }
            Ended::Halted(reason) => {
                self.publisher.forget(self.id);
                announce_halt(&self.halted, &self.metrics, partition, reason);
            }
        }
    }
}

fn announce_halt(
    halted: &Halted,
    metrics: &ProcessorMetrics,
    partition: PartitionId,
    reason: &HaltReason,
) {
    tracing::error!(%partition, %reason, "the partition is halted; the others go on");
    metrics.partition(partition).set_halted();
    halted.change(|reasons| {
        reasons.insert(partition, reason.to_string());
    });
}

impl PartitionHandler for Coordinator {
    fn assigned(&self, partitions: &[(PartitionId, LogBounds)]) -> Vec<(PartitionId, Start)> {
        let claims = partitions.iter().map(|(partition, bounds)| async {
            (*partition, self.claim_one(*partition, *bounds).await)
        });
        self.handle.block_on(join_all(claims))
    }

    fn revoked(&self, partitions: &[PartitionId], lost: bool) {
        let mut releases = Vec::new();
        for partition in partitions {
            if let Some(owner) = self.owners().remove(partition) {
                releases.push(self.release(*partition, owner, lost));
            }
        }
        self.handle.block_on(join_all(releases));
        for partition in partitions {
            self.parts.metrics.forget(*partition);
            self.halted.change(|reasons| {
                reasons.remove(partition);
            });
        }
    }

    fn deliver(&self, batch: RecordBatch, patience: Duration) -> Result<(), RecordBatch> {
        let Some(records) =
            self.owners().get(&batch.partition()).map(|owner| owner.records.clone())
        else {
            return Ok(());
        };
        match records.try_send(batch) {
            Ok(()) => Ok(()),
            // Fenced or halted: nobody wants the records here.
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(batch)) if patience.is_zero() => Err(batch),
            Err(mpsc::error::TrySendError::Full(batch)) => {
                let room = self
                    .handle
                    .block_on(async { tokio::time::timeout(patience, records.reserve()).await });
                match room {
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
        if let Some(owner) = self.owners().get(&partition) {
            owner.progress.set_high(high);
            let metrics = self.parts.metrics.partition(partition);
            metrics.set_progress(owner.progress.committed().0, owner.progress.lag());
        }
    }

    fn out_of_range(&self, partition: PartitionId, bounds: LogBounds) {
        let mut owners = self.owners();
        let Some(owner) = owners.get(&partition) else { return };
        let position = owner.progress.committed();
        if position >= bounds.low && position <= bounds.high {
            return;
        }
        let reason = HaltReason::OutOfRange {
            low: bounds.low,
            high: bounds.high,
            resume: position,
            position,
        };
        if let Some(owner) = owners.remove(&partition) {
            owner.task.abort();
        }
        drop(owners);
        self.parts.publisher.forget(self.id(partition));
        self.halt(partition, &reason);
    }

    fn committed(&self) -> Vec<(PartitionId, Position)> {
        self.owners()
            .iter()
            .map(|(partition, owner)| (*partition, owner.progress.committed()))
            .collect()
    }

    fn wants_to_rejoin(&self) -> bool {
        self.rejoin.swap(false, Ordering::Relaxed)
    }
}
