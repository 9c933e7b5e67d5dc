//! One partition of a shadow generation.
//!
//! The partition is folded from the log up to the active generation's committed position, compared
//! there, and so on. If the active generation stalls or has no state, the partition is folded to
//! the end of the log, and the stall is reported as a difference. A partition of a generation on a
//! new log is folded to the end of that log; the repartition compares it.

use std::sync::Arc;
use std::time::Duration;

use engine::metrics::PartitionMetrics;
use engine::partition::{
    OwnerExit, PartitionDeps, PartitionOwner, PartitionProgress, check_log, claim,
};
use schemas::{GenerationRegistry, LogRef, Position, TotalsComparison};
use storage::log::{DeadLetterWriter, LogBounds, LogReader, ReadError, RecordStream};
use storage::store::{PartitionRef, StoreError, StoredPartition};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ShadowDeps;
use super::active::{ActivePartition, StallDetector};
use super::compare::differences;
use super::dead_letters::DeadLetterFilter;
use super::error::ShadowError;
use super::owner::{CatchUp, Feed, OwnerTask};
use crate::metrics::StoppedGuard;

/// Batches queued for the owner.
const MAX_QUEUED_BATCHES: usize = 4;
/// Time between two reads of the active generation's position.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two reads of the end of a new log while it is copied.
const NEW_LOG_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Pause before a stopped partition is claimed again.
const RESTART_DELAY: Duration = Duration::from_secs(2);

/// How long the people of a generation that has become the active one stay in memory for its next owner.
const TAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// A partition of a shadow generation that this process folds.
pub(super) struct ShadowPartition {
    pub id: PartitionRef,
    /// The log that the generation derives from.
    pub log: LogRef,
    pub deps: Arc<ShadowDeps>,
    pub metrics: PartitionMetrics,
    pub registry: watch::Receiver<GenerationRegistry>,
}

impl ShadowPartition {
    /// Folds and compares the partition until `stop` is cancelled. Restarts it after any error.
    pub async fn run(self, stop: CancellationToken) {
        let id = self.id;
        let mut stopped = None;
        loop {
            let mut owner = None;
            let folding = stop.run_until_cancelled(self.run_once(&mut owner, &mut stopped)).await;
            if let Some(owner) = owner {
                owner.release().await;
            }
            let Some(Err(error)) = folding else { return self.leave_people() };
            if matches!(error, ShadowError::Exited(OwnerExit::Released)) {
                // The coordinator has taken the people, and folds the partition.
                return stop.cancelled().await;
            }
            tracing::warn!(
                partition = %id.partition,
                generation = %id.generation,
                reason = %error,
                "shadow partition stopped",
            );
            stopped.get_or_insert_with(|| self.deps.metrics.shadow_partition_stopped());
            let rest = async {
                self.report_error(&error).await;
                tokio::time::sleep(RESTART_DELAY).await;
            };
            if stop.run_until_cancelled(rest).await.is_none() {
                return;
            }
        }
    }

    /// Leaves the people of a generation that has become the active one to the coordinator, for a while.
    fn leave_people(&self) {
        let (owners, id) = (Arc::clone(&self.deps.owners), self.id);
        if self.registry.borrow().active.generation != id.generation {
            return owners.forget(id);
        }
        tokio::spawn(async move {
            tokio::time::sleep(TAKE_TIMEOUT).await;
            owners.forget(id);
        });
    }

    /// Claims the partition, then folds and compares it repeatedly.
    async fn run_once(
        &self,
        owner: &mut Option<OwnerTask>,
        stopped: &mut Option<StoppedGuard>,
    ) -> Result<(), ShadowError> {
        let (mut feed, claimed) = self.claim().await?;
        let owner = owner.insert(claimed);
        let mut stall = StallDetector::new();
        loop {
            match self.advance(&mut feed, owner, &mut stall).await {
                // What is folded stays; the next poll may succeed.
                Err(ShadowError::Log(ReadError::Unavailable(reason)))
                | Err(ShadowError::Store(StoreError::Unavailable(reason))) => {
                    tracing::debug!(
                        partition = %self.id.partition,
                        error = reason,
                        "shadow partition not advanced, backend unavailable",
                    );
                    // Without reads nothing is known about a stall.
                    stall = StallDetector::new();
                    feed.catch_up = CatchUp::NotNeeded;
                }
                advanced => {
                    advanced?;
                    *stopped = None;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.poll_interval()) => {}
                () = feed.catch_up.acquire(&self.deps.permits.fold) => {}
                error = owner.exited() => return Err(error),
            }
        }
    }

