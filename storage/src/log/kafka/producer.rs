//! The idempotent producer: sends batches of records, and returns one result per record within a bound.
//!
//! Owns the behaviour while Kafka, or one partition's leader, is unavailable: the first batches wait for the delivery
//! timeout, then records fail at once until a probe succeeds. One slow partition fails alone. Does not know what the
//! records mean.
//!
//! **A record whose batch has timed out is not sent again for longer than another delivery timeout.** If librdkafka
//! timed a record out by itself, it would start a new producer epoch and resend its other records under that epoch, and
//! the broker could no longer detect those that it has already as duplicates. So librdkafka's own timeout is too long
//! to be reached, and the unacknowledged records are purged from librdkafka. A purge takes all records of a client
//! along: those of other partitions go through a second client before (see `lanes`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rdkafka::error::KafkaError;
use schemas::{Offset, PartitionId};

use super::KafkaConfig;
use super::lanes::{Lane, Lanes};
use super::polled_producer::{Batch, PolledProducer};
use super::topic_error::TopicError;
use crate::log::AppendError;

pub(crate) use super::polled_producer::Outgoing;

const PROBE_INTERVAL: Duration = Duration::from_millis(250);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two checks whether the clients have stopped. Longer than a delivery timeout.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);
/// Partitions whose leaders are probed at the same time: one that does not respond takes the whole timeout.
const MAX_CONCURRENT_PROBES: usize = 16;
/// In place of the number of a probe thread.
const NO_PROBE: u64 = 0;

pub(crate) struct IdempotentProducer {
    config: KafkaConfig,
    topic: String,
    /// The client of each lane. Replaced after a fatal error, and once it has stopped.
    clients: [ArcSwap<PolledProducer>; 2],
    lanes: Mutex<Lanes>,
    /// Kafka as a whole does not respond.
    unavailable: AtomicBool,
    /// Number of the probe thread; 0: none runs. A thread with another number has been superseded, and ends.
    current_probe: AtomicU64,
    /// Number of the probe thread that began last.
    last_probe: AtomicU64,
    /// Whether the `kafka-replace` thread is running.
    replacing: AtomicBool,
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
            current_probe: AtomicU64::new(0),
            last_probe: AtomicU64::new(0),
            replacing: AtomicBool::new(false),
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

    /// Starts a thread that probes Kafka until Kafka and every refused partition responds, or the producer is dropped.
    fn start_probing(self: &Arc<Self>) {
        self.start_probe(NO_PROBE);
    }

    /// Starts a probe thread in place of another one, if that is the current one.
    fn start_probe(self: &Arc<Self>, superseded: u64) {
        let number = self.last_probe.fetch_add(1, Ordering::AcqRel) + 1;
        if !self.change_probe(superseded, number) {
            return;
        }
        self.start_replacing();
        let this = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("kafka-probe".into());
        if let Err(error) = thread.spawn(move || probe(&this, number)) {
            tracing::error!(%error, "failed to spawn the kafka probe thread");
            self.change_probe(number, NO_PROBE);
            // The next batches take the place of the probe: without either, appends would never resume.
            self.unavailable.store(false, Ordering::Relaxed);
            let now = Instant::now();
            let mut lanes = self.lanes();
            for partition in lanes.refused() {
                lanes.probed(partition, true, now);
            }
        }
    }

