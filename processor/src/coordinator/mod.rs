//! Which partitions this process has: claims what the log's group assigns, hands records to each owner, and lets go of
//! what is revoked. Called from the log source's one thread; owners run as tasks. How a partition is claimed and folded
//! is the `partition` module's.
//!
//! | file | what it has |
//! |---|---|
//! | `owner` | one partition's owner while it runs |
//! | `unfolded` | the partitions without one, and why |
//! | `recovering` | how long a log that is too short may take to be as long as it was |
//! | `rejoin` | when the group is to be joined again |

mod owner;
mod recovering;
mod rejoin;
mod unfolded;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use runtime::health::Check;
use schemas::{LogRef, PartitionId, Position, Roster, Term};
use storage::log::{DeadLetters, LogBounds, LogIdentity, PartitionHandler, RecordBatch, Start};
use storage::store::{PartitionRef, Store, StoredPartition};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::metrics::ProcessorMetrics;
use crate::partition::{
    ClaimError, HaltReason, Limits, Partition, PartitionParts, Progress, check_log, claim,
};
use crate::publisher::Publisher;
use owner::Owner;
use recovering::Recovering;
use rejoin::Rejoin;
use unfolded::Unfolded;

/// How long the others are folded before the group is joined again for a partition that could not be claimed.
const UNCLAIMED_PAUSE: Duration = Duration::from_secs(15);

/// The same for one whose log may be about to be as long as it was.
const RECOVERY_PAUSE: Duration = Duration::from_secs(1);

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
    /// Which derivation answers the public: the one that is folded here.
    pub roster: watch::Receiver<Roster>,
    /// The owners' pace.
    pub limits: Limits,
    /// How long claims may take before the others begin without.
    pub claim_timeout: Duration,
    /// A name that no other process ever has.
    pub owner: String,
    /// The metrics.
    pub metrics: ProcessorMetrics,
    /// Unready while a partition that is assigned is not folded.
    pub check: Check,
}

/// What the partitions here are claimed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// The generation, and since when it answers.
    pub term: Term,
    /// The log that it derives from.
    pub log: LogRef,
}

impl Here {
    fn of(roster: &Roster) -> Self {
        Self { term: roster.term(), log: roster.current.log.clone() }
    }
}

/// The owners of this process's partitions.
pub struct Coordinator {
    shared: Arc<Shared>,
    handle: Handle,
    owners: Mutex<BTreeMap<PartitionId, Owner>>,
    assigned: watch::Sender<BTreeSet<PartitionId>>,
}

/// What an owner's end concerns.
struct Shared {
    parts: CoordinatorParts,
    unfolded: Unfolded,
    recovering: Recovering,
    rejoin: Rejoin,
    /// In which the partitions are claimed.
    here: watch::Sender<Here>,
    /// Whether another generation answers by now. The source asks before each record.
    flipped: AtomicBool,
}

impl Shared {
    fn id(&self, partition: PartitionId) -> PartitionRef {
        PartitionRef { generation: self.term().generation, partition }
    }

    fn term(&self) -> Term {
        self.here.borrow().term
    }
}

impl Coordinator {
    /// A coordinator without partitions, whose owners run on `handle`.
    pub fn new(parts: CoordinatorParts, handle: Handle) -> Self {
        let unfolded = Unfolded::new(parts.check.clone(), parts.metrics.clone());
        let (recovering, rejoin) = (Recovering::default(), Rejoin::new());
        let mut roster = parts.roster.clone();
        let here = Here::of(&roster.borrow_and_update());
        parts.publisher.answer_in(here.term, here.log.partitions);
        let (here, flipped) = (watch::Sender::new(here), AtomicBool::new(false));
        let shared = Arc::new(Shared { parts, unfolded, recovering, rejoin, here, flipped });
        let watching = Arc::downgrade(&shared);
        handle.spawn(async move {
            while roster.changed().await.is_ok() {
                let Some(shared) = watching.upgrade() else { return };
                if roster.borrow_and_update().term() != shared.term() {
                    shared.flipped.store(true, Ordering::Relaxed);
                }
            }
        });
        let (owners, assigned) = (Mutex::default(), watch::Sender::default());
        Self { shared, handle, owners, assigned }
    }

    /// What this process claims its partitions in.
    pub fn here(&self) -> watch::Receiver<Here> {
        self.shared.here.subscribe()
    }

    /// The partitions that the log's group has given to this process, whether or not they are folded.
    pub fn assigned_here(&self) -> watch::Receiver<BTreeSet<PartitionId>> {
        self.assigned.subscribe()
    }

    /// Whether another generation answers than the one that is folded here.
    pub fn is_flipped(&self) -> bool {
        self.shared.flipped.load(Ordering::Relaxed)
    }

    /// The source does not run: what it brings next is folded in the generation that answers now.
    pub fn follow_the_roster(&self) {
        // Before the roster is read: a flip right afterwards is not missed.
        self.shared.flipped.store(false, Ordering::Relaxed);
        let here = Here::of(&self.shared.parts.roster.borrow());
        let (term, partitions) = (here.term, here.log.partitions);
        if self.shared.here.send_if_modified(|known| std::mem::replace(known, here).term != term) {
            tracing::info!(term = term.number, generation = %term.generation, "another generation answers now");
            self.shared.parts.publisher.answer_in(term, partitions);
        }
    }

