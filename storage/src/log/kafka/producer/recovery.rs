//! Recovers the producer: probes Kafka and the leaders of refused partitions, and replaces clients that have failed or
//! stopped.
//!
//! Owns two threads, which run while something does not respond. `kafka-probe` asks Kafka, and may stop together with the
//! client through which it asks. `kafka-replace` sends no request, and replaces such a client, and its probe. Does not
//! decide which partitions are refused: see `lanes`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rdkafka::error::KafkaError;

use super::{IdempotentProducer, PolledProducer};

const PROBE_INTERVAL: Duration = Duration::from_millis(250);
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two checks whether the clients have stopped. Longer than a delivery timeout.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);
/// Partitions whose leaders are probed at the same time: one that does not respond takes the whole timeout.
const MAX_CONCURRENT_PROBES: usize = 16;
/// In place of the number of a probe thread.
pub(super) const NO_PROBE: u64 = 0;

/// Which threads are running.
#[derive(Default)]
pub(super) struct RecoveryThreads {
    /// Number of the probe thread; 0: none is running. A thread with another number has been superseded, and ends.
    current_probe: AtomicU64,
    /// Number of the probe thread that began last.
    last_probe: AtomicU64,
    /// Whether the `kafka-replace` thread is running.
    replacing: AtomicBool,
}

impl IdempotentProducer {
    /// Starts a thread that probes Kafka until Kafka and every refused partition responds, or the producer is dropped.
    pub(super) fn start_probing(self: &Arc<Self>) {
        self.start_probe(NO_PROBE);
    }

    /// Starts a probe thread in place of another one, if that is the current one.
    fn start_probe(self: &Arc<Self>, superseded: u64) {
        let number = self.recovery.last_probe.fetch_add(1, Ordering::AcqRel) + 1;
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
        self.recovery
            .current_probe
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn is_current_probe(&self, number: u64) -> bool {
        self.recovery.current_probe.load(Ordering::Acquire) == number
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
        if self.recovery.replacing.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("kafka-replace".into());
        if let Err(error) = thread.spawn(move || replace_stopped(&this)) {
            tracing::error!(%error, "failed to spawn the thread that replaces stopped kafka clients");
            self.recovery.replacing.store(false, Ordering::Release);
        }
    }

    /// Probes the leaders of the refused partitions that are due, and sends to those that respond. Stops if the probe
    /// with this number is superseded.
    pub(super) fn admit_due(&self, number: u64) {
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
        let probe = producer.recovery.current_probe.load(Ordering::Acquire);
        if probe == NO_PROBE {
            producer.recovery.replacing.store(false, Ordering::Release);
            // A probe that began just now has found this thread.
            if producer.recovery.current_probe.load(Ordering::Acquire) == NO_PROBE
                || producer.recovery.replacing.swap(true, Ordering::AcqRel)
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
