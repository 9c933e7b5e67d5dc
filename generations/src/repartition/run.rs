//! Runs a repartition up to the cutover, and cancels it on failure.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::now_ms;
use schemas::{
    Building, GenerationRecord, GenerationRegistry, LogRef, PartitionCount, Position, Seal,
};
use storage::log::{LogReader, ReadError};
use storage::retry::Transient;
use storage::store::{PartitionRef, StoreError};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::cancel::{GenerationCancel, cancel_generation, unseal_if_left_sealed};
use super::copy::LogCopy;
use super::deps::RepartitionDeps;
use super::error::RepartitionError;
use super::progress::{RepartitionOutcome, RepartitionProgress};
use crate::rebuild::target_positions;
use crate::registry::{RegistryUpdateError, begin_on_new_log, update_registry};

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Lag at which the cutover may start: it is caught up within seconds. The cutover waits for as
/// long as the lag shrinks.
const MAX_CUTOVER_LAG_RECORDS: u64 = 20_000;
/// Longest time for which stalled partitions are waited for.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest cutover, during which submissions wait; after it the repartition is cancelled.
const CUTOVER_TIMEOUT: Duration = Duration::from_secs(45);

/// Moves the deployment to a log with `partitions` partitions.
///
/// Cancels everything it began when it fails or `stop` is cancelled.
///
/// # Errors
/// When the log keeps its partition count: why.
pub async fn repartition(
    deps: &RepartitionDeps,
    partitions: PartitionCount,
    on_progress: impl Fn(&RepartitionProgress),
    stop: CancellationToken,
) -> Result<RepartitionOutcome, RepartitionError> {
    let (from, building) = begin(deps, partitions).await?;
    let repartition = Repartition { deps, from, record: building.record, on_progress };
    let error = match stop.run_until_cancelled(repartition.run()).await {
        Some(Ok(outcome)) => return Ok(outcome),
        Some(Err(error)) => error,
        None => RepartitionError::Interrupted,
    };
    let (store, generation) = (deps.store.as_ref(), repartition.record.generation);
    match cancel_generation(store, &deps.migrator, generation).await? {
        GenerationCancel::Cancelled => {
            // This process's seal may have reached the brokers after another process unsealed the
            // log.
            let registry = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
            unseal_if_left_sealed(store, &deps.migrator, &registry).await?;
            Err(error)
        }
        // The switch was applied despite the error.
        GenerationCancel::AlreadyActive => {
            let announced = repartition.announce_active_log().await;
            Ok(repartition.outcome(None, announced))
        }
    }
}

/// Begins a generation on a new log; returns the active generation and the new one.
async fn begin(
    deps: &RepartitionDeps,
    partitions: PartitionCount,
) -> Result<(GenerationRecord, Building), RepartitionError> {
    let store = deps.store.as_ref();
    let current = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
    let (topic, now_ms) = (&deps.first_log.topic, now_ms());
    // Check the transition before any request to Kafka.
    let planned =
        begin_on_new_log(&current, topic, partitions, now_ms).map_err(RegistryUpdateError::from)?;
    if let Some(Building { record: GenerationRecord { log, .. }, .. }) = planned.building
        && deps.migrator.exists(&log).await?
    {
        return Err(RepartitionError::TopicExists(log.topic));
    }
    let log = &current.active.log;
    if deps.migrator.is_sealed(log).await? {
        return Err(RepartitionError::AlreadySealed(log.topic.clone()));
    }
    target_positions(deps.logs.open(log).await?.as_ref()).await?;
    let registry =
        update_registry(store, |registry| begin_on_new_log(registry, topic, partitions, now_ms))
            .await?;
    let GenerationRegistry { active, building, next, .. } = registry;
    Ok((active, building.ok_or(RepartitionError::NoLongerBuilding(next))?))
}

/// A repartition that has begun.
pub(super) struct Repartition<'d, OnProgress> {
    pub deps: &'d RepartitionDeps,
    /// The generation that is active until the switch.
    pub from: GenerationRecord,
    /// The generation on the new log.
    pub record: GenerationRecord,
    pub on_progress: OnProgress,
}

