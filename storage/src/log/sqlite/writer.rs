//! The writer thread. Commits all waiting requests in one transaction, so that one sync serves many callers.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use schemas::PersonKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use super::appender::{Appended, SqliteAppender, Write};
use super::tail::Tail;
use crate::log::AppendError;

/// How long a caller waits, for queue capacity and for the result together.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bounds the memory of all waiting requests.
const MAX_QUEUED_BYTES: u32 = 64 << 20;
/// A transaction accepts no further request beyond this size.
const MAX_TRANSACTION_BYTES: u32 = 4 << 20;
/// Memory of a record or dead letter in addition to its bytes.
const OVERHEAD_BYTES: usize = 128;
/// How often the disk is probed after a failed transaction.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// Sends requests to the writer thread. Dropping it waits until the thread has handled the queue.
pub(super) struct Writer {
    queue: Option<Sender<Request>>,
    byte_permits: Arc<Semaphore>,
    health: Arc<Health>,
    thread: Option<JoinHandle<()>>,
}

struct Request {
    write: Write,
    bytes: u32,
    result: oneshot::Sender<Result<Appended, AppendError>>,
    _byte_permits: OwnedSemaphorePermit,
}

/// Why records cannot be appended: the last transaction's error, or that the log is full.
#[derive(Default)]
struct Health(Mutex<Option<AppendError>>);

impl Writer {
    pub fn start(appender: SqliteAppender, tail: Arc<Tail>) -> std::io::Result<Self> {
        let (queue, requests) = mpsc::channel();
        let health = Arc::new(Health::default());
        let thread_health = Arc::clone(&health);
        let thread = std::thread::Builder::new().name("log-writer".into()).spawn(move || {
            WriterThread { appender, requests, tail, health: thread_health }.run()
        })?;
        let byte_permits = Arc::new(Semaphore::new(MAX_QUEUED_BYTES as usize));
        Ok(Self { queue: Some(queue), byte_permits, health, thread: Some(thread) })
    }

    /// Submits a write, and returns once it is durable, has failed, or its outcome is unknown.
    pub async fn submit(&self, write: Write) -> Result<Appended, AppendError> {
        let unavailable = |reason: &str| AppendError::Unavailable(reason.to_owned());
        let deadline = Instant::now() + SUBMIT_TIMEOUT;
        let bytes = u32::try_from(size_of_write(&write))
            .ok()
            .filter(|bytes| *bytes <= MAX_QUEUED_BYTES)
            .ok_or_else(|| unavailable("the write exceeds the writer's queue"))?;
        let permits = Arc::clone(&self.byte_permits).acquire_many_owned(bytes);
        let Ok(Ok(permits)) = timeout_at(deadline, permits).await else {
            return Err(unavailable("the writer's queue is full"));
        };
        let (result, receiver) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(|| unavailable("the log is closed"))?;
        queue
            .send(Request { write, bytes, result, _byte_permits: permits })
            .map_err(|_| unavailable("the log's writer thread has ended"))?;
        match timeout_at(deadline, receiver).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(AppendError::Unknown("the log's writer thread has ended".into())),
            Err(_) => Err(AppendError::Unknown("the disk write timed out".into())),
        }
    }

    pub fn available(&self) -> Result<(), AppendError> {
        self.health.0.lock().clone().map_or(Ok(()), Err)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("log writer thread panicked");
        }
    }
}

fn size_of_write(write: &Write) -> usize {
    match write {
        Write::Records(records) | Write::Submissions(records) => records
            .iter()
            .map(|(_, record)| OVERHEAD_BYTES + PersonKey::BYTES + record.value.len())
            .sum(),
        Write::DeadLetters(dead_letters) => dead_letters
            .iter()
            .map(|dead_letter| {
                OVERHEAD_BYTES
                    + dead_letter.reason.len()
                    + dead_letter.key.len()
                    + dead_letter.value.len()
            })
            .sum(),
    }
}

struct WriterThread {
    appender: SqliteAppender,
    requests: Receiver<Request>,
    tail: Arc<Tail>,
    health: Arc<Health>,
}

