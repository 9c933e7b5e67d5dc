//! The idempotent producer: sends batches of records, and returns one result per record within a bound.
//!
//! Owns the behaviour while Kafka, or one partition's leader, is unavailable: the first batches wait for the delivery
//! timeout, then records fail at once until a probe succeeds (see `recovery`). One slow partition fails alone. Does not
//! know what the records mean.
//!
//! **A record whose batch has timed out is not sent again for longer than another delivery timeout.** If librdkafka
//! timed a record out by itself, it would start a new producer epoch and resend its other records under that epoch, and
//! the broker could no longer detect those that it has already as duplicates. So librdkafka's own timeout is too long
//! to be reached, and the unacknowledged records are purged from librdkafka. A purge takes all records of a client
//! along: those of other partitions go through a second client before (see `lanes`).

mod recovery;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use schemas::{Offset, PartitionId};

use super::KafkaConfig;
use super::lanes::{Lane, Lanes};
use super::polled_producer::{Batch, PolledProducer};
use super::topic_error::TopicError;
use crate::log::AppendError;

use self::recovery::RecoveryThreads;
pub(crate) use super::polled_producer::Outgoing;

pub(crate) struct IdempotentProducer {
    config: KafkaConfig,
    topic: String,
    /// The client of each lane. Replaced after a fatal error, and once it has stopped.
    clients: [ArcSwap<PolledProducer>; 2],
    lanes: Mutex<Lanes>,
    /// Kafka as a whole does not respond.
    unavailable: AtomicBool,
    recovery: RecoveryThreads,
    /// Batches of which a record was acknowledged.
    acknowledged: AtomicU64,
}

impl IdempotentProducer {
    /// Starts a producer into a topic, without a request to Kafka.
    pub fn start(config: &KafkaConfig, topic: String) -> Result<Arc<Self>, TopicError> {
        let start = || {
            PolledProducer::start(config)
                .map(ArcSwap::from_pointee)
                .map_err(|error| TopicError::unavailable(config, error))
        };
        Ok(Arc::new(Self {
            clients: [start()?, start()?],
            config: config.clone(),
            topic,
            lanes: Mutex::default(),
            unavailable: AtomicBool::new(false),
            recovery: RecoveryThreads::default(),
            acknowledged: AtomicU64::new(0),
        }))
    }

    pub fn available(&self) -> Result<(), AppendError> {
        if self.unavailable.load(Ordering::Relaxed) {
            return Err(AppendError::Unavailable("Kafka does not respond".into()));
        }
        Ok(())
    }

    /// Returns the partitions whose records fail at once.
    pub fn refused_partitions(&self) -> Vec<PartitionId> {
        self.lanes().refused().into_iter().map(PartitionId).collect()
    }

    /// Sends records, and returns their offsets within the delivery timeout.
    pub async fn send<'a>(
        self: &Arc<Self>,
        records: impl ExactSizeIterator<Item = Outgoing<'a>>,
    ) -> Vec<Result<Offset, AppendError>> {
        if let Err(error) = self.available() {
            self.start_probing();
            return vec![Err(error); records.len()];
        }
        let acknowledged_before = self.acknowledged.load(Ordering::Relaxed);
        let batch = Arc::new(Batch::new(records.len()));
        let sent = self.enqueue(records, &batch);

        let _ = tokio::time::timeout(self.config.delivery_timeout, batch.completed()).await;
        let results = batch.take();
        self.judge(&sent, &results, acknowledged_before);
        results
    }

    /// Enqueues records. Returns the partition and the lane of each; `None` if its partition is refused.
    fn enqueue<'a>(
        &self,
        records: impl Iterator<Item = Outgoing<'a>>,
        batch: &Arc<Batch>,
    ) -> Vec<Option<(u32, Lane)>> {
        let enqueue = |(index, record): (usize, Outgoing<'_>)| {
            let partition = record.partition;
            let Some(lane) = self.lanes().lane_of(partition) else {
                let reason = format!("partition {partition} does not respond");
                batch.complete(index, Err(AppendError::Unavailable(reason)));
                return None;
            };
            self.client(lane).load().send(&self.topic, record, batch, index);
            Some((partition, lane))
        };
        records.enumerate().map(enqueue).collect()
    }

    /// Learns from a batch's results which partitions respond.
    fn judge(
        self: &Arc<Self>,
        sent: &[Option<(u32, Lane)>],
        results: &[Result<Offset, AppendError>],
        acknowledged_before: u64,
    ) {
        let mut failed = BTreeMap::new();
        let mut acknowledged = Vec::new();
        for ((partition, lane), result) in
            sent.iter().zip(results).filter_map(|(sent, result)| Some(((*sent)?, result)))
        {
            match result {
                // A sealed topic rejects every record: none of them is still in flight.
                Ok(_) | Err(AppendError::Sealed) => acknowledged.push(partition),
                Err(_) => {
                    failed.insert(partition, lane);
                }
            }
        }
        if !acknowledged.is_empty() {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        let mut lanes = self.lanes();
        for partition in
            acknowledged.into_iter().filter(|partition| !failed.contains_key(partition))
        {
            lanes.acknowledged(partition);
        }
        if failed.is_empty() {
            return;
        }
        let now = Instant::now();
        for (partition, lane) in &failed {
            lanes.failed(*partition, *lane, now);
        }
        let is_concerned = |lane: &Lane| failed.values().any(|of| of == lane);
        let left: Vec<_> =
            Lane::ALL.into_iter().filter(is_concerned).filter(|lane| lanes.leave(*lane)).collect();
        drop(lanes);
        tracing::warn!(
            topic = self.topic,
            partitions = ?failed.keys().collect::<Vec<_>>(),
            "partitions did not acknowledge in time, refusing their records",
        );
        // Nothing was acknowledged for the whole time: it is not only these partitions, until the probe says otherwise.
        if self.acknowledged.load(Ordering::Relaxed) == acknowledged_before {
            self.unavailable.store(true, Ordering::Relaxed);
        }
        left.into_iter().for_each(|lane| self.purge_drained(lane));
        self.start_probing();
    }

    /// Purges a lane once every record that was sent into it is done: after a delivery timeout.
    fn purge_drained(self: &Arc<Self>, lane: Lane) {
        let (this, drained_after) = (Arc::downgrade(self), self.config.delivery_timeout);
        tokio::spawn(async move {
            tokio::time::sleep(drained_after).await;
            let Some(this) = this.upgrade() else { return };
            this.client(lane).load().purge();
            let next = this.lanes().purged();
            next.into_iter().for_each(|lane| this.purge_drained(lane));
        });
    }

    fn client(&self, lane: Lane) -> &ArcSwap<PolledProducer> {
        let [first, second] = &self.clients;
        match lane {
            Lane::First => first,
            Lane::Second => second,
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock()
    }
}

#[cfg(test)]
mod tests;