impl<OnProgress: Fn(&RepartitionProgress)> Repartition<'_, OnProgress> {
    async fn run(&self) -> Result<RepartitionOutcome, RepartitionError> {
        let Self { deps, from, record, .. } = self;
        let source = deps.logs.open(&from.log).await?;
        deps.migrator.create(&record.log, &from.log).await?;
        let target = deps.logs.open_without_archive(&record.log).await?;
        let copier = deps.migrator.copier(&record.log).await?;
        let mut copy = LogCopy::start(&source, &from.log, copier, &record.log);
        self.wait_until_nearly_caught_up(&source, &mut copy).await?;
        let cutover = self.cut_over(&source, &target, copy);
        let timed_out = |_| RepartitionError::CutoverTimeout(CUTOVER_TIMEOUT);
        timeout(CUTOVER_TIMEOUT, cutover).await.map_err(timed_out)?
    }

    /// Waits until copying and folding lag only slightly and the lag no longer shrinks.
    async fn wait_until_nearly_caught_up(
        &self,
        source: &Arc<dyn LogReader>,
        copy: &mut LogCopy,
    ) -> Result<(), RepartitionError> {
        let (mut stalled_since, mut last_lag) = (None, u64::MAX);
        loop {
            self.ensure_still_building().await?;
            let stall_reasons = match self.extend_copy(source, copy).await {
                Ok(progress) => {
                    (self.on_progress)(&progress);
                    let lag = progress.total.saturating_sub(progress.done);
                    let is_near = lag == 0 || (lag <= MAX_CUTOVER_LAG_RECORDS && lag >= last_lag);
                    last_lag = lag;
                    if progress.stall_reasons.is_empty()
                        && is_near
                        && self.active_is_nearly_caught_up(source).await?
                    {
                        return Ok(());
                    }
                    progress.stall_reasons
                }
                Err(error) if error.is_transient() => vec![error.to_string()],
                Err(error) => return Err(error),
            };
            if stall_reasons.is_empty() {
                stalled_since = None;
            } else if stalled_since.get_or_insert_with(Instant::now).elapsed() > STALL_TIMEOUT {
                return Err(RepartitionError::Stalled(stall_reasons.join("; ")));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Extends the copy to the current end of the old log and returns the progress.
    pub(super) async fn extend_copy(
        &self,
        source: &Arc<dyn LogReader>,
        copy: &mut LogCopy,
    ) -> Result<RepartitionProgress, RepartitionError> {
        let ends = log_ends(source.as_ref(), &self.from.log).await?;
        copy.extend_to(&ends)?;
        let GenerationRecord { generation, log, .. } = &self.record;
        let reports = self.deps.store.reports(*generation, log.partitions).await?;
        Ok(RepartitionProgress::measure(&ends, &copy.counts, &reports, now_ms()))
    }

    /// Whether the active generation lags only slightly, too: the cutover waits for it.
    async fn active_is_nearly_caught_up(
        &self,
        source: &Arc<dyn LogReader>,
    ) -> Result<bool, RepartitionError> {
        let GenerationRecord { generation, log, .. } = &self.from;
        let ends = log_ends(source.as_ref(), log).await?;
        let mut lag = 0;
        for (partition, end) in log.partitions.partitions().zip(ends) {
            let id = PartitionRef { generation: *generation, partition };
            let stored = self.deps.store.read_partition(id).await?;
            let position = stored.map_or(Position::START, |stored| stored.checkpoint.position);
            lag += end.0.saturating_sub(position.0);
        }
        Ok(lag <= MAX_CUTOVER_LAG_RECORDS)
    }

    /// Checks that no other process has cancelled the generation.
    pub(super) async fn ensure_still_building(&self) -> Result<(), RepartitionError> {
        let registry = match self.deps.store.registry().await {
            Ok(registry) => registry,
            // The next poll reads it again.
            Err(StoreError::Unavailable(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let building = registry.and_then(|registry| registry.building);
        let own = building.filter(|building| building.record == self.record);
        match own.map(|building| building.seal) {
            Some(Seal::Open | Seal::Sealed { .. }) => Ok(()),
            Some(Seal::Reopening { .. }) | None => {
                Err(RepartitionError::NoLongerBuilding(self.record.generation))
            }
        }
    }
}

/// Reads the end of every partition of a log.
pub(super) async fn log_ends(
    reader: &dyn LogReader,
    log: &LogRef,
) -> Result<Vec<Position>, ReadError> {
    let mut ends = Vec::new();
    for partition in log.partitions.partitions() {
        ends.push(reader.bounds(partition).await?.high);
    }
    Ok(ends)
}
