//! A fake dead letter journal, and the log that holds the records' bytes.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::*;
use storage::log::dead_letters::DeadLetterJournalOpener;
use storage::log::{
    AppendError, DeadLetterJournal, DeadLetterMeta, Decision, JournalEntry, LogBounds, LogIdentity,
    LogReader, ReadError, Record, RecordBatch, RecordStream,
};
use storage::open_error::OpenError;
use tokio::sync::{mpsc, watch};

use super::{Switch, partitions};

/// A record's address, key and value.
pub type Stored = (RecordAddress, Vec<u8>, Vec<u8>);

/// A dead letter journal, and the log that holds the records' bytes.
#[derive(Default)]
pub struct FakeDeadLetters {
    pub switch: Switch,
    pub entries: Mutex<Vec<JournalEntry>>,
    /// The log's records.
    pub records: Mutex<Vec<Stored>>,
}

impl FakeDeadLetters {
    /// Appends a dead letter and its record.
    pub fn put(&self, address: &str, reason: &str, value: &[u8]) {
        let (address, key): (RecordAddress, _) = (address.parse().unwrap(), [7; 16]);
        let meta = DeadLetterMeta {
            reason: reason.into(),
            key_bytes: key.len() as u64,
            value_bytes: value.len() as u64,
            appended_at_ms: 1_795_212_000_123,
        };
        self.entries.lock().push(JournalEntry::DeadLetter(address, meta));
        self.records.lock().push((address, key.to_vec(), value.to_vec()));
    }

    pub fn decide(&self, address: &str, decision: Decision) {
        self.entries.lock().push(JournalEntry::Decision(address.parse().unwrap(), decision));
    }
}

/// An open dead letter journal and log.
struct OpenFakeDeadLetters(Arc<FakeDeadLetters>);

#[async_trait]
impl DeadLetterJournalOpener for FakeDeadLetterOpener {
    fn open_dead_letter_journal(&self) -> Result<Arc<dyn DeadLetterJournal>, OpenError> {
        Ok(Arc::new(OpenFakeDeadLetters(Arc::clone(&self.0))))
    }

    async fn open_log_reader(&self, _: &LogRef) -> Result<Arc<dyn LogReader>, OpenError> {
        Ok(Arc::new(OpenFakeDeadLetters(Arc::clone(&self.0))))
    }
}

/// Opens the fake journal and log.
pub struct FakeDeadLetterOpener(pub Arc<FakeDeadLetters>);

#[async_trait]
impl DeadLetterJournal for OpenFakeDeadLetters {
    fn entries(&self) -> mpsc::Receiver<Result<JournalEntry, ReadError>> {
        let (entries, receiver) = mpsc::channel(8);
        let dead_letters = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Err(reason) = dead_letters.switch.pass().await {
                let _ = entries.send(Err(ReadError::Unavailable(reason))).await;
                return;
            }
            let all = dead_letters.entries.lock().clone();
            for entry in all {
                let _ = entries.send(Ok(entry)).await;
            }
        });
        receiver
    }

    async fn decide(&self, _: RecordAddress, _: Decision) -> Result<(), AppendError> {
        panic!("the api decides on no dead letters");
    }
}

#[async_trait]
impl LogReader for OpenFakeDeadLetters {
    fn partitions(&self) -> PartitionCount {
        partitions()
    }

    fn identity(&self) -> LogIdentity {
        LogIdentity { cluster_id: String::new(), topic_id: String::new() }
    }

    async fn bounds(&self, _: PartitionId) -> Result<LogBounds, ReadError> {
        Err(ReadError::Unavailable("the api reads no bounds".into()))
    }

    fn follow(
        &self,
        partition: PartitionId,
        at: Position,
        _: watch::Receiver<Position>,
    ) -> RecordStream {
        let (batches, receiver) = mpsc::channel(1);
        let records = self.0.records.lock();
        let found = records.iter().find(|(address, ..)| {
            (address.partition, Position(address.offset.0)) == (partition, at)
        });
        let answer = match found {
            None => Err(ReadError::Missing(at)),
            Some((address, key, value)) => {
                let mut batch = RecordBatch::new(partition);
                batch.push(Record { offset: address.offset, key, value });
                Ok(batch)
            }
        };
        batches.try_send(answer).unwrap();
        receiver
    }
}
