//! Streams of one budget's answers: the newest at once, then each newer one.
//!
//! A stream holds no queue. It is notified that the answer in memory has changed, waits for the interval that the
//! number of streams demands, and hands out the newest answer then. So a slow reader skips answers, and memory per
//! stream does not grow. What the reader has seen never goes back: memory's answer does not, and an answer older than
//! the version that the reader had from another instance is held back.
//!
//! How events are written is `routes::stream`'s (server-sent events) and `routes::websocket`'s.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;
use runtime::client::ClientNetwork;
use schemas::AggregateVersion;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::client_limit::{ClientLimit, ClientPermit, LimitReached};
use crate::config::ApiConfig;
use crate::metrics::ApiMetrics;
use crate::tiers::memory::{Memory, MemoryEntry};

/// Shortest interval between two answers of one stream.
const MIN_INTERVAL: Duration = Duration::from_millis(250);
/// What each open stream adds to that interval: with 10,000 streams an answer is sent every 1.25 s.
const INTERVAL_PER_STREAM: Duration = Duration::from_micros(100);
/// Interval of the events that show a reader, and every proxy in between, that the stream is alive.
const BEAT_INTERVAL: Duration = Duration::from_secs(15);

/// Opens streams, with limits on concurrent ones.
pub struct AnswerStreams {
    memory: Arc<Memory>,
    limit: Arc<ClientLimit>,
    /// Ends all streams.
    stop: CancellationToken,
}

/// What a stream tells its reader.
#[derive(Debug, Clone)]
pub enum StreamEvent {
    /// A newer answer.
    Answer(Arc<Answer>),
    /// The stream is alive, and nothing is newer.
    Beat,
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
        entry: Arc<MemoryEntry>,
        seen: Option<AggregateVersion>,
        client: ClientNetwork,
    ) -> Result<AnswerStream, LimitReached> {
        let permit = self.limit.try_acquire(client)?;
        let now = Instant::now();
        Ok(AnswerStream {
            memory: Arc::clone(&self.memory),
            limit: Arc::clone(&self.limit),
            changes: entry.changes(),
            entry,
            seen,
            sent: None,
            // The first answer, or a beat in its place, is due at once.
            change_pending: true,
            next_answer: now,
            beat_at: now,
            stop: self.stop.clone(),
            _permit: permit,
        })
    }
}

/// One open stream.
pub struct AnswerStream {
    memory: Arc<Memory>,
    limit: Arc<ClientLimit>,
    entry: Arc<MemoryEntry>,
    changes: watch::Receiver<()>,
    /// The version that the reader had when the stream was opened.
    seen: Option<AggregateVersion>,
    /// ETag of the answer that was sent last.
    sent: Option<HeaderValue>,
    /// Whether the answer may have changed since it was sent last.
    change_pending: bool,
    /// When the next answer may be sent.
    next_answer: Instant,
    /// When a beat is due.
    beat_at: Instant,
    stop: CancellationToken,
    _permit: ClientPermit,
}

impl AnswerStream {
    /// Waits for the next event; `None` once the process stops. The first event is there at once.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        loop {
            if self.change_pending {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return None,
                    () = sleep_until(self.next_answer) => {}
                }
                self.change_pending = false;
                if let Some(answer) = self.newer_answer() {
                    self.beat_at = Instant::now() + BEAT_INTERVAL;
                    return Some(StreamEvent::Answer(answer));
                }
            }
            if self.has_changed().await? {
                self.change_pending = true;
                // All idle streams learn of a change at the same moment; sent at once, it would take the CPU from
                // everyone.
                let spread = self.load().mul_f64(fastrand::f64());
                let at = (Instant::now() + spread).min(self.beat_at);
                self.next_answer = self.next_answer.max(at);
            } else {
                self.beat_at = Instant::now() + BEAT_INTERVAL;
                return Some(StreamEvent::Beat);
            }
        }
    }

    /// Waits until the process stops.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Waits until the answer may have changed: `true`, or until a beat is due: `false`. `None` once the process stops.
    async fn has_changed(&mut self) -> Option<bool> {
        // Background refreshes go on only for budgets that are read.
        self.entry.note_read(self.memory.now());
        let beat_at = self.beat_at;
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
        let answer = self.memory.latest(&self.entry)?.answer;
        let until = answer.shown_from()?;
        Duration::try_from(until.duration_since(Timestamp::now())).ok()
    }

    /// The answer in memory, unless the reader has it or a newer one.
    fn newer_answer(&mut self) -> Option<Arc<Answer>> {
        let answer = self.memory.latest(&self.entry)?.answer;
        if self.sent.as_ref() == Some(&answer.plain().etag) {
            return None;
        }
        // A withheld answer is sent whatever the reader has seen: `seen` may be made up, to compare it with the
        // version.
        if !answer.is_withheld() {
            if self.seen.is_some_and(|seen| answer.version() <= seen) {
                return None;
            }
            self.seen = None;
        }
        self.sent = Some(answer.plain().etag.clone());
        self.next_answer = Instant::now() + MIN_INTERVAL + self.load();
        Some(answer)
    }

    /// What all open streams add to the interval. An idle stream sends the next answer at a moment of this span.
    fn load(&self) -> Duration {
        INTERVAL_PER_STREAM * u32::try_from(self.limit.held()).unwrap_or(u32::MAX)
    }
}
