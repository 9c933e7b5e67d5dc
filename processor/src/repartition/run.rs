//! A repartition from the first step to the last.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::now_ms;
use schemas::{
    BudgetId, Building, GenerationRecord, LogRef, PartitionCount, Position, Roster, Seal,
};
use storage::definitions::{DefinitionError, Definitions};
use storage::log::kafka::LogMover;
use storage::log::{LogReader, LogReaders, ReadError};
use storage::store::{PartitionRef, Store, StoreError, StoredPartition};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::compare::differences;
use super::copy::Copying;
use super::error::RepartitionError;
use super::give_up::{GivenUp, give_up, open_if_sealed};
use super::progress::{Done, Look, Repartitioned, Stage};
use crate::again::Away;
use crate::generations::{ChangeError, begin_moved, change, flip_moved, seal};
use crate::rebuild::goals;

const INTERVAL: Duration = Duration::from_millis(200);
/// Between two looks while submissions wait.
const SEALED_INTERVAL: Duration = Duration::from_millis(20);
/// Who is so many records behind catches up in a moment, and is waited for as long as that gets fewer.
const NEAR: u64 = 20_000;
/// So long a partition that does not come on is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// So long submissions may wait for the last step; then everything is given up.
pub(super) const SEALED_AT_MOST: Duration = Duration::from_secs(45);
/// The budget in which a person whom nobody is withdraws, should the log not be sealed yet.
const PROBED: &str = "taxes";
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// So often it is tried to tell where submissions go now; afterwards the processors do.
const TELL_TIMES: u32 = 5;

/// What a repartition works with.
pub struct RepartitionParts {
    /// The roster, and what is counted.
    pub store: Arc<dyn Store>,
    /// The logs.
    pub logs: Arc<dyn LogReaders>,
    /// The topics.
    pub mover: LogMover,
    /// Tells everyone who takes submissions where they go.
    pub definitions: Arc<dyn Definitions>,
    /// The log that the deployment began with.
    pub first_log: LogRef,
}

/// Gives the deployment a log of another partition count. Everything is given up if it cannot, or is told to stop.
///
/// # Errors
/// When the log has as many partitions as before: why.
pub async fn repartition(
    parts: &RepartitionParts,
    partitions: PartitionCount,
    saw: impl Fn(&Look),
    stop: CancellationToken,
) -> Result<Repartitioned, RepartitionError> {
    let (from, building) = begin(parts, partitions).await?;
    let moving = Moving { parts, from, record: building.record, saw };
    let error = match stop.run_until_cancelled(moving.run()).await {
        Some(Ok(moved)) => return Ok(moved),
        Some(Err(error)) => error,
        None => RepartitionError::Interrupted,
    };
    match give_up(parts.store.as_ref(), &parts.mover, moving.record.generation).await? {
        GivenUp::GivenUp => {
            // Its seal may have come to the brokers after somebody else had opened the log again.
            let store = parts.store.as_ref();
            let roster = store.roster().await?.ok_or(ChangeError::NoRoster)?;
            open_if_sealed(store, &parts.mover, &roster).await?;
            Err(error)
        }
        // The last step was taken all the same.
        GivenUp::Answers => {
            let told = moving.tell().await;
            Ok(moving.moved(None, told))
        }
    }
}

async fn begin(
    parts: &RepartitionParts,
    partitions: PartitionCount,
) -> Result<(GenerationRecord, Building), RepartitionError> {
    let store = parts.store.as_ref();
    let now = store.roster().await?.ok_or(ChangeError::NoRoster)?;
    let (topic, now_ms) = (&parts.first_log.topic, now_ms());
    // What is refused is refused before anything is asked of Kafka.
    let wanted = begin_moved(&now, topic, partitions, now_ms).map_err(ChangeError::from)?;
    if let Some(Building { record: GenerationRecord { log, .. }, .. }) = wanted.building
        && parts.mover.is_there(&log).await?
    {
        return Err(RepartitionError::TopicIsThere(log.topic));
    }
    let log = &now.current.log;
    if parts.mover.is_sealed(log).await? {
        return Err(RepartitionError::SealedAlready(log.topic.clone()));
    }
    goals(parts.logs.open(log).await?.as_ref()).await?;
    let roster = change(store, |roster| begin_moved(roster, topic, partitions, now_ms)).await?;
    let Roster { current, building, next, .. } = roster;
    Ok((current, building.ok_or(RepartitionError::Gone(next))?))
}

