//! Keeps folding a partition that the group has moved to another member, until that member has claimed it. The next
//! owner reads the people meanwhile, so the partition is without an owner only from the claim to the first new record.
//!
//! The group no longer delivers the records here: they are read from the log, with one client for all partitions. The
//! epoch decides who owns the partition, as always: the next claim fences this owner.

use std::sync::Arc;
use std::time::Duration;

use schemas::{LogRef, Position};
use storage::log::{LogReaderOpener, LogTail, RecordBatch};
use storage::store::{Checkpoints, Epoch, PartitionRef};
use tokio::sync::{Mutex, mpsc};
use tokio::time::sleep;

use crate::partition::PartitionProgress;

/// Longest time that the next owner has for reading the people. Afterwards the partition is released.
pub(super) const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval of looking for the next claim, on which the process waits before it ends.
const EPOCH_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Why a hand-over ended. The owner may also have ended first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HandOverEnd {
    /// The next owner has claimed the partition.
    Claimed,
    /// Nobody has claimed it in time.
    TimedOut,
    /// Its records cannot be read.
    NotRead(String),
}

impl HandOverEnd {
    /// The label of the metric.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::TimedOut => "timed_out",
            Self::NotRead(_) => "not_read",
        }
    }
}

/// The log's tail for all hand-overs of this process, opened by the first one.
pub(super) struct HandOverTail {
    opener: Arc<dyn LogReaderOpener>,
    opened: Mutex<Option<(LogRef, Arc<dyn LogTail>)>>,
}

impl HandOverTail {
    pub fn new(opener: Arc<dyn LogReaderOpener>) -> Self {
        Self { opener, opened: Mutex::default() }
    }

    async fn get(&self, log: &LogRef) -> Result<Arc<dyn LogTail>, String> {
        let mut opened = self.opened.lock().await;
        if let Some((of, tail)) = &*opened
            && of == log
        {
            return Ok(Arc::clone(tail));
        }
        let tail = self.opener.open_tail(log).await.map_err(|error| error.to_string())?;
        *opened = Some((log.clone(), Arc::clone(&tail)));
        Ok(tail)
    }
}

/// An owner whose partition is moved.
pub(super) struct HandOver {
    pub id: PartitionRef,
    pub epoch: Epoch,
    /// The position at the claim, and where reading was resumed for it.
    pub claimed_at: Position,
    pub resumed_at: Position,
    pub log: LogRef,
    pub progress: Arc<PartitionProgress>,
    /// The owner's queue.
    pub records: mpsc::Sender<RecordBatch>,
}

impl HandOver {
    /// Feeds the owner until the next owner has claimed the partition, or it takes too long.
    pub async fn feed_until_claimed(
        self,
        store: &dyn Checkpoints,
        tail: &HandOverTail,
    ) -> HandOverEnd {
        tokio::select! {
            biased;
            () = self.next_claim(store) => HandOverEnd::Claimed,
            reason = self.feed(tail) => HandOverEnd::NotRead(reason),
            () = sleep(HAND_OVER_TIMEOUT) => HandOverEnd::TimedOut,
        }
    }

    /// Waits until a later epoch is stored. An owner without new records would not be fenced.
    async fn next_claim(&self, store: &dyn Checkpoints) {
        loop {
            sleep(EPOCH_POLL_INTERVAL).await;
            // An unavailable store does not say that the partition is claimed.
            let Ok(stored) = store.epoch(self.id).await else { continue };
            if stored.is_none_or(|epoch| epoch > self.epoch) {
                return;
            }
        }
    }

    /// Feeds the owner the log's records. Returns why it cannot be read further.
    async fn feed(&self, tail: &HandOverTail) -> String {
        let tail = match tail.get(&self.log).await {
            Ok(tail) => tail,
            Err(reason) => return reason,
        };
        // The owner skips the records that it has read already. Before its first commit it may still replay.
        let committed = self.progress.committed();
        let from = if committed > self.claimed_at { committed } else { self.resumed_at };
        let mut batches = tail.follow(self.id.partition, from);
        while let Some(batch) = batches.recv().await {
            match batch {
                Ok(batch) => {
                    if let Some(end) = batch.end() {
                        self.progress.set_high(end);
                    }
                    if self.records.send(batch).await.is_err() {
                        return "its owner has ended".into();
                    }
                }
                Err(error) => return error.to_string(),
            }
        }
        "the record stream ended".into()
    }
}
