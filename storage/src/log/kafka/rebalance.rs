//! Group rebalances: claims assigned partitions and releases revoked ones. Runs inside `poll`, on the source's thread.
//!
//! The owner claims partitions before they are assigned to the consumer, so that each starts at the claim's position: no
//! record from another position can arrive, and no seek is needed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use schemas::{PartitionId, Position};

use super::Rebootstrap;
use crate::log::{LogBounds, PartitionHandler, StartPosition};

const BOUNDS_TIMEOUT: Duration = Duration::from_secs(5);

/// The consumer's context: the handler, and the changes that the poll loop has not applied yet.
pub(super) struct RebalanceContext<'h> {
    pub handler: &'h dyn PartitionHandler,
    pub topic: String,
    pub changes: Mutex<AssignmentChanges>,
    pub rebootstrap: Rebootstrap,
}

#[derive(Default)]
pub(super) struct AssignmentChanges {
    /// Partitions whose buffered records must be dropped.
    pub revoked: Vec<PartitionId>,
    /// Partitions that are assigned but not read.
    pub paused: Vec<PartitionId>,
    /// An error after which the group must be rejoined.
    pub error: Option<String>,
}

impl RebalanceContext<'_> {
    pub fn take_changes(&self) -> AssignmentChanges {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, AssignmentChanges> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<PartitionId> {
        list.elements_for_topic(&self.topic)
            .iter()
            .map(|element| PartitionId(element.partition().max(0) as u32))
            .collect()
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        let starts = match self.bounds(consumer, list) {
            Ok(bounds) => self.handler.assigned(&bounds),
            // Nothing is claimed, since the group is about to be rejoined.
            Err(error) => {
                self.lock().error = Some(error);
                Vec::new()
            }
        };
        let mut assignment = TopicPartitionList::new();
        let mut paused = TopicPartitionList::new();
        for partition in self.partitions(list) {
            let start = starts
                .iter()
                .find(|(id, _)| *id == partition)
                .map_or(StartPosition::Paused, |(_, start)| *start);
            let number = partition.0 as i32;
            match start {
                StartPosition::At(position) => {
                    assignment.add_partition_offset(
                        &self.topic,
                        number,
                        Offset::Offset(position.0 as i64),
                    )?;
                }
                StartPosition::Paused => {
                    assignment.add_partition_offset(&self.topic, number, Offset::End)?;
                    paused.add_partition(&self.topic, number);
                    self.lock().paused.push(partition);
                }
            }
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&assignment)?,
            _ => consumer.assign(&assignment)?,
        }
        if paused.count() > 0 {
            consumer.pause(&paused)?;
        }
        Ok(())
    }

    fn bounds(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) -> Result<Vec<(PartitionId, LogBounds)>, String> {
        let fetch = |partition| match fetch_bounds(consumer, &self.topic, partition) {
            Ok(bounds) => Ok((partition, bounds)),
            Err(error) => {
                Err(format!("failed to fetch the bounds of partition {partition}: {error}"))
            }
        };
        self.partitions(list).into_iter().map(fetch).collect()
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        // A pause outlives the assignment: a partition that is assigned again would never be read.
        if let Err(error) = consumer.resume(list) {
            tracing::warn!(%error, "failed to resume revoked partitions");
        }
        let partitions = self.partitions(list);
        self.handler.revoked(&partitions, consumer.assignment_lost());
        self.lock().revoked.extend(&partitions);
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            _ => consumer.unassign(),
        }
    }
}

fn fetch_bounds(
    consumer: &BaseConsumer<RebalanceContext<'_>>,
    topic: &str,
    partition: PartitionId,
) -> KafkaResult<LogBounds> {
    let (low, high) = consumer.fetch_watermarks(topic, partition.0 as i32, BOUNDS_TIMEOUT)?;
    Ok(LogBounds { low: Position(low.max(0) as u64), high: Position(high.max(0) as u64) })
}

impl ClientContext for RebalanceContext<'_> {
    fn error(&self, error: KafkaError, reason: &str) {
        // librdkafka retries these by itself; `poll` returns those that it cannot recover from.
        tracing::debug!(%error, reason, "kafka consumer error");
    }

    fn stats(&self, statistics: Statistics) {
        self.rebootstrap.check(&statistics);
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        for partition in topic.partitions.values() {
            if let (Ok(id), Ok(high)) =
                (u32::try_from(partition.partition), u64::try_from(partition.hi_offset))
            {
                self.handler.high_watermark(PartitionId(id), Position(high));
            }
        }
    }
}

impl ConsumerContext for RebalanceContext<'_> {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let outcome = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        };
        if let Err(error) = outcome {
            self.lock().error = Some(format!("failed to change the assignment: {error}"));
        }
    }
}
