//! The log in memory, which fails on demand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use schemas::{
    LogNumber, Offset, PartitionCount, PartitionId, RecordAddress, RecordDecoder, partition_for,
};
use storage::log::{AppendError, LogWriter, NewRecord};
use tokio::sync::Notify;

use super::PARTITIONS;

/// How the fake log responds to appends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogMode {
    /// Appends succeed.
    #[default]
    Accepts,
    /// The log reports itself as unavailable.
    Unavailable,
    /// The log reports itself as available, and every append fails.
    RejectsAppends,
    /// Appends succeed, but the writer reports an unknown outcome.
    OutcomeUnknown,
}

#[derive(Default)]
pub struct FakeLog {
    pub mode: Mutex<LogMode>,
    pub records: Mutex<Vec<NewRecord>>,
    /// While set, appends wait for `resume`.
    pub paused: AtomicBool,
    pub waiting_appends: AtomicUsize,
    pub resume: Notify,
    /// Whether the log recognises submission ids, as the embedded log does.
    pub knows_ids: AtomicBool,
}

fn partition_of(record: &NewRecord) -> PartitionId {
    partition_for(&record.key, PartitionCount::new(PARTITIONS).unwrap())
}

impl FakeLog {
    pub fn set_mode(&self, mode: LogMode) {
        *self.mode.lock() = mode;
    }

    fn unavailable() -> AppendError {
        AppendError::Unavailable("injected fault".into())
    }

    /// Returns why a record is not appended if an earlier one has its submission id.
    fn known(&self, record: &NewRecord) -> Option<AppendError> {
        let (mut decoder, mut earlier) = (RecordDecoder::default(), RecordDecoder::default());
        let view = decoder.decode(record.key.as_bytes(), &record.value).ok()?;
        let log = self.records.lock();
        let mut offsets = HashMap::new();
        for other in log.iter() {
            let partition = partition_of(other);
            let offset = offsets.entry(partition.0).or_insert(0_u64);
            let address =
                RecordAddress { log: LogNumber::FIRST, partition, offset: Offset(*offset) };
            *offset += 1;
            let other = earlier.decode(other.key.as_bytes(), &other.value).ok()?;
            if other.person == view.person && other.submission_id == view.submission_id {
                return Some(match other.submission_digest() == view.submission_digest() {
                    true => AppendError::Repeated(address),
                    false => AppendError::IdReused,
                });
            }
        }
        None
    }
}

#[async_trait]
impl LogWriter for FakeLog {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<RecordAddress, AppendError>> {
        if self.paused.load(Ordering::SeqCst) {
            self.waiting_appends.fetch_add(1, Ordering::SeqCst);
            self.resume.notified().await;
        }
        let mode = *self.mode.lock();
        let mut log = self.records.lock();
        records
            .into_iter()
            .map(|record| {
                let partition = partition_of(&record);
                let offset =
                    log.iter().filter(|record| partition_of(record) == partition).count() as u64;
                let receipt =
                    RecordAddress { log: LogNumber::FIRST, partition, offset: Offset(offset) };
                match mode {
                    LogMode::Unavailable | LogMode::RejectsAppends => {
                        return Err(Self::unavailable());
                    }
                    LogMode::Accepts | LogMode::OutcomeUnknown => log.push(record),
                }
                match mode {
                    LogMode::OutcomeUnknown => Err(AppendError::Unknown("injected fault".into())),
                    _ => Ok(receipt),
                }
            })
            .collect()
    }

    async fn append_once_per_id(
        &self,
        records: Vec<NewRecord>,
    ) -> Vec<Result<RecordAddress, AppendError>> {
        if !self.knows_ids.load(Ordering::SeqCst) {
            return self.append(records).await;
        }
        let mut results = Vec::new();
        for record in records {
            results.push(match self.known(&record) {
                Some(known) => Err(known),
                None => self.append(vec![record]).await.remove(0),
            });
        }
        results
    }

    fn available(&self) -> Result<(), AppendError> {
        match *self.mode.lock() {
            LogMode::Unavailable => Err(Self::unavailable()),
            _ => Ok(()),
        }
    }
}
