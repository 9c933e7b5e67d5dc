//! Group rebalances: reports assigned partitions, and releases revoked ones. Runs inside `poll`, on the source's
//! thread.
//!
//! The set of assigned partitions and the set of partitions that the client reads differ. A partition is *attached*, so
//! that the client reads it, once its owner has named the start position. It is *detached* when it has no owner.
//! Neither is a change of the group, and no seek is needed. Only attached partitions have records in the client's
//! queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::{Partition as PartitionStatistics, Statistics};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use schemas::{PartitionId, Position};

use super::Rebootstrap;
use super::connection_watch::ConnectionWatch;
use crate::log::{BoundsReader, PartitionHandler, Revocation, StartPosition};

/// The fetch state of an attached partition that librdkafka has stopped to read.
const NOT_FETCHED: &str = "none";

/// The consumer's context: the handler, and the partitions of this member.
pub(super) struct RebalanceContext<'h> {
    pub handler: &'h dyn PartitionHandler,
    pub topic: String,
    pub bounds: Arc<dyn BoundsReader>,
    pub partitions: Mutex<MemberPartitions>,
    pub rebootstrap: Rebootstrap,
    pub connections: ConnectionWatch,
}

/// The partitions of this member, and what the poll loop has to do about them.
#[derive(Default)]
pub(super) struct MemberPartitions {
    assigned: BTreeSet<PartitionId>,
    attached: BTreeSet<PartitionId>,
    /// Partitions whose buffered records must be dropped.
    revoked: Vec<PartitionId>,
    /// Why a partition could not be read further. librdkafka does not say which one; its statistics do.
    read_error: Option<String>,
    /// Attached partitions that were reported as not read.
    failed: BTreeSet<PartitionId>,
    /// An error after which the group must be rejoined.
    fatal: Option<String>,
    /// What happens to the partitions when this member leaves; `None` before it does.
    leaving: Option<Revocation>,
}

/// What the poll loop has to do after a poll.
pub(super) struct AssignmentChanges {
    pub revoked: Vec<PartitionId>,
    pub fatal: Option<String>,
    /// Whether an assigned partition is not read yet.
    pub any_waiting: bool,
}

impl RebalanceContext<'_> {
    pub fn take_changes(&self) -> AssignmentChanges {
        let mut partitions = self.partitions.lock();
        AssignmentChanges {
            revoked: std::mem::take(&mut partitions.revoked),
            fatal: partitions.fatal.take(),
            any_waiting: partitions.attached.len() < partitions.assigned.len(),
        }
    }

    /// Says what happens to the partitions that the client releases when it is closed.
    pub fn leave(&self, revocation: Revocation) {
        self.partitions.lock().leaving = Some(revocation);
    }

    /// Notes that one of the attached partitions cannot be read further.
    pub fn note_read_error(&self, error: String) {
        self.partitions.lock().read_error = Some(error);
    }

    /// Attaches partitions at their start positions, and detaches the others. Assigned ones only.
    pub fn apply_starts(
        &self,
        consumer: &BaseConsumer<Self>,
        starts: &[(PartitionId, StartPosition)],
    ) -> KafkaResult<()> {
        let assigned = self.partitions.lock().assigned.clone();
        let starts: BTreeMap<_, _> =
            starts.iter().copied().filter(|(partition, _)| assigned.contains(partition)).collect();
        self.detach(consumer, starts.keys().copied())?;
        let mut list = TopicPartitionList::new();
        for (partition, start) in &starts {
            if let StartPosition::At(position) = start {
                let offset = Offset::Offset(position.0 as i64);
                list.add_partition_offset(&self.topic, partition.0 as i32, offset)?;
                self.partitions.lock().attached.insert(*partition);
            }
        }
        if list.count() > 0 { consumer.incremental_assign(&list) } else { Ok(()) }
    }

    /// Detaches those of the partitions that are attached.
    ///
    /// If the group revokes partitions at this moment, it may take this call for the answer to that, and give those
    /// partitions to another member early. Then the epoch decides, as for a member that stalls.
    fn detach(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: impl Iterator<Item = PartitionId>,
    ) -> KafkaResult<()> {
        let list = self.take_attached(partitions);
        if list.count() == 0 {
            return Ok(());
        }
        self.resume(consumer, &list);
        consumer.incremental_unassign(&list)
    }

    /// Removes those of the partitions that are attached, and returns them.
    fn take_attached(&self, partitions: impl Iterator<Item = PartitionId>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        let mut state = self.partitions.lock();
        for partition in partitions {
            state.failed.remove(&partition);
            if state.attached.remove(&partition) {
                list.add_partition(&self.topic, partition.0 as i32);
            }
        }
        list
    }

    /// A pause outlives the assignment: a partition that is attached again would never be read.
    fn resume(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        if let Err(error) = consumer.resume(list) {
            tracing::warn!(%error, "failed to resume detached partitions");
        }
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        let partitions = self.partitions(list);
        self.partitions.lock().assigned.extend(&partitions);
        self.handler.assigned(&partitions, &self.bounds);
        // Each is attached once it is claimed.
        consumer.incremental_assign(&TopicPartitionList::new())
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        let partitions = self.partitions(list);
        let revocation = match self.partitions.lock().leaving {
            _ if consumer.assignment_lost() => Revocation::Lost,
            Some(revocation) => revocation,
            None => Revocation::Moved,
        };
        self.handler.revoked(&partitions, revocation);
        {
            let mut state = self.partitions.lock();
            state.assigned.retain(|partition| !partitions.contains(partition));
            state.revoked.extend(&partitions);
        }
        let attached = self.take_attached(partitions.into_iter());
        if attached.count() > 0 {
            self.resume(consumer, &attached);
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(&attached),
            _ => consumer.unassign(),
        }
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<PartitionId> {
        list.elements_for_topic(&self.topic)
            .iter()
            .map(|element| PartitionId(element.partition().max(0) as u32))
            .collect()
    }

    /// Reports the attached partitions that librdkafka no longer reads.
    fn report_failed_reads<'s>(&self, statistics: impl Iterator<Item = &'s PartitionStatistics>) {
        let Some(error) = self.partitions.lock().read_error.clone() else { return };
        for partition in statistics.filter(|partition| partition.fetch_state == NOT_FETCHED) {
            let partition = PartitionId(partition.partition.max(0) as u32);
            let mut state = self.partitions.lock();
            if state.attached.contains(&partition) && state.failed.insert(partition) {
                state.read_error = None;
                drop(state);
                self.handler.read_failed(partition, &error);
            }
        }
    }
}

impl ClientContext for RebalanceContext<'_> {
    fn error(&self, error: KafkaError, reason: &str) {
        // librdkafka retries these by itself; `poll` returns those that it cannot recover from.
        tracing::debug!(%error, reason, "kafka consumer error");
    }

    fn stats(&self, statistics: Statistics) {
        self.rebootstrap.check(&statistics);
        self.connections.check(&statistics);
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        for partition in topic.partitions.values() {
            if let (Ok(id), Ok(high)) =
                (u32::try_from(partition.partition), u64::try_from(partition.hi_offset))
            {
                self.handler.high_watermark(PartitionId(id), Position(high));
            }
        }
        self.report_failed_reads(topic.partitions.values());
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
            self.partitions.lock().fatal =
                Some(format!("failed to change the assignment: {error}"));
        }
    }
}
