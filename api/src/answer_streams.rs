//! Streams of one budget's answers: the newest at once, then each newer one, as server-sent events.
//!
//! A stream holds no queue. It is notified that the answer in memory has changed, waits for the interval that the number
//! of streams demands, and sends the newest answer then. So a slow reader skips answers, and memory per stream does not
//! grow. What the reader has seen never goes back: memory's answer does not, and an answer older than `Last-Event-ID`,
//! which another instance has sent, is held back.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use http::HeaderValue;
use jiff::Timestamp;
use schemas::AggregateVersion;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::client_limit::{ClientLimit, ClientPermit, LimitReached};
use crate::client_network::ClientNetwork;
use crate::config::ApiConfig;
use crate::metrics::ApiMetrics;
use crate::tiers::memory::{Memory, Slot};

/// Shortest interval between two answers of one stream.
const MIN_INTERVAL: Duration = Duration::from_millis(250);
/// What each open stream adds to that interval: with 10,000 streams an answer is sent every 1.25 s.
const INTERVAL_PER_STREAM: Duration = Duration::from_micros(100);
/// Interval of the events that show a reader, and every proxy in between, that the stream is alive.
const BEAT_INTERVAL: Duration = Duration::from_secs(15);
const BEAT: Bytes = Bytes::from_static(b"event: beat\ndata: {}\n\n");
/// Bounds of the delay after which a browser reconnects, in milliseconds. Each stream gets its own, so that readers who
/// lost their connection together do not come back together.
const RECONNECT_DELAY_MS: std::ops::RangeInclusive<u32> = 2_000..=8_000;

/// Opens streams, with limits on concurrent ones.
pub struct AnswerStreams {
    memory: Arc<Memory>,
    limit: Arc<ClientLimit>,
    /// Ends all streams.
    stop: CancellationToken,
}

impl AnswerStreams {
    /// Creates the streams over `memory`.
    pub fn new(
        config: &ApiConfig,
        memory: Arc<Memory>,
        metrics: &ApiMetrics,
        stop: CancellationToken,
    ) -> Self {
        let (max, max_per_client) = (config.max_streams, config.max_streams_per_client);
        let limit = ClientLimit::new(max, max_per_client, metrics.streams.clone());
        Self { memory, limit, stop }
    }

    /// Opens a stream of a budget's answers that are newer than the version `seen`.
    ///
    /// # Errors
    /// When too many streams are open.
    pub fn open(
        &self,
        slot: Arc<Slot>,
        seen: Option<AggregateVersion>,
        client: ClientNetwork,
    ) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + use<>, LimitReached> {
        let permit = self.limit.try_acquire(client)?;
        let reader = StreamReader {
            memory: Arc::clone(&self.memory),
            limit: Arc::clone(&self.limit),
            changes: slot.changes(),
            slot,
            seen,
            sent: None,
            next_answer: Instant::now(),
            begun: false,
            stop: self.stop.clone(),
            _permit: permit,
        };
        Ok(unfold(reader, async |mut reader| {
            let event = reader.next().await?;
            Some((Ok(event), reader))
        }))
    }
}

/// One open stream.
struct StreamReader {
    memory: Arc<Memory>,
    limit: Arc<ClientLimit>,
    slot: Arc<Slot>,
    changes: watch::Receiver<()>,
    /// The version that the reader had when the stream was opened.
    seen: Option<AggregateVersion>,
    /// ETag of the answer that was sent last.
    sent: Option<HeaderValue>,
    /// When the next answer may be sent.
    next_answer: Instant,
    begun: bool,
    stop: CancellationToken,
    _permit: ClientPermit,
}

impl StreamReader {
    /// Waits for the next event; `None` once the process stops.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.begun {
            self.begun = true;
            return Some(self.begin());
        }
        let beat_at = Instant::now() + BEAT_INTERVAL;
        loop {
            if self.has_changed(beat_at).await? {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return None,
                    () = sleep_until(self.next_answer) => {}
                }
                if let Some(event) = self.newer_answer() {
                    return Some(event);
                }
            } else {
                return Some(BEAT);
            }
        }
    }

    /// The first bytes: the reconnection delay, and the answer if the reader does not have it.
    fn begin(&mut self) -> Bytes {
        let delay_ms = fastrand::u32(RECONNECT_DELAY_MS);
        let first = self.newer_answer().unwrap_or(BEAT);
        let mut bytes = format!("retry: {delay_ms}\n\n").into_bytes();
        bytes.extend_from_slice(&first);
        bytes.into()
    }

    /// Waits until the answer may have changed: `true`, or until the beat is due: `false`. `None` once the process stops.
    async fn has_changed(&mut self, beat_at: Instant) -> Option<bool> {
        // Background refreshes go on only for budgets that are read.
        self.slot.note_read(self.memory.now());
        let closing = self.closes_in().map(|closes_in| Instant::now() + closes_in);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            changed = self.changes.changed() => changed.is_ok().then_some(true),
            () = sleep_until(closing.unwrap_or(beat_at)), if closing.is_some_and(|at| at < beat_at) => Some(true),
            () = sleep_until(beat_at) => Some(false),
        }
    }

    /// The time until withheld results are shown.
    fn closes_in(&self) -> Option<Duration> {
        let answer = self.memory.latest(&self.slot)?.answer;
        let until = answer.shown_from()?;
        Duration::try_from(until.duration_since(Timestamp::now())).ok()
    }

    /// The answer in memory as an event, unless the reader has it or a newer one.
    fn newer_answer(&mut self) -> Option<Bytes> {
        let answer = self.memory.latest(&self.slot)?.answer;
        if self.sent.as_ref() == Some(&answer.plain().etag) {
            return None;
        }
        if self.seen.is_some_and(|seen| answer.version() <= seen) {
            return None;
        }
        self.seen = None;
        self.sent = Some(answer.plain().etag.clone());
        let load = INTERVAL_PER_STREAM * u32::try_from(self.limit.held()).unwrap_or(u32::MAX);
        self.next_answer = Instant::now() + MIN_INTERVAL + load;
        Some(event(&answer))
    }
}

/// An answer as a server-sent event. Its JSON has no line breaks.
fn event(answer: &Answer) -> Bytes {
    answer
        .event(|| {
            let mut bytes =
                format!("event: aggregate\nid: {}\ndata: ", answer.version()).into_bytes();
            bytes.extend_from_slice(&answer.plain().body);
            bytes.extend_from_slice(b"\n\n");
            bytes.into()
        })
        .clone()
}
