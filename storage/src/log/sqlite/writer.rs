//! The thread that writes: everything that waits goes into one transaction, so one sync serves many callers.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use schemas::{PersonKey, Receipt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use super::appender::{Appender, Write};
use super::tail::Tail;
use crate::log::AppendError;

/// How long a caller waits, for room and for the answer together.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// What all writes that wait may hold in memory.
const WAITING_BYTES: u32 = 64 << 20;
/// A transaction takes no further write once it has this much.
const TRANSACTION_BYTES: u32 = 4 << 20;
/// What a record or letter costs in memory beside its bytes.
const OVERHEAD_BYTES: usize = 128;
/// How often the disk is tried again while it takes nothing.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// The queue to the thread. Dropping it waits for the thread to finish what is in the queue.
pub(super) struct Writer {
    queue: Option<Sender<Request>>,
    room: Arc<Semaphore>,
    health: Arc<Health>,
    thread: Option<JoinHandle<()>>,
}

struct Request {
    write: Write,
    bytes: u32,
    answer: oneshot::Sender<Result<Vec<Receipt>, AppendError>>,
    _room: OwnedSemaphorePermit,
}

/// What the last transaction came to.
#[derive(Default)]
struct Health(Mutex<Option<AppendError>>);

impl Health {
    fn lock(&self) -> MutexGuard<'_, Option<AppendError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    pub fn start(appender: Appender, tail: Arc<Tail>) -> std::io::Result<Self> {
        let (queue, requests) = mpsc::channel();
        let health = Arc::new(Health::default());
        let theirs = Arc::clone(&health);
        let thread = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || Transactions { appender, requests, tail, health: theirs }.run())?;
        let room = Arc::new(Semaphore::new(WAITING_BYTES as usize));
        Ok(Self { queue: Some(queue), room, health, thread: Some(thread) })
    }

    /// Answers once the write is durable, will not be, or may be.
    pub async fn submit(&self, write: Write) -> Result<Vec<Receipt>, AppendError> {
        let unavailable = |reason: &str| AppendError::Unavailable(reason.to_owned());
        let deadline = Instant::now() + ANSWER_WITHIN;
        let bytes = u32::try_from(size_of_write(&write))
            .ok()
            .filter(|bytes| *bytes <= WAITING_BYTES)
            .ok_or_else(|| unavailable("it is more than the log takes at once"))?;
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        let Ok(Ok(room)) = timeout_at(deadline, room).await else {
            return Err(unavailable("too many records are waiting for the disk"));
        };
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(|| unavailable("the log is closed"))?;
        queue
            .send(Request { write, bytes, answer, _room: room })
            .map_err(|_| unavailable("the log's writer has ended"))?;
        match timeout_at(deadline, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(AppendError::Unknown("the log's writer has ended".into())),
            Err(_) => Err(AppendError::Unknown("the disk has not answered in time".into())),
        }
    }

    pub fn available(&self) -> Result<(), AppendError> {
        self.health.lock().clone().map_or(Ok(()), Err)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's writer panicked");
        }
    }
}

fn size_of_write(write: &Write) -> usize {
    match write {
        Write::Records(records) => records
            .iter()
            .map(|(_, record)| OVERHEAD_BYTES + PersonKey::BYTES + record.value.len())
            .sum(),
        Write::Letters(letters) => letters
            .iter()
            .map(|letter| {
                OVERHEAD_BYTES + letter.reason.len() + letter.key.len() + letter.value.len()
            })
            .sum(),
    }
}

struct Transactions {
    appender: Appender,
    requests: Receiver<Request>,
    tail: Arc<Tail>,
    health: Arc<Health>,
}

impl Transactions {
    /// Until the queue is closed and empty.
    fn run(mut self) {
        loop {
            let healthy = self.health.lock().is_none();
            let first = if healthy {
                self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.requests.recv_timeout(PROBE_INTERVAL)
            };
            match first {
                Ok(first) => self.commit_with(first),
                Err(RecvTimeoutError::Timeout) => {
                    let probed = self.appender.probe();
                    self.note(probed.err());
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn commit_with(&mut self, first: Request) {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while bytes < TRANSACTION_BYTES
            && let Ok(request) = self.requests.try_recv()
        {
            bytes = bytes.saturating_add(request.bytes);
            group.push(request);
        }
        // Whoever has given up was not told that it is in the log, so it need not be.
        group.retain(|request| !request.answer.is_closed());
        if group.is_empty() {
            return;
        }
        let outcome = self.appender.commit(group.iter().map(|request| &request.write));
        self.note(outcome.as_ref().err().cloned());
        match outcome {
            Ok(offsets) => {
                self.tail.move_to(self.appender.ends());
                for (request, offsets) in group.into_iter().zip(offsets) {
                    // Who has given up meanwhile has been told that it is unknown.
                    let _ = request.answer.send(Ok(offsets));
                }
            }
            Err(error) => {
                for request in group {
                    let _ = request.answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn note(&self, failure: Option<AppendError>) {
        let mut health = self.health.lock();
        match (&*health, &failure) {
            (None, Some(error)) => tracing::error!(%error, "the log takes no records"),
            (Some(_), None) => tracing::info!("the log takes records again"),
            _ => {}
        }
        *health = failure;
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use rusqlite::Connection;
    use schemas::{LogNumber, Offset, PartitionCount, PartitionId};

    use super::*;
    use crate::log::sqlite::SCHEMA;
    use crate::log::{DeadLetter, NewRecord};
    use crate::sqlite::{Durability, open};

    fn receipt(offset: u64) -> Receipt {
        let (log, partition) = (LogNumber::FIRST, PartitionId(0));
        Receipt { log, partition, offset: Offset(offset) }
    }

    fn letter() -> Write {
        Write::Letters(vec![DeadLetter {
            place: receipt(0),
            reason: "takes room".into(),
            key: Vec::new(),
            value: vec![7; 1 << 20],
        }])
    }

    fn record() -> Write {
        let key = PersonKey::from_bytes([1; PersonKey::BYTES]);
        Write::Records(vec![(PartitionId(0), NewRecord { key, value: vec![7; 10_000] })])
    }

    #[tokio::test]
    async fn after_a_full_disk_service_resumes_by_itself() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let connection = open(&path, &SCHEMA, Durability::PowerLoss).expect("a database");
        connection.pragma_update(None, "max_page_count", 600).expect("a limit");
        let partitions = PartitionCount::new(1).expect("a count");
        let appender = Appender::new(connection, partitions).expect("an appender");
        let tail = Arc::new(Tail::new(appender.ends()));
        let writer = Writer::start(appender, tail).expect("a thread");

        writer.submit(letter()).await.expect("room for the letter");
        let mut taken = 0;
        let refusal = loop {
            match writer.submit(record()).await {
                Ok(_) => taken += 1,
                Err(refusal) => break refusal,
            }
        };
        assert!(matches!(refusal, AppendError::Unavailable(_)), "{refusal}");
        assert_eq!(writer.available(), Err(refusal));

        // Somebody makes room.
        let other = Connection::open(&path).expect("the database");
        other.busy_timeout(Duration::from_secs(5)).expect("a timeout");
        other.execute("DELETE FROM dead_letters", []).expect("room");
        let deadline = Instant::now() + Duration::from_secs(10);
        while writer.available().is_err() {
            assert!(Instant::now() < deadline, "it does not resume");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(writer.submit(record()).await, Ok(vec![receipt(taken)]));
    }
}
