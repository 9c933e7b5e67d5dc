//! The cutover: the sealed last step of a repartition.
//!
//! Seals the old log, copies and folds the rest, compares both generations, switches, and
//! publishes the new active log. Submissions wait meanwhile.

use std::sync::Arc;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use runtime::clock::now_ms;
use schemas::{BudgetId, GenerationRecord, Position};
use storage::log::LogReader;
use storage::retry::Transient;
use storage::store::{PartitionRef, StoreError, StoredPartition};
use tokio::time::{Instant, sleep, sleep_until};

use super::compare::differences;
use super::copy::LogCopy;
use super::error::RepartitionError;
use super::progress::{CutoverStats, RepartitionOutcome, RepartitionProgress, RepartitionStage};
use super::run::{Repartition, log_ends};
use crate::registry::{seal, switch_to_new_log, update_registry};

const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Budget of the withdrawal by a nonexistent person that probes whether the log is sealed.
const PROBE_BUDGET: &str = "taxes";
const ANNOUNCE_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Retries of announcing the active log; after them the processors announce it.
const MAX_ANNOUNCE_RETRIES: usize = 4;

impl<OnProgress: Fn(&RepartitionProgress)> Repartition<'_, OnProgress> {
    /// Seals the old log, copies and folds the rest, compares, and switches.
    pub(super) async fn cut_over(
        &self,
        source: &Arc<dyn LogReader>,
        target: &Arc<dyn LogReader>,
        mut copy: LogCopy,
    ) -> Result<RepartitionOutcome, RepartitionError> {
        let Self { deps, from, record, .. } = self;
        let store = deps.store.as_ref();
        let generation = record.generation;
        let sealed_at = Instant::now();
        update_registry(store, |registry| seal(registry, generation, now_ms())).await?;
        deps.migrator.seal(&from.log).await?;
        while !self.rejects_appends().await? {
            sleep(POLL_INTERVAL).await;
        }
        // Records accepted before the seal may still wait for replication: until then they are
        // invisible, and may still be acknowledged. Copy and fold the visible ones meanwhile.
        let last_acknowledgement = Instant::now() + deps.migrator.max_acknowledgement_delay();
        match self.extend_copy(source, &mut copy).await {
            Ok(progress) => {
                let stage = RepartitionStage::Sealed;
                (self.on_progress)(&RepartitionProgress { stage, ..progress });
            }
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(error),
        }
        sleep_until(last_acknowledgement).await;
        let last = log_ends(source.as_ref(), &from.log).await?;

        let counts = copy.finish_at(&last).await?;
        let copied = counts.ends();
        if log_ends(target.as_ref(), &record.log).await? != copied {
            return Err(RepartitionError::UnexpectedRecords(record.log.topic.clone()));
        }
        let old = self.wait_until_folded(from, &last).await?;
        let new = self.wait_until_folded(record, &copied).await?;
        let found =
            differences(&old, &new, counts.left_out_by_outcome(), counts.appended_markers());
        if !found.is_empty() {
            return Err(RepartitionError::Different(found));
        }
        if !self.rejects_appends().await? || log_ends(source.as_ref(), &from.log).await? != last {
            return Err(RepartitionError::UnexpectedRecords(from.log.topic.clone()));
        }
        update_registry(store, |registry| switch_to_new_log(registry, generation)).await?;
        let announced = self.announce_active_log().await;
        let sealed = sealed_at.elapsed();
        match log_ends(source.as_ref(), &from.log).await {
            Ok(after) if after != last => {
                tracing::error!(
                    topic = from.log.topic,
                    "records were appended to the sealed topic, they are not folded",
                );
            }
            _ => {}
        }
        let records = copied.iter().map(|end| end.0).sum();
        let stats = CutoverStats { records, left_out: counts.left_out(), sealed };
        Ok(self.outcome(Some(stats), announced))
    }

    pub(super) fn outcome(
        &self,
        cutover: Option<CutoverStats>,
        announced: bool,
    ) -> RepartitionOutcome {
        let (record, before) = (self.record.clone(), self.from.log.clone());
        RepartitionOutcome { record, before, cutover, announced }
    }

    /// Whether every partition of the old log rejects appends. Retries until all have responded.
    async fn rejects_appends(&self) -> Result<bool, RepartitionError> {
        let budget = BudgetId::parse(PROBE_BUDGET)
            .map_err(|fault| RepartitionError::Stalled(fault.to_string()))?;
        // A partition does not respond while its leader moves.
        let rejected = (|| self.deps.migrator.rejects_appends(&self.from.log, &budget))
            .retry(ConstantBuilder::new().with_delay(POLL_INTERVAL).without_max_times())
            .notify(|error, pause| {
                tracing::warn!(
                    %error,
                    retry_in_ms = pause.as_millis() as u64,
                    "failed to probe whether the log is sealed, retrying",
                );
            })
            .await?;
        Ok(rejected)
    }

    /// Waits until a generation is folded up to `ends`, the new one including its person rows.
    async fn wait_until_folded(
        &self,
        record: &GenerationRecord,
        ends: &[Position],
    ) -> Result<Vec<StoredPartition>, RepartitionError> {
        let is_new = record.generation == self.record.generation;
        let mut folded = Vec::new();
        for (partition, end) in record.log.partitions.partitions().zip(ends) {
            let id = PartitionRef { generation: record.generation, partition };
            folded.push(loop {
                match self.deps.store.read_partition(id).await {
                    Ok(Some(stored))
                        if stored.checkpoint.position == *end
                            && (!is_new || stored.checkpoint.rows_position == *end) =>
                    {
                        break stored;
                    }
                    Ok(_) | Err(StoreError::Unavailable(_)) => {}
                    Err(error) => return Err(error.into()),
                }
                self.ensure_still_building().await?;
                sleep(POLL_INTERVAL).await;
            });
        }
        Ok(folded)
    }

    /// Announces the new log as the active one, and returns whether that succeeded.
    pub(super) async fn announce_active_log(&self) -> bool {
        let log = &self.record.log;
        let announced = (|| self.deps.active_log.announce(log))
            .retry(
                ConstantBuilder::new()
                    .with_delay(ANNOUNCE_RETRY_DELAY)
                    .with_max_times(MAX_ANNOUNCE_RETRIES),
            )
            .notify(|error, pause| {
                tracing::warn!(
                    %error,
                    topic = log.topic,
                    retry_in_ms = pause.as_millis() as u64,
                    "failed to announce the active log, retrying",
                );
            })
            .await;
        if let Err(error) = &announced {
            tracing::error!(
                %error,
                topic = log.topic,
                "failed to announce the active log, the processors retry",
            );
        }
        announced.is_ok()
    }
}