    /// Folds up to the active generation's position, compares, and writes a report.
    async fn advance(
        &self,
        feed: &mut Feed,
        owner: &mut OwnerTask,
        stall: &mut StallDetector,
    ) -> Result<(), ShadowError> {
        if self.is_on_new_log() {
            return self.advance_on_new_log(feed, owner).await;
        }
        // In this order: the active position is never beyond a log end that is read after it.
        let active = ActivePartition::from_read(self.read_active().await)?;
        let bounds = feed.reader.bounds(self.id.partition).await?;
        let position = active.position();
        if let Some(position) = position {
            feed.dead_letters.set_active_position(position);
        }
        let is_stalled = stall.observe(position, bounds.high);
        let target = if is_stalled { bounds.high } else { position.unwrap_or(feed.next) };
        if !self.catch_up(feed, owner, target, bounds).await? {
            // The last comparison is still true.
            let comparison = feed.last_report.as_ref().and_then(|report| report.comparison.clone());
            return self.report(feed, bounds, comparison).await;
        }
        let own = self.read_own(feed).await?;
        let comparison = match (&active, &own) {
            (ActivePartition::Stored(active), Some(own)) => self.compare(own, active),
            _ => None,
        };
        let comparison = match comparison {
            None if is_stalled => Some(self.stall_difference(feed, &active, bounds)),
            comparison => comparison,
        };
        self.report(feed, bounds, comparison).await
    }

    /// Folds up to the end of the new log and writes a report.
    ///
    /// No comparison: a partition of the new log corresponds to no partition of the active log.
    async fn advance_on_new_log(
        &self,
        feed: &mut Feed,
        owner: &mut OwnerTask,
    ) -> Result<(), ShadowError> {
        let bounds = feed.reader.bounds(self.id.partition).await?;
        if self.catch_up(feed, owner, bounds.high, bounds).await? {
            self.read_own(feed).await?;
        }
        self.report(feed, bounds, None).await
    }

    /// Folds up to `target` and returns whether it did: a large lag needs a permit first.
    async fn catch_up(
        &self,
        feed: &mut Feed,
        owner: &mut OwnerTask,
        target: Position,
        bounds: LogBounds,
    ) -> Result<bool, ShadowError> {
        let lag = target.0.saturating_sub(feed.next.0);
        if !matches!(feed.catch_up, CatchUp::Permitted { .. })
            && lag > self.deps.limits.catch_up_lag
        {
            feed.catch_up = CatchUp::Waiting;
            return Ok(false);
        }
        self.feed(feed, owner, target, bounds).await?;
        feed.catch_up = CatchUp::NotNeeded;
        Ok(true)
    }

    /// Reads this partition's stored state and updates the position of its person rows.
    async fn read_own(&self, feed: &mut Feed) -> Result<Option<StoredPartition>, ShadowError> {
        let own = self.deps.store.read_partition(self.id).await?;
        feed.rows_position =
            own.as_ref().map_or(feed.rows_position, |own| own.checkpoint.rows_position);
        Ok(own)
    }

    /// Reads the same partition in the active generation.
    async fn read_active(&self) -> Result<Option<StoredPartition>, StoreError> {
        let generation = self.registry.borrow().active.generation;
        self.deps.store.read_partition(PartitionRef { generation, ..self.id }).await
    }

    fn is_on_new_log(&self) -> bool {
        self.registry.borrow().active.log.number != self.log.number
    }

    /// Shorter on a new log, as submissions wait for the cutover.
    fn poll_interval(&self) -> Duration {
        if self.is_on_new_log() { NEW_LOG_POLL_INTERVAL } else { POLL_INTERVAL }
    }

