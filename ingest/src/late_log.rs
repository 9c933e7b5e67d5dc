//! A log that may be away when the process starts: until it is there, nothing can be appended, and every submission is
//! answered at once with that.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use schemas::{Offset, PartitionCount};
use storage::log::{AppendError, LogWriter, NewRecord};

/// A log that is opened later.
pub struct LateLog {
    partitions: PartitionCount,
    opened: OnceLock<Arc<dyn LogWriter>>,
}

impl LateLog {
    /// Of so many partitions, and not there yet.
    pub fn new(partitions: PartitionCount) -> Self {
        Self { partitions, opened: OnceLock::new() }
    }

    /// It is there. Only the first one counts.
    pub fn set(&self, log: Arc<dyn LogWriter>) {
        let _ = self.opened.set(log);
    }

    fn log(&self) -> Result<&Arc<dyn LogWriter>, AppendError> {
        self.opened.get().ok_or_else(|| AppendError::Unavailable("it is not there yet".to_owned()))
    }
}

#[async_trait]
impl LogWriter for LateLog {
    fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Offset, AppendError>> {
        match self.log() {
            Ok(log) => log.append(records).await,
            Err(error) => records.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    fn available(&self) -> Result<(), AppendError> {
        self.log()?.available()
    }
}
