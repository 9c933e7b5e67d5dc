//! Reads the control topic to its end on request, in a thread of its own.
//!
//! The broker says where the committed records end; if that has not moved since the last read, nothing has been committed
//! since. Otherwise the whole topic is read again, which is small and compacted. All requests that wait share one read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use tokio::sync::{mpsc, oneshot};

use super::follower::{self, ControlRecord};
use super::{POLL_INTERVAL, QuietContext};
use crate::control::{Catalog, DefinitionError};
use crate::log::kafka::KafkaConfig;

/// Timeout of a request, including the time until the thread takes it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
/// Timeout of the broker's answer.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout of reading the topic with a new client. What is read after the requests have timed out serves the next ones.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Failures in a row after which the client is replaced: another one finds its brokers anew.
const MAX_FAILURES: u32 = 3;
/// How long a read counts as long as the topic's end stays the same. A broker that has just become the leader may have
/// served less than the end.
const MAX_CATALOG_AGE: Duration = Duration::from_secs(5);
/// Requests that wait for the thread; more wait outside.
const MAX_WAITING_REQUESTS: usize = 1_024;

type Confirmation = Result<Arc<Catalog>, DefinitionError>;

/// Sends requests to the thread, which ends once this is dropped.
pub(super) struct EndReader {
    requests: mpsc::Sender<oneshot::Sender<Confirmation>>,
}

impl EndReader {
    /// Starts the thread. Kafka is not asked before the first request.
    pub fn start(config: KafkaConfig) -> std::io::Result<Self> {
        let (requests, mut waiting) = mpsc::channel(MAX_WAITING_REQUESTS);
        std::thread::Builder::new().name("definitions-end".into()).spawn(move || {
            let mut thread = Thread { config, client: None, failures: 0, last: None };
            while let Some(first) = waiting.blocking_recv() {
                thread.answer(first, &mut waiting);
            }
        })?;
        Ok(Self { requests })
    }

    /// Returns the definitions as of a moment after this call.
    pub async fn read(&self) -> Confirmation {
        let (request, confirmation) = oneshot::channel();
        let read = async {
            self.requests.send(request).await.ok()?;
            confirmation.await.ok()
        };
        let read = tokio::time::timeout(REQUEST_TIMEOUT, read).await;
        read.ok().flatten().unwrap_or_else(|| Err(unavailable("no answer in time")))
    }
}

fn unavailable(reason: impl ToString) -> DefinitionError {
    DefinitionError::Unavailable(reason.to_string())
}

struct Thread {
    config: KafkaConfig,
    /// The client that asks where the topic ends.
    client: Option<BaseConsumer<QuietContext>>,
    /// Failures since the last success.
    failures: u32,
    /// The last read: when it began, the topic's end, and the definitions below it.
    last: Option<(Instant, i64, Arc<Catalog>)>,
}

impl Thread {
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
            None => follower::client(&self.config)?,
        };
        let client = self.client.insert(client);
        // Serves the client's events; it consumes nothing.
        let _ = client.poll(Duration::ZERO);
        let topic = &self.config.definitions_topic;
        let (_, end) = client.fetch_watermarks(topic, 0, END_TIMEOUT)?;
        self.failures = 0;
        let now = Instant::now();
        match &self.last {
            Some((began, last, catalog)) if *last == end && now - *began < MAX_CATALOG_AGE => {
                return Ok(Arc::clone(catalog));
            }
            // A broker that has just become the leader.
            Some((_, last, _)) if *last > end => return Err(KafkaError::Canceled),
            _ => {}
        }
        let catalog = Arc::new(read_all(&self.config)?);
        self.last = Some((now, end, Arc::clone(&catalog)));
        Ok(catalog)
    }
}

/// Reads all committed definitions.
fn read_all(config: &KafkaConfig) -> KafkaResult<Catalog> {
    let consumer = follower::consumer(config)?;
    let deadline = Instant::now() + READ_TIMEOUT;
    let mut catalog = Catalog::default();
    loop {
        match consumer.poll(POLL_INTERVAL) {
            Some(Ok(message)) => {
                if let Some(ControlRecord::Budget(id, stored)) = ControlRecord::parse(&message) {
                    catalog = catalog.with_stored(&id, stored);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(catalog),
            Some(Err(error)) if Instant::now() > deadline => return Err(error),
            _ if Instant::now() > deadline => return Err(KafkaError::Canceled),
            _ => {}
        }
    }
}