    /// Makes another probe the current one. Returns whether `from` was.
    fn change_probe(&self, from: u64, to: u64) -> bool {
        self.current_probe.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn is_current_probe(&self, number: u64) -> bool {
        self.current_probe.load(Ordering::Acquire) == number
    }

    /// Replaces clients that have failed fatally, and sends a request to Kafka.
    fn recover(&self) -> Result<(), KafkaError> {
        for client in self.clients.iter().filter(|client| client.load().has_failed()) {
            self.replace(client)?;
        }
        let client = self.client(self.lanes().current()).load_full();
        client.client().fetch_metadata(Some(&self.topic), PROBE_TIMEOUT).map(|_| ())
    }

    /// Replaces a client, and returns the former one.
    fn replace(&self, client: &ArcSwap<PolledProducer>) -> Result<Arc<PolledProducer>, KafkaError> {
        let former = client.swap(Arc::new(PolledProducer::start(&self.config)?));
        // A stopped client that resumes must not send anything.
        former.purge();
        tracing::warn!(topic = self.topic, "replaced a kafka client that had failed or stopped");
        Ok(former)
    }

    /// Starts a thread that replaces stopped clients while Kafka is probed: the probe may have stopped with them.
    fn start_replacing(self: &Arc<Self>) {
        if self.replacing.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("kafka-replace".into());
        if let Err(error) = thread.spawn(move || replace_stopped(&this)) {
            tracing::error!(%error, "failed to spawn the thread that replaces stopped kafka clients");
            self.replacing.store(false, Ordering::Release);
        }
    }

    /// Probes the leaders of the refused partitions that are due, and sends to those that respond. Stops if the probe
    /// with this number is superseded.
    fn admit_due(&self, number: u64) {
        let due = self.lanes().due(Instant::now());
        for some in due.chunks(MAX_CONCURRENT_PROBES) {
            if !self.is_current_probe(number) {
                return;
            }
            std::thread::scope(|scope| {
                for partition in some.iter().copied() {
                    let probe = move || {
                        let responds = self.leader_responds(partition);
                        let mut lanes = self.lanes();
                        if self.is_current_probe(number) {
                            lanes.probed(partition, responds, Instant::now());
                        }
                    };
                    let thread = std::thread::Builder::new().name("kafka-probe".into());
                    if thread.spawn_scoped(scope, probe).is_err() {
                        probe();
                    }
                }
            });
        }
    }

    fn has_recovered(&self) -> bool {
        !self.unavailable.load(Ordering::Relaxed) && self.lanes().refused().is_empty()
    }

    fn leader_responds(&self, partition: u32) -> bool {
        let client = self.client(self.lanes().current()).load_full();
        let probed = client.client().fetch_watermarks(&self.topic, partition as i32, PROBE_TIMEOUT);
        match probed {
            Ok(_) => {
                tracing::info!(topic = self.topic, partition, "partition leader responds again")
            }
            Err(ref error) => {
                tracing::warn!(topic = self.topic, partition, %error, "partition leader does not respond");
            }
        }
        probed.is_ok()
    }

    fn client(&self, lane: Lane) -> &ArcSwap<PolledProducer> {
        let [first, second] = &self.clients;
        match lane {
            Lane::First => first,
            Lane::Second => second,
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn probe(producer: &Weak<IdempotentProducer>, number: u64) {
    while let Some(producer) = producer.upgrade() {
        let recovered = producer.recover();
        if !producer.is_current_probe(number) {
            return;
        }
        match recovered {
            Ok(()) => {
                if producer.unavailable.swap(false, Ordering::Relaxed) {
                    tracing::info!(topic = producer.topic, "kafka producer is available again");
                }
                producer.admit_due(number);
                if !producer.change_probe(number, NO_PROBE) {
                    return;
                }
                // What has failed since then starts a probe, or finds this one.
                if producer.has_recovered() || !producer.change_probe(NO_PROBE, number) {
                    return;
                }
                // The thread that replaces clients may have found no probe meanwhile, and ended.
                producer.start_replacing();
            }
            Err(error) => {
                // The probe may have reached the one slow broker: only records show that Kafka does not respond at all.
                let retry_in_ms = PROBE_INTERVAL.as_millis() as u64;
                tracing::warn!(%error, topic = producer.topic, retry_in_ms, "kafka probe failed, retrying");
            }
        }
        drop(producer);
        std::thread::sleep(PROBE_INTERVAL);
    }
}

/// Replaces a client that was found stopped in two consecutive checks, while Kafka is probed. Waits by the monotonic clock
/// alone.
fn replace_stopped(producer: &Weak<IdempotentProducer>) {
    let mut stopped_before = [false; 2];
    let mut replaced: Vec<Arc<PolledProducer>> = Vec::new();
    while let Some(producer) = producer.upgrade() {
        // Records that were enqueued just before the replacement.
        replaced.drain(..).for_each(|former| former.purge());
        let probe = producer.current_probe.load(Ordering::Acquire);
        if probe == NO_PROBE {
            producer.replacing.store(false, Ordering::Release);
            // A probe that began just now has found this thread.
            if producer.current_probe.load(Ordering::Acquire) == NO_PROBE
                || producer.replacing.swap(true, Ordering::AcqRel)
            {
                return;
            }
        }
        let stopped_now = producer.clients.each_ref().map(|client| client.load().has_stopped());
        let both = stopped_before.into_iter().zip(stopped_now).map(|(before, now)| before && now);
        for (client, _) in producer.clients.iter().zip(both).filter(|(_, has_stopped)| *has_stopped)
        {
            match producer.replace(client) {
                Ok(former) => replaced.push(former),
                Err(error) => {
                    tracing::warn!(%error, topic = producer.topic, "failed to replace a kafka client, retrying");
                }
            }
        }
        // The probe may wait for what was replaced.
        if !replaced.is_empty() {
            producer.start_probe(probe);
        }
        stopped_before = stopped_now;
        drop(producer);
        std::thread::sleep(REPLACE_INTERVAL);
    }
}

#[cfg(test)]
mod tests;