    /// The source no longer runs: lets go of what it left behind, if it failed, and of the wish to join again, which
    /// the last commits may have renewed.
    pub fn source_ended(&self) {
        let all: Vec<_> = self.assigned.borrow().iter().copied().collect();
        self.revoked(&all, false);
        self.shared.rejoin.clear();
    }

    fn owners(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Owner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn begin(&self, partition: PartitionId, bounds: LogBounds) -> Start {
        let claimed_at = Instant::now();
        let Some(stored) = self.try_claim(partition).await else { return Start::Nowhere };
        let Shared { parts, unfolded, recovering, rejoin, .. } = self.shared.as_ref();
        let position = stored.checkpoint.position;
        if bounds.high >= position {
            recovering.recovered(partition);
        } else if recovering.may_recover(partition, Instant::now()) {
            let short = format!("the log ends at {}, before the totals at {position}", bounds.high);
            unfolded.unclaimed(partition, short);
            rejoin.after(RECOVERY_PAUSE, Instant::now());
            return Start::Nowhere;
        }
        let resume = match check_log(&stored.checkpoint, &parts.identity, bounds) {
            Ok(resume) => resume,
            Err(reason) => {
                unfolded.halted(partition, &reason);
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
            self.shared.id(partition),
            stored,
            resume,
            claimed_at,
            PartitionParts {
                store: Arc::clone(&parts.store),
                dead_letters: Arc::clone(&parts.dead_letters),
                publisher: Some(Arc::clone(&parts.publisher)),
                turns_to_write: None,
                identity: parts.identity.clone(),
                log: self.shared.here.borrow().log.clone(),
                limits: parts.limits,
                metrics: parts.metrics.partition(partition),
                progress: Arc::clone(&progress),
            },
        );
        let owner = Owner::start(&self.shared, &self.handle, partition, owner, progress);
        self.owners().insert(partition, owner);
        Start::At(resume.from)
    }

    async fn try_claim(&self, partition: PartitionId) -> Option<StoredPartition> {
        let Shared { parts, unfolded, rejoin, .. } = self.shared.as_ref();
        let claiming = claim(parts.store.as_ref(), self.shared.id(partition), &parts.owner);
        match tokio::time::timeout(parts.claim_timeout, claiming).await {
            Ok(Ok(stored)) => return Some(stored),
            Ok(Err(ClaimError::Corrupt(reason))) => {
                unfolded.halted(partition, &HaltReason::Store(reason));
            }
            Ok(Err(outrun @ ClaimError::Outrun)) => {
                unfolded.unclaimed(partition, outrun.to_string());
                // Only the group can say which of the two is to have it.
                rejoin.after(Duration::ZERO, Instant::now());
            }
            Err(_) => {
                let waited_ms = parts.claim_timeout.as_millis();
                unfolded
                    .unclaimed(partition, format!("the store did not answer in {waited_ms} ms"));
            }
        }
        None
    }
}

impl PartitionHandler for Coordinator {
    fn assigned(&self, partitions: &[(PartitionId, LogBounds)]) -> Vec<(PartitionId, Start)> {
        let claims = partitions.iter().map(|(partition, bounds)| async {
            (*partition, self.begin(*partition, *bounds).await)
        });
        let starts = self.handle.block_on(join_all(claims));
        let all = partitions.iter().map(|(partition, _)| *partition);
        self.assigned.send_modify(|assigned| assigned.extend(all));
        if self.shared.unfolded.any_unclaimed() {
            // To leave the group takes the others' owners from them as well.
            let nobody_folds = self.owners().is_empty();
            let pause = if nobody_folds { Duration::ZERO } else { UNCLAIMED_PAUSE };
            tracing::info!(?pause, "the group is joined again for what is not claimed");
            self.shared.rejoin.after(pause, Instant::now());
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
            if let Some(owner) = self.owners().remove(partition) {
                releases.push(owner.release(&self.shared, *partition, lost));
            }
        }
        self.handle.block_on(join_all(releases));
        for partition in partitions {
            self.shared.parts.metrics.forget(*partition);
            self.shared.unfolded.clear(*partition);
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
            let metrics = self.shared.parts.metrics.partition(partition);
            metrics.set_progress(owner.progress.committed().0, owner.progress.lag());
        }
    }

    /// Its owner stays: what it has been given is as good as before, and is committed.
    fn halt(&self, partition: PartitionId, reason: String) {
        self.shared.unfolded.halted(partition, &HaltReason::Log(reason));
    }

    fn committed(&self) -> Vec<(PartitionId, Position)> {
        self.owners()
            .iter()
            .map(|(partition, owner)| (*partition, owner.progress.committed()))
            .collect()
    }

    fn wants_to_rejoin(&self) -> bool {
        // A flip: all partitions are claimed anew, in the generation that answers now.
        self.is_flipped() || self.shared.rejoin.is_due(Instant::now)
    }
}
