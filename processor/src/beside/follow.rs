//! One partition of a generation that does not answer: folded from the log up to where the one that answers has
//! committed, compared there, and so on. Where the other one is not there or does not come on, the log's end takes its
//! place, and that is the difference. One that derives from another log, into which the one that answers is being copied,
//! is folded up to that log's end; whoever copies compares.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::now_ms;
use schemas::{Compared, LogRef, PartitionReport, Position, Roster};
use storage::log::{DeadLetters, LogBounds, LogReader, ReadError, RecordBatch, Stretch};
use storage::store::{PartitionRef, StoreError, StoredPartition};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::BesideParts;
use super::answering::{Answering, Standstill};
use super::compare::differences;
use super::letters::LettersBeyond;
use crate::metrics::{Counted, PartitionMetrics};
use crate::partition::{
    ClaimError, Ended, HaltReason, Partition, PartitionParts, Progress, check_log, claim,
};

/// Batches that may wait for the owner.
const WAITING_BATCHES: usize = 4;
/// How long a release with its last commit may take.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at where the other generation is.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at how far a copy has come.
const COPY_PAUSE: Duration = Duration::from_millis(100);
/// Before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// After so long it is said again, though it is no news, that somebody is at it.
const REPEAT_MS: u64 = 5_000;

/// Who follows.
pub(super) struct Follower {
    pub id: PartitionRef,
    /// The log that its generation derives from.
    pub log: LogRef,
    pub parts: Arc<BesideParts>,
    pub metrics: PartitionMetrics,
    pub roster: watch::Receiver<Roster>,
}

/// Why a follower begins again.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Halted(#[from] HaltReason),
    #[error(transparent)]
    Ended(#[from] Ended),
    #[error("its owner failed")]
    Failed,
}

/// Follows until told to stop; begins again after whatever goes wrong, and says so.
pub(super) async fn follow(follower: Follower, stop: CancellationToken) {
    let id = follower.id;
    let mut in_trouble = None;
    loop {
        let mut owner = None;
        let following = follower.follow_once(&mut owner, &mut in_trouble);
        let following = stop.run_until_cancelled(following).await;
        if let Some(owner) = owner {
            owner.release().await;
        }
        let Some(Err(trouble)) = following else { return };
        tracing::warn!(partition = %id.partition, generation = %id.generation, %trouble, "not folded beside now");
        in_trouble.get_or_insert_with(|| follower.parts.metrics.beside_in_trouble());
        let rest = async {
            follower.tell_of(&trouble).await;
            tokio::time::sleep(RETRY_PAUSE).await;
        };
        if stop.run_until_cancelled(rest).await.is_none() {
            return;
        }
    }
}

/// The partition's owner while it runs.
struct Owner {
    stop: CancellationToken,
    life: JoinHandle<Ended>,
}

impl Owner {
    /// Lets go of the partition, after a last commit if that does not take long.
    async fn release(mut self) {
        self.stop.cancel();
        // One that has ended was waited for: that is how it is known.
        if self.life.is_finished() {
            return;
        }
        if tokio::time::timeout(RELEASE_PATIENCE, &mut self.life).await.is_err() {
            self.life.abort();
            let _ = self.life.await;
        }
    }

    /// Its life has ended.
    async fn ended(&mut self) -> Trouble {
        (&mut self.life).await.map_or(Trouble::Failed, Trouble::Ended)
    }
}

/// What goes to the owner of a partition that is ours.
struct Fed {
    records: mpsc::Sender<RecordBatch>,
    progress: Arc<Progress>,
    letters: Arc<LettersBeyond>,
    reader: Arc<dyn LogReader>,
    /// The next record to give it.
    next: Position,
    /// Everyone's row is written up to here.
    rows: Position,
    /// Where those come from, and how far they are to come; anew after the log did not answer.
    source: Option<(watch::Sender<Position>, Stretch)>,
    /// What was said last.
    said: Option<PartitionReport>,
    turn: Turn,
}

/// Whether it catches up, which few do at once.
enum Turn {
    /// It is not far behind.
    NotNeeded,
    /// Others do.
    Awaited,
    /// It does, until it has come to where the other one is.
    Taken { _permit: OwnedSemaphorePermit },
}

impl Turn {
    /// Waits for it, if that is what is done.
    async fn come(&mut self, turns: &Arc<Semaphore>) {
        if !matches!(self, Self::Awaited) {
            return std::future::pending().await;
        }
        // Nobody ever closes it.
        if let Ok(permit) = Arc::clone(turns).acquire_owned().await {
            *self = Self::Taken { _permit: permit };
        }
    }
}