    /// Claims the partition and starts its owner.
    async fn claim(&self) -> Result<(Feed, OwnerTask), ShadowError> {
        let Self { id, deps, .. } = self;
        let claimed_at = Instant::now();
        let reader = deps.readers.get(&self.log).await?;
        let stored = claim(deps.store.as_ref(), *id, &deps.owner).await?;
        let bounds = reader.bounds(id.partition).await?;
        let identity = reader.identity();
        let resume = check_log(&stored.checkpoint, &identity, bounds)?;
        tracing::info!(
            partition = %id.partition,
            generation = %id.generation,
            epoch = stored.epoch.0,
            position = %stored.checkpoint.position,
            "shadow partition claimed",
        );
        let rows_position = stored.checkpoint.rows_position;
        let progress = Arc::new(PartitionProgress::default());
        let dead_letters = Arc::new(DeadLetterFilter::new(Arc::clone(&deps.dead_letters)));
        if self.is_on_new_log() {
            dead_letters.drop_all();
        }
        let next = resume.from;
        let owner = PartitionOwner::new(
            *id,
            stored,
            resume,
            claimed_at,
            PartitionDeps {
                store: Arc::clone(&deps.store),
                dead_letters: Arc::clone(&dead_letters) as Arc<dyn DeadLetterWriter>,
                publisher: None,
                commit_permits: Arc::clone(&deps.permits.commit),
                row_write_permits: Some(Arc::clone(&deps.permits.write_rows)),
                identity,
                log: self.log.clone(),
                limits: deps.limits,
                metrics: self.metrics.clone(),
                progress: Arc::clone(&progress),
            },
        );
        let (records, inbox) = mpsc::channel(MAX_QUEUED_BATCHES);
        let stop = CancellationToken::new();
        let people = deps.owners.register(*id, stop.clone());
        let run = owner.run_and_keep_people(inbox, stop.clone());
        let task = tokio::spawn(async move {
            let (exit, kept) = run.await;
            if let Some(kept) = kept {
                // Fails if nobody wants them.
                let _ = people.send(kept);
            }
            exit
        });
        let feed = Feed {
            records,
            progress,
            dead_letters,
            reader,
            next,
            rows_position,
            source: None,
            last_report: None,
            catch_up: CatchUp::NotNeeded,
        };
        Ok((feed, OwnerTask { stop, task }))
    }

    /// Feeds the owner the records up to `target` and waits until they are committed.
    async fn feed(
        &self,
        feed: &mut Feed,
        owner: &mut OwnerTask,
        target: Position,
        bounds: LogBounds,
    ) -> Result<(), ShadowError> {
        feed.progress.set_high(target);
        let (end, mut stream) = match feed.source.take() {
            Some(source) => source,
            None => self.read_from(&feed.reader, feed.next),
        };
        end.send_if_modified(|end| {
            let extended = target > *end;
            *end = target.max(*end);
            extended
        });
        while feed.next < target {
            let ended = || ReadError::Unavailable("the record stream ended early".to_owned());
            let batch = stream.recv().await.ok_or_else(ended)??;
            let next = batch.end();
            if feed.records.send(batch).await.is_err() {
                return Err(owner.exited().await);
            }
            feed.next = next.unwrap_or(feed.next);
            // Folding a whole log takes long; watchers need its progress meanwhile.
            if feed.is_report_due() {
                self.report(feed, bounds, None).await?;
            }
        }
        feed.source = Some((end, stream));
        tokio::select! {
            () = feed.progress.reached(target) => Ok(()),
            error = owner.exited() => Err(error),
        }
    }

    fn read_from(
        &self,
        reader: &Arc<dyn LogReader>,
        position: Position,
    ) -> (watch::Sender<Position>, RecordStream) {
        let (end, until) = watch::channel(position);
        (end, reader.follow(self.id.partition, position, until))
    }

    /// Compares this partition with the active one if both are at the same position.
    fn compare(&self, own: &StoredPartition, active: &StoredPartition) -> Option<TotalsComparison> {
        let position = active.checkpoint.position;
        let with = self.registry.borrow().active.generation;
        (own.checkpoint.position == position).then(|| {
            let differences = differences(self.id.partition, own, active);
            TotalsComparison { with, position, differences }
        })
    }

    /// Describes a stalled active generation as a difference.
    fn stall_difference(
        &self,
        feed: &Feed,
        active: &ActivePartition,
        bounds: LogBounds,
    ) -> TotalsComparison {
        let (partition, with) = (self.id.partition, self.registry.borrow().active.generation);
        let what = match active {
            ActivePartition::Missing => format!("generation {with} has no stored state"),
            ActivePartition::Damaged(reason) => format!("generation {with} is damaged: {reason}"),
            ActivePartition::Stored(active) => format!(
                "generation {with} is stalled at {}, and the log ends at {}",
                active.checkpoint.position, bounds.high
            ),
        };
        let differences = vec![format!("partition {partition}: {what}")];
        TotalsComparison { with, position: feed.progress.committed(), differences }
    }
}
