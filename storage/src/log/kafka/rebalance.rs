//! What happens when the group moves partitions. Runs inside `poll`, on the source's thread.
//!
//! The owner claims its partitions before they are assigned, so that each starts at the position that its claim found:
//! there is no moment at which a record from elsewhere could arrive, and no seek.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use schemas::{PartitionId, Position};

use super::Rebootstrap;
use crate::log::{LogBounds, PartitionHandler, Start};

const BOUNDS_TIMEOUT: Duration = Duration::from_secs(5);

/// The consumer's context: the handler, and what changed since the source's loop last looked.
pub(super) struct Rebalances<'h> {
    pub handler: &'h dyn PartitionHandler,
    pub topic: String,
    pub changed: Mutex<Changed>,
    pub rebootstrap: Rebootstrap,
}

#[derive(Default)]
pub(super) struct Changed {
    /// Partitions whose buffered records are void.
    pub revoked: Vec<PartitionId>,
    /// Partitions that are assigned but not to be read.
    pub silent: Vec<PartitionId>,
    /// Something went wrong that only joining again can mend.
    pub broken: Option<String>,
}

impl Rebalances<'_> {
    pub fn take_changed(&self) -> Changed {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ours(&self, list: &TopicPartitionList) -> Vec<PartitionId> {
        list.elements_for_topic(&self.topic)
            .iter()
            .map(|e| PartitionId(e.partition().max(0) as u32))
            .collect()
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        let starts = match self.bounds(consumer, list) {
            Ok(bounds) => self.handler.assigned(&bounds),
            // Nothing is claimed that will be given back at once.
            Err(broken) => {
                self.lock().broken = Some(broken);
                Vec::new()
            }
        };
        let mut assignment = TopicPartitionList::new();
        let mut silent = TopicPartitionList::new();
        for partition in self.ours(list) {
            let start = starts
                .iter()
                .find(|(id, _)| *id == partition)
                .map_or(Start::Nowhere, |(_, start)| *start);
            let number = partition.0 as i32;
            match start {
                Start::At(position) => {
                    assignment.add_partition_offset(
                        &self.topic,
                        number,
                        Offset::Offset(position.0 as i64),
                    )?;
                }
                Start::Nowhere => {
                    assignment.add_partition_offset(&self.topic, number, Offset::End)?;
                    silent.add_partition(&self.topic, number);
                    self.lock().silent.push(partition);
                }
            }
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&assignment)?,
            _ => consumer.assign(&assignment)?,
        }
        if silent.count() > 0 {
            consumer.pause(&silent)?;
        }
        Ok(())
    }

    fn bounds(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) -> Result<Vec<(PartitionId, LogBounds)>, String> {
        let found = |partition| match log_bounds(consumer, &self.topic, partition) {
            Ok(bounds) => Ok((partition, bounds)),
            Err(error) => Err(format!("partition {partition}'s bounds are unknown: {error}")),
        };
        self.ours(list).into_iter().map(found).collect()
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        // A pause outlives the assignment: a partition that comes back would never be read.
        if let Err(error) = consumer.resume(list) {
            tracing::warn!(%error, "what is revoked could not be resumed");
        }
        let partitions = self.ours(list);
        self.handler.revoked(&partitions, consumer.assignment_lost());
        self.lock().revoked.extend(&partitions);
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            _ => consumer.unassign(),
        }
    }
}

fn log_bounds(
    consumer: &BaseConsumer<Rebalances<'_>>,
    topic: &str,
    partition: PartitionId,
) -> KafkaResult<LogBounds> {
    let (low, high) = consumer.fetch_watermarks(topic, partition.0 as i32, BOUNDS_TIMEOUT)?;
    Ok(LogBounds { low: Position(low.max(0) as u64), high: Position(high.max(0) as u64) })
}

impl ClientContext for Rebalances<'_> {
    fn error(&self, error: KafkaError, reason: &str) {
        // librdkafka mends these by itself; what it cannot mend, `poll` returns.
        tracing::debug!(%error, reason, "Kafka consumer");
    }

    fn stats(&self, statistics: Statistics) {
        self.rebootstrap.look(&statistics);
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

impl ConsumerContext for Rebalances<'_> {
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
            self.lock().broken = Some(format!("the assignment could not be changed: {error}"));
        }
    }
}