impl Follower {
    /// Claims the partition, and folds and compares it again and again.
    async fn follow_once(
        &self,
        owner: &mut Option<Owner>,
        in_trouble: &mut Option<Counted>,
    ) -> Result<(), Trouble> {
        let (mut fed, claimed) = self.claim().await?;
        let owner = owner.insert(claimed);
        let mut standstill = Standstill::begin();
        loop {
            match self.look(&mut fed, owner, &mut standstill).await {
                // Somebody does not answer: what is folded stays, and the next look may be luckier.
                Err(Trouble::Log(ReadError::Unavailable(reason)))
                | Err(Trouble::Store(StoreError::Unavailable(reason))) => {
                    tracing::debug!(partition = %self.id.partition, reason, "no look beside now");
                    // Nobody can say that it stood still while nobody could look.
                    standstill = Standstill::begin();
                    fed.turn = Turn::NotNeeded;
                }
                looked => {
                    looked?;
                    *in_trouble = None;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.pause()) => {}
                () = fed.turn.come(&self.parts.turns.to_fold) => {}
                ended = owner.ended() => return Err(ended),
            }
        }
    }

    /// Folds up to where the one that answers is, compares, and says so.
    async fn look(
        &self,
        fed: &mut Fed,
        owner: &mut Owner,
        standstill: &mut Standstill,
    ) -> Result<(), Trouble> {
        if self.is_of_another_log() {
            return self.look_at_a_copy(fed, owner).await;
        }
        // In this order: what the other one has is never beyond the log's end.
        let answering = Answering::of(self.answering().await)?;
        let bounds = fed.reader.bounds(self.id.partition).await?;
        let position = answering.position();
        if let Some(position) = position {
            fed.letters.answering_is_at(position);
        }
        let stands_still = standstill.lasts(position, bounds.high);
        let target = if stands_still { bounds.high } else { position.unwrap_or(fed.next) };
        if !self.catch_up(fed, owner, target, bounds).await? {
            // What was found before is still true.
            let compared = fed.said.as_ref().and_then(|said| said.compared.clone());
            return self.report(fed, bounds, compared).await;
        }
        let ours = self.ours(fed).await?;
        let compared = match (&answering, &ours) {
            (Answering::At(theirs), Some(ours)) => self.compare(ours, theirs),
            _ => None,
        };
        let compared = match compared {
            None if stands_still => Some(self.cannot_be_compared(fed, &answering, bounds)),
            compared => compared,
        };
        self.report(fed, bounds, compared).await
    }

    /// Folds up to the end of its log, which is being copied from the one that answers: partition by partition there is
    /// nothing to compare with.
    async fn look_at_a_copy(&self, fed: &mut Fed, owner: &mut Owner) -> Result<(), Trouble> {
        let bounds = fed.reader.bounds(self.id.partition).await?;
        if self.catch_up(fed, owner, bounds.high, bounds).await? {
            self.ours(fed).await?;
        }
        self.report(fed, bounds, None).await
    }

    /// Folds up to `target`, unless that is far and others' turn. Whether it has.
    async fn catch_up(
        &self,
        fed: &mut Fed,
        owner: &mut Owner,
        target: Position,
        bounds: LogBounds,
    ) -> Result<bool, Trouble> {
        if !matches!(fed.turn, Turn::Taken { .. }) && self.is_far(fed.next, target) {
            fed.turn = Turn::Awaited;
            return Ok(false);
        }
        self.feed(fed, owner, target, bounds).await?;
        fed.turn = Turn::NotNeeded;
        Ok(true)
    }

    /// What is stored of it, and up to where everyone's row is.
    async fn ours(&self, fed: &mut Fed) -> Result<Option<StoredPartition>, Trouble> {
        let ours = self.parts.store.read_partition(self.id).await?;
        fed.rows = ours.as_ref().map_or(fed.rows, |ours| ours.checkpoint.state_position);
        Ok(ours)
    }

    fn is_of_another_log(&self) -> bool {
        self.roster.borrow().current.log.number != self.log.number
    }

    async fn claim(&self) -> Result<(Fed, Owner), Trouble> {
        let Self { id, parts, .. } = self;
        let claimed_at = Instant::now();
        let reader = parts.readers.of(&self.log).await?;
        let stored = claim(parts.store.as_ref(), *id, &parts.owner).await?;
        let bounds = reader.bounds(id.partition).await?;
        let identity = reader.identity();
        let resume = check_log(&stored.checkpoint, &identity, bounds)?;
        tracing::info!(
            partition = %id.partition,
            generation = %id.generation,
            epoch = stored.epoch.0,
            position = %stored.checkpoint.position,
            "folding beside",
        );
        let rows = stored.checkpoint.state_position;
        let progress = Arc::new(Progress::default());
        let letters = Arc::new(LettersBeyond::new(Arc::clone(&parts.dead_letters)));
        if self.is_of_another_log() {
            letters.all_are_copies();
        }
        let owner = Partition::new(
            *id,
            stored,
            resume,
            claimed_at,
            PartitionParts {
                store: Arc::clone(&parts.store),
                dead_letters: Arc::clone(&letters) as Arc<dyn DeadLetters>,
                publisher: None,
                turns_to_write: Some(Arc::clone(&parts.turns.to_write)),
                identity,
                log: self.log.clone(),
                limits: parts.limits,
                metrics: self.metrics.clone(),
                progress: Arc::clone(&progress),
            },
        );
        let (records, inbox) = mpsc::channel(WAITING_BATCHES);
        let stop = CancellationToken::new();
        let life = tokio::spawn(owner.run(inbox, stop.clone()));
        let (next, source, said, turn) = (resume.from, None, None, Turn::NotNeeded);
        let fed = Fed { records, progress, letters, reader, next, rows, source, said, turn };
        Ok((fed, Owner { stop, life }))
    }