/// A repartition that has begun.
struct Moving<'p, Saw> {
    parts: &'p RepartitionParts,
    /// The generation that answers.
    from: GenerationRecord,
    /// The one that is to.
    record: GenerationRecord,
    saw: Saw,
}

impl<Saw: Fn(&Look)> Moving<'_, Saw> {
    async fn run(&self) -> Result<Repartitioned, RepartitionError> {
        let Self { parts, from, record, .. } = self;
        let source = parts.logs.open(&from.log).await?;
        parts.mover.create(&record.log, &from.log).await?;
        let target = parts.logs.open_alone(&record.log).await?;
        let copier = parts.mover.copier(&record.log)?;
        let mut copying = Copying::start(&source, &from.log, copier, &record.log);
        self.until_near(&source, &mut copying).await?;
        let ending = self.end(&source, &target, copying);
        timeout(SEALED_AT_MOST, ending).await.map_err(|_| RepartitionError::TooLong)?
    }

    /// Waits until the copy, and what is counted in it, is a moment behind, and gets no nearer.
    async fn until_near(
        &self,
        source: &Arc<dyn LogReader>,
        copying: &mut Copying,
    ) -> Result<(), RepartitionError> {
        let (mut in_trouble, mut behind_before) = (None, u64::MAX);
        loop {
            self.still_built().await?;
            let troubles = match self.look(source, copying).await {
                Ok(look) => {
                    (self.saw)(&look);
                    let behind = look.of.saturating_sub(look.done);
                    let is_near = behind == 0 || (behind <= NEAR && behind >= behind_before);
                    behind_before = behind;
                    if look.troubles.is_empty() && is_near && self.answering_is_near(source).await?
                    {
                        return Ok(());
                    }
                    look.troubles
                }
                Err(error) if error.is_away() => vec![error.to_string()],
                Err(error) => return Err(error),
            };
            if troubles.is_empty() {
                in_trouble = None;
            } else if in_trouble.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return Err(RepartitionError::Stuck(troubles.join("; ")));
            }
            sleep(INTERVAL).await;
        }
    }

    async fn look(
        &self,
        source: &Arc<dyn LogReader>,
        copying: &mut Copying,
    ) -> Result<Look, RepartitionError> {
        let ends = ends(source.as_ref(), &self.from.log).await?;
        copying.go_on_to(&ends)?;
        let GenerationRecord { generation, log } = &self.record;
        let reports = self.parts.store.reports(*generation, log.partitions).await?;
        Ok(Look::of(&ends, &copying.counts, &reports))
    }

    /// Whether the generation that answers is a moment behind, too: submissions would wait for it.
    async fn answering_is_near(
        &self,
        source: &Arc<dyn LogReader>,
    ) -> Result<bool, RepartitionError> {
        let GenerationRecord { generation, log } = &self.from;
        let mut behind = 0;
        for (partition, end) in log.partitions.partitions().zip(ends(source.as_ref(), log).await?) {
            let id = PartitionRef { generation: *generation, partition };
            let stored = self.parts.store.read_partition(id).await?;
            let position = stored.map_or(Position::START, |stored| stored.checkpoint.position);
            behind += end.0.saturating_sub(position.0);
        }
        Ok(behind <= NEAR)
    }

    /// Seals the old log, copies and counts the rest, compares, and lets the new one answer.
    async fn end(
        &self,
        source: &Arc<dyn LogReader>,
        target: &Arc<dyn LogReader>,
        mut copying: Copying,
    ) -> Result<Repartitioned, RepartitionError> {
        let Self { parts, from, record, .. } = self;
        let store = parts.store.as_ref();
        let generation = record.generation;
        let sealed_at = Instant::now();
        change(store, |roster| seal(roster, generation, now_ms())).await?;
        parts.mover.seal(&from.log).await?;
        while !self.is_refused().await? {
            sleep(SEALED_INTERVAL).await;
        }
        // What a broker had taken before may still wait for its replicas: until they have it nobody sees it, and until
        // then it is acknowledged. Afterwards it is not. What is there is copied and counted meanwhile.
        let acknowledged = Instant::now() + parts.mover.last_acknowledgements();
        match self.look(source, &mut copying).await {
            Ok(look) => (self.saw)(&Look { stage: Stage::Sealed, ..look }),
            Err(error) if error.is_away() => {}
            Err(error) => return Err(error),
        }
        sleep_until(acknowledged).await;
        let last = ends(source.as_ref(), &from.log).await?;

        let counts = copying.end_at(&last).await?;
        let copied = counts.ends();
        if ends(target.as_ref(), &record.log).await? != copied {
            return Err(RepartitionError::Strangers(record.log.topic.clone()));
        }
        let old = self.counted(from, &last).await?;
        let new = self.counted(record, &copied).await?;
        let found = differences(&old, &new, counts.left_out());
        if !found.is_empty() {
            return Err(RepartitionError::Different(found));
        }
        if !self.is_refused().await? || ends(source.as_ref(), &from.log).await? != last {
            return Err(RepartitionError::Strangers(from.log.topic.clone()));
        }
        change(store, |roster| flip_moved(roster, generation)).await?;
        let told = self.tell().await;
        let sealed = sealed_at.elapsed();
        match ends(source.as_ref(), &from.log).await {
            Ok(after) if after != last => {
                tracing::error!(
                    topic = from.log.topic,
                    "records were appended after the topic was sealed: they are not counted"
                );
            }
            _ => {}
        }
        let records = copied.iter().map(|end| end.0).sum();
        Ok(self.moved(Some(Done { records, left_out: counts.left_out(), sealed }), told))
    }

    fn moved(&self, done: Option<Done>, told: bool) -> Repartitioned {
        let (record, before) = (self.record.clone(), self.from.log.clone());
        Repartitioned { record, before, done, told }
    }

    /// Whether every partition refuses records, once each has said so or not.
    async fn is_refused(&self) -> Result<bool, RepartitionError> {
        let budget = BudgetId::parse(PROBED);
        let budget = budget.map_err(|fault| RepartitionError::Stuck(fault.to_string()))?;
        loop {
            match self.parts.mover.refuses(&self.from.log, &budget).await {
                Ok(refused) => return Ok(refused),
                // A broker that changes its place says nothing for a moment.
                Err(error) => {
                    tracing::warn!(%error, "not every partition says whether it refuses records");
                }
            }
            sleep(SEALED_INTERVAL).await;
        }
    }

    /// Waits until everything up to there is counted, and everyone's row is written.
    async fn counted(
        &self,
        record: &GenerationRecord,
        ends: &[Position],
    ) -> Result<Vec<StoredPartition>, RepartitionError> {
        let is_new = record.generation == self.record.generation;
        let mut counted = Vec::new();
        for (partition, end) in record.log.partitions.partitions().zip(ends) {
            let id = PartitionRef { generation: record.generation, partition };
            counted.push(loop {
                match self.parts.store.read_partition(id).await {
                    Ok(Some(stored))
                        if stored.checkpoint.position == *end
                            && (!is_new || stored.checkpoint.state_position == *end) =>
                    {
                        break stored;
                    }
                    Ok(_) | Err(StoreError::Unavailable(_)) => {}
                    Err(error) => return Err(error.into()),
                }
                self.still_built().await?;
                sleep(SEALED_INTERVAL).await;
            });
        }
        Ok(counted)
    }

    /// Whether nobody has given it up.
    async fn still_built(&self) -> Result<(), RepartitionError> {
        let roster = match self.parts.store.roster().await {
            Ok(roster) => roster,
            // It is asked again soon.
            Err(StoreError::Unavailable(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let building = roster.and_then(|roster| roster.building);
        let ours = building.filter(|building| building.record == self.record);
        match ours.map(|building| building.seal) {
            Some(Seal::Open | Seal::Sealed { .. }) => Ok(()),
            Some(Seal::Opening { .. }) | None => {
                Err(RepartitionError::Gone(self.record.generation))
            }
        }
    }

    /// Tells everyone who takes submissions where they go now. Whether that is done.
    async fn tell(&self) -> bool {
        for _ in 0..TELL_TIMES {
            match self.parts.definitions.move_log(&self.record.log).await {
                Ok(()) => return true,
                Err(DefinitionError::Unavailable(reason)) => {
                    tracing::warn!(reason, "it cannot be told yet where submissions go now");
                }
                Err(error @ DefinitionError::Refused(_)) => {
                    tracing::error!(%error, "it cannot be told where submissions go now");
                }
            }
            sleep(TELL_AGAIN).await;
        }
        false
    }
}

async fn ends(reader: &dyn LogReader, log: &LogRef) -> Result<Vec<Position>, ReadError> {
    let mut ends = Vec::new();
    for partition in log.partitions.partitions() {
        ends.push(reader.bounds(partition).await?.high);
    }
    Ok(ends)
}
