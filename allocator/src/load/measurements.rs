//! What a load measures: latencies, time to visible, and outcomes.

use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// Latencies beyond a minute count as a minute.
const MAX_LATENCY_US: u64 = 60_000_000;

/// Latencies of one kind.
#[derive(Debug)]
struct Latencies(Option<Histogram<u64>>);

impl Latencies {
    fn new() -> Self {
        // The bounds are constant and valid.
        Self(Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).ok())
    }

    fn record(&mut self, latency: Duration) {
        if let Some(histogram) = &mut self.0 {
            let us = u64::try_from(latency.as_micros()).unwrap_or(MAX_LATENCY_US);
            histogram.saturating_record(us.max(1));
        }
    }

    /// `p50 3.1, p95 8.0, p99 12.4 ms`, or `-` without any.
    fn summary(&self) -> String {
        match &self.0 {
            Some(histogram) if !histogram.is_empty() => {
                let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
                format!("p50 {:.1}, p95 {:.1}, p99 {:.1} ms", ms(0.5), ms(0.95), ms(0.99))
            }
            _ => "-".to_owned(),
        }
    }
}

#[derive(Debug)]
struct State {
    sent: u64,
    accepted: u64,
    rejected: u64,
    retried: u64,
    skipped: u64,
    reads: u64,
    failed_reads: u64,
    events: u64,
    submissions: Latencies,
    visible: Latencies,
    last_error: Option<String>,
}

/// Measurements of all tasks.
#[derive(Debug)]
pub struct Measurements(Mutex<State>);

impl Default for Measurements {
    fn default() -> Self {
        Self(Mutex::new(State {
            sent: 0,
            accepted: 0,
            rejected: 0,
            retried: 0,
            skipped: 0,
            reads: 0,
            failed_reads: 0,
            events: 0,
            submissions: Latencies::new(),
            visible: Latencies::new(),
            last_error: None,
        }))
    }
}

impl Measurements {
    /// A submission has begun.
    pub fn sent(&self) {
        self.0.lock().sent += 1;
    }

    /// A submission was accepted after this time, retries included.
    pub fn accepted(&self, latency: Duration) {
        let mut state = self.0.lock();
        state.accepted += 1;
        state.submissions.record(latency);
    }

    /// A submission was rejected for good.
    pub fn rejected(&self, reason: String) {
        let mut state = self.0.lock();
        state.rejected += 1;
        state.last_error = Some(reason);
    }

    /// A submission is sent once more.
    pub fn retried(&self, reason: String) {
        let mut state = self.0.lock();
        state.retried += 1;
        state.last_error = Some(reason);
    }

    /// A submission was due, but everybody has a request in flight.
    pub fn skipped(&self) {
        self.0.lock().skipped += 1;
    }

    /// A submission became visible in the aggregate after this time.
    pub fn visible(&self, latency: Duration) {
        self.0.lock().visible.record(latency);
    }

    /// A read succeeded or failed.
    pub fn read(&self, succeeded: bool) {
        let mut state = self.0.lock();
        state.reads += 1;
        state.failed_reads += u64::from(!succeeded);
    }

    /// A stream delivered an answer.
    pub fn event(&self) {
        self.0.lock().events += 1;
    }

    /// Number of submissions that were rejected for good.
    pub fn rejections(&self) -> u64 {
        self.0.lock().rejected
    }

    /// One line with everything so far.
    pub fn line(&self, elapsed: Duration) -> String {
        let state = self.0.lock();
        let seconds = elapsed.as_secs_f64().max(0.001);
        let mut line = format!(
            "{} sent, {} accepted ({:.0}/s; {}); visible after {}; {} retries, {} rejected",
            state.sent,
            state.accepted,
            state.accepted as f64 / seconds,
            state.submissions.summary(),
            state.visible.summary(),
            state.retried,
            state.rejected,
        );
        if state.skipped > 0 {
            line.push_str(&format!(", {} not sent (everybody has one in flight)", state.skipped));
        }
        if state.reads > 0 {
            line.push_str(&format!("; {} reads, {} failed", state.reads, state.failed_reads));
        }
        if state.events > 0 {
            line.push_str(&format!("; {} events", state.events));
        }
        line
    }

    /// The last failure.
    pub fn last_error(&self) -> Option<String> {
        self.0.lock().last_error.clone()
    }
}