    /// The partition in the generation that answers.
    async fn answering(&self) -> Result<Option<StoredPartition>, StoreError> {
        let generation = self.roster.borrow().current.generation;
        let theirs = PartitionRef { generation, ..self.id };
        self.parts.store.read_partition(theirs).await
    }

    /// Submissions wait for the last of a copy.
    fn pause(&self) -> Duration {
        if self.is_of_another_log() { COPY_PAUSE } else { PAUSE }
    }

    fn is_far(&self, position: Position, target: Position) -> bool {
        target.0.saturating_sub(position.0) > self.parts.limits.catch_up_lag
    }

    /// Gives the owner the records up to `target`, and waits until they are committed.
    async fn feed(
        &self,
        fed: &mut Fed,
        owner: &mut Owner,
        target: Position,
        bounds: LogBounds,
    ) -> Result<(), Trouble> {
        fed.progress.set_high(target);
        let (end, mut stretch) = match fed.source.take() {
            Some(source) => source,
            None => self.read_from(&fed.reader, fed.next),
        };
        end.send_if_modified(|end| {
            let further = target > *end;
            *end = target.max(*end);
            further
        });
        while fed.next < target {
            let ended = || ReadError::Unavailable("the log is read no more".to_owned());
            let batch = stretch.recv().await.ok_or_else(ended)??;
            let next = batch.end();
            if fed.records.send(batch).await.is_err() {
                return Err(owner.ended().await);
            }
            fed.next = next.unwrap_or(fed.next);
            // To fold a whole log takes its time, in which whoever watches wants to know how far it is.
            if fed.said.as_ref().is_none_or(|said| now_ms() >= said.at_ms + REPEAT_MS) {
                self.report(fed, bounds, None).await?;
            }
        }
        fed.source = Some((end, stretch));
        tokio::select! {
            () = fed.progress.reached(target) => Ok(()),
            ended = owner.ended() => Err(ended),
        }
    }

    fn read_from(
        &self,
        reader: &Arc<dyn LogReader>,
        position: Position,
    ) -> (watch::Sender<Position>, Stretch) {
        let (end, until) = watch::channel(position);
        (end, reader.follow(self.id.partition, position, until))
    }

    /// Compares, if both are at the same position.
    fn compare(&self, ours: &StoredPartition, theirs: &StoredPartition) -> Option<Compared> {
        let position = theirs.checkpoint.position;
        let with = self.roster.borrow().current.generation;
        (ours.checkpoint.position == position).then(|| {
            let differences = differences(self.id.partition, ours, theirs);
            Compared { with, position, differences }
        })
    }

    /// What answers now is not what the log says, in one way or the other.
    fn cannot_be_compared(&self, fed: &Fed, answering: &Answering, bounds: LogBounds) -> Compared {
        let (partition, with) = (self.id.partition, self.roster.borrow().current.generation);
        let what = match answering {
            Answering::Nothing => format!("nothing is stored of generation {with}"),
            Answering::Damaged(reason) => format!("of generation {with}: {reason}"),
            Answering::At(theirs) => format!(
                "generation {with} stands still at {}, and the log ends at {}",
                theirs.checkpoint.position, bounds.high
            ),
        };
        let differences = vec![format!("partition {partition}: {what}")];
        Compared { with, position: fed.progress.committed(), differences }
    }

    /// Says it, at once if it is news.
    async fn report(
        &self,
        fed: &mut Fed,
        bounds: LogBounds,
        compared: Option<Compared>,
    ) -> Result<(), Trouble> {
        let report = PartitionReport {
            position: fed.progress.committed(),
            rows: fed.rows,
            high: bounds.high,
            compared,
            trouble: None,
            at_ms: now_ms(),
        };
        let news = fed.said.as_ref().is_none_or(|said| {
            report.at_ms >= said.at_ms + REPEAT_MS
                || report != PartitionReport { at_ms: report.at_ms, ..said.clone() }
        });
        if news {
            self.parts.store.write_report(self.id, &report).await?;
            fed.said = Some(report);
        }
        Ok(())
    }

    /// Says why it does not come on.
    async fn tell_of(&self, trouble: &Trouble) {
        let stored = self.parts.store.read_partition(self.id).await.ok().flatten();
        let (position, rows) = stored.map_or_else(Default::default, |stored| {
            (stored.checkpoint.position, stored.checkpoint.state_position)
        });
        let report = PartitionReport {
            position,
            rows,
            high: position,
            compared: None,
            trouble: Some(trouble.to_string()),
            at_ms: now_ms(),
        };
        if let Err(error) = self.parts.store.write_report(self.id, &report).await {
            tracing::debug!(%error, "nobody can be told");
        }
    }
}
