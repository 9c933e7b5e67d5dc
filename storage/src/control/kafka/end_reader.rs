//! Reads the control topic to its end on request, in a thread of its own.
//!
//! The broker says where the committed records end. If the end has not moved since the last read, nothing has been
//! committed since. Otherwise the whole topic is read again, which is small and compacted. A read counts only if it has
//! reached that end ([`committed_end`]). All requests that wait share one read.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult};
use tokio::sync::{mpsc, oneshot};

use super::client_context::QuietContext;
use super::record::ControlRecord;
use super::{committed_end, consumers};
use crate::control::{CONFIRMATION_TIMEOUT, Catalog, ControlTopicError};
use crate::log::kafka::KafkaConfig;

/// Timeout of reading the topic with a new client. What is read after the requests have timed out serves the next ones.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Failures in a row after which the client is replaced: a new client looks its brokers up again.
const MAX_FAILURES: u32 = 3;
/// Requests that wait for the thread; more wait outside.
const MAX_WAITING_REQUESTS: usize = 1_024;

/// Longest read before its thread counts as stuck. All timeouts of librdkafka are shorter, unless the machine's clock, by
/// which it waits, went back.
const READ_STUCK_AFTER: Duration = Duration::from_secs(20);

type Confirmation = Result<Arc<Catalog>, ControlTopicError>;

/// Sends requests to a thread, which ends once this is dropped. A thread that is stuck is replaced.
pub(super) struct EndReader {
    config: KafkaConfig,
    reader: Mutex<ReaderHandle>,
}

struct ReaderHandle {
    requests: mpsc::Sender<oneshot::Sender<Confirmation>>,
    /// When the current read began; `None` while idle.
    reading_since: Arc<Mutex<Option<Instant>>>,
}

impl EndReader {
    /// Starts the thread. Kafka is not asked before the first request.
    pub fn start(config: KafkaConfig) -> std::io::Result<Self> {
        let reader = Mutex::new(ReaderHandle::start(config.clone())?);
        Ok(Self { config, reader })
    }

    /// Returns the definitions as of a moment after this call.
    pub async fn read(&self) -> Confirmation {
        let requests = self.requests().map_err(unavailable)?;
        let (request, confirmation) = oneshot::channel();
        let read = async {
            requests.send(request).await.ok()?;
            confirmation.await.ok()
        };
        // Includes the time until the thread takes the request.
        let read = tokio::time::timeout(CONFIRMATION_TIMEOUT, read).await;
        read.ok().flatten().unwrap_or_else(|| Err(unavailable("no answer in time")))
    }

    /// Returns the queue of a thread that is not stuck.
    fn requests(&self) -> std::io::Result<mpsc::Sender<oneshot::Sender<Confirmation>>> {
        let mut reader = self.reader.lock();
        if reader.is_stuck(Instant::now()) {
            *reader = ReaderHandle::start(self.config.clone())?;
            tracing::warn!("replaced the reader of the control topic's end, which was stuck");
        }
        Ok(reader.requests.clone())
    }
}

impl ReaderHandle {
    fn start(config: KafkaConfig) -> std::io::Result<Self> {
        let (requests, mut waiting) = mpsc::channel(MAX_WAITING_REQUESTS);
        let reading_since = Arc::new(Mutex::new(None));
        let reading = Arc::clone(&reading_since);
        let set_reading_since = move |since| *reading.lock() = since;
        std::thread::Builder::new().name("control-end".into()).spawn(move || {
            let mut reader = Reader { config, client: None, failures: 0, last: None };
            while let Some(first) = waiting.blocking_recv() {
                set_reading_since(Some(Instant::now()));
                reader.answer(first, &mut waiting);
                set_reading_since(None);
            }
        })?;
        Ok(Self { requests, reading_since })
    }

    fn is_stuck(&self, now: Instant) -> bool {
        let since = *self.reading_since.lock();
        since.is_some_and(|since| now.saturating_duration_since(since) > READ_STUCK_AFTER)
    }
}

fn unavailable(reason: impl ToString) -> ControlTopicError {
    ControlTopicError::Unavailable(reason.to_string())
}

struct Reader {
    config: KafkaConfig,
    /// The client that asks where the topic ends.
    client: Option<BaseConsumer<QuietContext>>,
    /// Failures since the last success.
    failures: u32,
    /// The last read: the topic's end, and the definitions below it.
    last: Option<(i64, Arc<Catalog>)>,
}

impl Reader {
    /// Answers a request, and those that wait behind it: all were made before the read begins.
    fn answer(
        &mut self,
        first: oneshot::Sender<Confirmation>,
        waiting: &mut mpsc::Receiver<oneshot::Sender<Confirmation>>,
    ) {
        let mut requests = vec![first];
        while let Ok(request) = waiting.try_recv() {
            requests.push(request);
        }
        // Nobody waits any more: do not spend seconds on an unreachable Kafka.
        requests.retain(|request| !request.is_closed());
        if requests.is_empty() {
            return;
        }
        let read = self.read_end().map_err(|error| {
            tracing::debug!(%error, "failed to read the end of the control topic");
            self.failures += 1;
            if self.failures >= MAX_FAILURES {
                (self.client, self.failures) = (None, 0);
            }
            unavailable(error)
        });
        for request in requests {
            // The request may have timed out.
            let _ = request.send(read.clone());
        }
    }

    fn read_end(&mut self) -> KafkaResult<Arc<Catalog>> {
        let client = match self.client.take() {
            Some(client) => client,
            None => consumers::idle(&self.config)?,
        };
        let client = self.client.insert(client);
        // Serves the client's events; it consumes nothing.
        let _ = client.poll(Duration::ZERO);
        let offsets = committed_end::fetch_offsets(client, &self.config)?;
        self.failures = 0;
        match &self.last {
            Some((last, catalog)) if *last == offsets.end => return Ok(Arc::clone(catalog)),
            // The topic has lost records that were committed.
            Some((last, _)) if *last > offsets.end => return Err(KafkaError::Canceled),
            _ => {}
        }
        let deadline = Instant::now() + READ_TIMEOUT;
        let catalog = Arc::new(read_definitions(&self.config, &offsets, deadline)?);
        self.last = Some((offsets.end, Arc::clone(&catalog)));
        Ok(catalog)
    }
}

/// Reads all committed definitions of a topic whose records have these offsets, some of which may be compacted away.
fn read_definitions(
    config: &KafkaConfig,
    offsets: &Range<i64>,
    deadline: Instant,
) -> KafkaResult<Catalog> {
    let consumer = consumers::from_start(config)?;
    let mut catalog = Catalog::default();
    committed_end::read_until(&consumer, offsets, deadline, |record| {
        if let ControlRecord::Budget(id, stored) = record {
            catalog = catalog.with_stored(&id, *stored);
        }
    })?;
    Ok(catalog)
}