impl WriterThread {
    /// Handles requests until the queue is closed and empty.
    fn run(mut self) {
        loop {
            let healthy = self.health.0.lock().is_none();
            let first = if healthy {
                self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.requests.recv_timeout(PROBE_INTERVAL)
            };
            match first {
                Ok(first) => self.commit_with(first),
                Err(RecvTimeoutError::Timeout) => {
                    let probed = self.appender.probe();
                    self.set_health(probed.err());
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn commit_with(&mut self, first: Request) {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while bytes < MAX_TRANSACTION_BYTES
            && let Ok(request) = self.requests.try_recv()
        {
            bytes = bytes.saturating_add(request.bytes);
            group.push(request);
        }
        // A caller that timed out got an unknown outcome, so its write need not be committed.
        group.retain(|request| !request.result.is_closed());
        if group.is_empty() {
            return;
        }
        let outcome = self.appender.commit(group.iter().map(|request| &request.write));
        let failure = outcome.as_ref().err().cloned();
        self.set_health(failure.or_else(|| self.appender.check_size().err()));
        match outcome {
            Ok(appended) => {
                self.tail.advance(self.appender.ends());
                for (request, appended) in group.into_iter().zip(appended) {
                    // The send fails only for a caller that timed out and returned an unknown outcome.
                    let _ = request.result.send(Ok(appended));
                }
            }
            Err(error) => {
                for request in group {
                    let _ = request.result.send(Err(error.clone()));
                }
            }
        }
    }

    fn set_health(&self, failure: Option<AppendError>) {
        let mut health = self.health.0.lock();
        match (&*health, &failure) {
            (None, Some(error)) => tracing::error!(%error, "log became unavailable for appends"),
            (Some(_), None) => tracing::info!("log is available for appends again"),
            _ => {}
        }
        *health = failure;
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use rusqlite::Connection;
    use schemas::{LogNumber, Offset, PartitionCount, PartitionId, RecordAddress};

    use super::*;
    use crate::log::sqlite::SCHEMA;
    use crate::log::{DeadLetter, NewRecord};
    use crate::sqlite::{Durability, open};

    fn receipt(offset: u64) -> RecordAddress {
        let (log, partition) = (LogNumber::FIRST, PartitionId(0));
        RecordAddress { log, partition, offset: Offset(offset) }
    }

    /// A dead letter of 1 MiB.
    fn dead_letter() -> Write {
        Write::DeadLetters(vec![DeadLetter {
            source: receipt(0),
            reason: "fills the disk".into(),
            key: Vec::new(),
            value: vec![7; 1 << 20],
        }])
    }

    fn record() -> Write {
        let key = PersonKey::from_bytes([1; PersonKey::BYTES]);
        Write::Records(vec![(PartitionId(0), NewRecord { key, value: vec![7; 10_000] })])
    }

    #[tokio::test]
    async fn appends_resume_once_a_full_disk_has_space_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let connection = open(&path, &SCHEMA, Durability::PowerLoss).expect("a database");
        connection.pragma_update(None, "max_page_count", 600).expect("a limit");
        let partitions = PartitionCount::new(1).expect("a count");
        let appender = SqliteAppender::new(connection, partitions).expect("an appender");
        let tail = Arc::new(Tail::new(appender.ends()));
        let writer = Writer::start(appender, tail).expect("a thread");

        writer.submit(dead_letter()).await.expect("space for the dead letter");
        let mut next = 0;
        let error = loop {
            match writer.submit(record()).await {
                Ok(_) => next += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, AppendError::Unavailable(_)), "{error}");
        assert_eq!(writer.available(), Err(error));

        // Another connection frees space.
        let other = Connection::open(&path).expect("the database");
        other.busy_timeout(Duration::from_secs(5)).expect("a timeout");
        other.execute("DELETE FROM dead_letters", []).expect("a delete");
        let deadline = Instant::now() + Duration::from_secs(10);
        while writer.available().is_err() {
            assert!(Instant::now() < deadline, "the writer did not recover");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(writer.submit(record()).await, Ok(vec![Ok(receipt(next))]));
    }
}
