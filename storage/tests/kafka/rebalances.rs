//! Members of a group: which of them has a partition, and which records it receives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use schemas::{Offset, PartitionId, Position};
use storage::log::kafka::{KafkaConfig, KafkaSource};
use storage::log::{
    BoundsReader, LogSource, LogWriter, PartitionHandler, RecordBatch, Revocation, StartPosition,
};
use tokio_util::sync::CancellationToken;

use crate::support::{config, open, record, until};

/// The offsets that all members have received. Stands for a store that commits every batch.
#[derive(Default)]
struct Received(Mutex<BTreeMap<PartitionId, Vec<Offset>>>);

impl Received {
    fn position(&self, partition: PartitionId) -> Position {
        let received = self.0.lock();
        received
            .get(&partition)
            .and_then(|offsets| offsets.last())
            .map_or(Position::START, |last| last.next())
    }

    fn total(&self) -> usize {
        self.0.lock().values().map(Vec::len).sum()
    }
}

struct Member {
    received: Arc<Received>,
    owned: Mutex<Vec<PartitionId>>,
    starts: Mutex<Vec<(PartitionId, StartPosition)>>,
    /// Refuses all batches, as an owner with a slow store does.
    queue_full: AtomicBool,
}

impl Member {
    fn owns(&self) -> usize {
        self.owned.lock().len()
    }
}

impl PartitionHandler for Member {
    fn assigned(&self, partitions: &[PartitionId], _: &Arc<dyn BoundsReader>) {
        self.owned.lock().extend(partitions);
        let start = |id: &PartitionId| (*id, StartPosition::At(self.received.position(*id)));
        self.starts.lock().extend(partitions.iter().map(start));
    }

    fn take_starts(&self) -> Vec<(PartitionId, StartPosition)> {
        std::mem::take(&mut self.starts.lock())
    }

    fn revoked(&self, partitions: &[PartitionId], _: Revocation) {
        self.owned.lock().retain(|owned| !partitions.contains(owned));
    }

    fn deliver(&self, batch: RecordBatch, _timeout: Duration) -> Result<(), RecordBatch> {
        if self.queue_full.load(Ordering::Relaxed) {
            return Err(batch);
        }
        assert!(
            self.owned.lock().contains(&batch.partition()),
            "a record of a partition that is not owned"
        );
        let mut received = self.received.0.lock();
        received
            .entry(batch.partition())
            .or_default()
            .extend(batch.iter().map(|record| record.offset));
        Ok(())
    }

    fn high_watermark(&self, _: PartitionId, _: Position) {}

    fn read_failed(&self, partition: PartitionId, reason: &str) {
        panic!("partition {partition} could not be read: {reason}");
    }

    fn halt(&self, partition: PartitionId, reason: String) {
        panic!("partition {partition} was halted: {reason}");
    }

    fn committed(&self) -> Vec<(PartitionId, Position)> {
        Vec::new()
    }

    fn wants_to_rejoin(&self) -> bool {
        false
    }
}

struct Joined {
    member: Arc<Member>,
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

async fn join(config: &KafkaConfig, received: &Arc<Received>) -> Joined {
    let mut source = KafkaSource::open(config, &config.first_log()).await.unwrap();
    let member = Arc::new(Member {
        received: Arc::clone(received),
        owned: Mutex::default(),
        starts: Mutex::default(),
        queue_full: AtomicBool::new(false),
    });
    let stop = CancellationToken::new();
    let (handler, token, log) = (Arc::clone(&member), stop.clone(), config.first_log());
    let run = move || source.run(&log, handler.as_ref(), &token).unwrap();
    let thread = std::thread::spawn(run);
    Joined { member, stop, thread }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_partitions_and_each_record_arrives_once_in_order_across_rebalances() {
    const PARTITIONS: u32 = 6;
    const RECORDS: u32 = 3_000;
    let config = config(PARTITIONS.into());
    let log = Arc::new(open(&config).await.unwrap());
    let received = Arc::new(Received::default());
    let first = join(&config, &received).await;
    until("the first member owns all partitions", || first.member.owns() == 6).await;

    let writer = Arc::clone(&log);
    let writing = tokio::spawn(async move {
        for chunk in 0..RECORDS / 30 {
            let records =
                (0..30).map(|i| record(i % PARTITIONS, PARTITIONS, chunk * 30 + i)).collect();
            assert!(writer.append(records).await.iter().all(Result::is_ok));
        }
    });
    let second = join(&config, &received).await;
    until("the second member owns its half", || second.member.owns() == 3).await;
    first.stop.cancel();
    first.thread.join().unwrap();
    until("the second member owns all partitions", || second.member.owns() == 6).await;
    writing.await.unwrap();
    until("all records have arrived", || received.total() >= RECORDS as usize).await;
    second.stop.cancel();
    second.thread.join().unwrap();

    for (partition, offsets) in &*received.0.lock() {
        let dense: Vec<Offset> = (0..u64::from(RECORDS / PARTITIONS)).map(Offset).collect();
        assert_eq!(*offsets, dense, "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_paused_when_revoked_is_read_after_reassignment() {
    const PARTITIONS: u32 = 4;
    let config = config(PARTITIONS.into());
    let log = open(&config).await.unwrap();
    let fill = async |numbers: std::ops::Range<u32>| {
        let records =
            numbers.map(|number| record(number % PARTITIONS, PARTITIONS, number)).collect();
        assert!(log.append(records).await.iter().all(Result::is_ok));
    };
    let received = Arc::new(Received::default());
    let first = join(&config, &received).await;
    until("the first member owns all partitions", || first.member.owns() == 4).await;
    first.member.queue_full.store(true, Ordering::Relaxed);
    fill(0..400).await;
    let second = join(&config, &received).await;
    until("the second member owns its half", || second.member.owns() == 2).await;
    until("the second member has read its half", || received.total() == 200).await;
    first.member.queue_full.store(false, Ordering::Relaxed);
    second.stop.cancel();
    second.thread.join().unwrap();
    until("the first member owns all partitions again", || first.member.owns() == 4).await;
    fill(400..800).await;
    until("all records have arrived", || received.total() == 800).await;
    first.stop.cancel();
    first.thread.join().unwrap();
}
