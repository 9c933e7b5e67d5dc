//! Notices that a partition's records are not fetched although there are some.
//!
//! A consumer whose fetches have stalled without an error learns nothing of the log's end either: to it, the partition
//! has no lag. So the end is read by a request of its own.

use std::convert::Infallible;
use std::time::Duration;

use schemas::{PartitionId, Position};
use storage::log::{BoundsReader, RecordBatch};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::metrics::PartitionMetrics;
use crate::partition::PartitionProgress;

/// Time between two checks of a partition. The end of its log is read only if no record was delivered in between.
const CHECK_INTERVAL: Duration = Duration::from_secs(20);
/// A fetch is stalled after so many checks (one minute in total) that found the log's end ahead of the same position.
const STALLED_CHECKS: u32 = 3;
/// The first checks of partitions that are claimed together are spread over the interval, in so many groups.
const FIRST_CHECK_GROUPS: u32 = 64;

/// One owner's partition, as it is fetched.
pub(super) struct Fetch<'p> {
    pub partition: PartitionId,
    pub bounds: &'p dyn BoundsReader,
    pub progress: &'p PartitionProgress,
    /// The owner's queue. While it has records, the owner is the one that stands still.
    pub queue: mpsc::Sender<RecordBatch>,
    pub metrics: PartitionMetrics,
}

impl Fetch<'_> {
    /// Updates the lag, and reports a stalled fetch by metric and log line, until dropped.
    pub async fn watch(self) -> Infallible {
        let Self { partition, bounds, progress, queue, metrics } = self;
        metrics.set_fetch_stalled(false);
        let mut state = FetchState::new(progress.delivered());
        sleep(first_delay(partition)).await;
        loop {
            sleep(CHECK_INTERVAL).await;
            let is_queue_empty = queue.capacity() == queue.max_capacity();
            if state.record_delivery(progress.delivered(), is_queue_empty) {
                metrics.set_fetch_stalled(false);
                continue;
            }
            let Ok(log) = bounds.bounds(partition).await else {
                if state.record_failed_check() {
                    metrics.set_fetch_stalled(false);
                }
                continue;
            };
            progress.set_high(log.high);
            metrics.set_progress(progress.committed().0, progress.lag());
            let position = progress.delivered();
            let stalled = state.record_log_end(position, log.high);
            metrics.set_fetch_stalled(stalled);
            if stalled {
                tracing::error!(
                    %partition,
                    %position,
                    log_end = %log.high,
                    "records of the partition are not fetched",
                );
            }
        }
    }
}

fn first_delay(partition: PartitionId) -> Duration {
    CHECK_INTERVAL * (partition.0 % FIRST_CHECK_GROUPS) / FIRST_CHECK_GROUPS
}

/// What consecutive checks of a partition have found. Pure.
struct FetchState {
    position: Position,
    /// Checks, without those that failed, that found the log's end ahead of this position.
    checks_behind: u32,
    /// Consecutive checks that could not read the log's end.
    failed_checks: u32,
}

impl FetchState {
    fn new(position: Position) -> Self {
        Self { position, checks_behind: 0, failed_checks: 0 }
    }

    /// Returns whether records were delivered since the last check, or wait for the owner.
    fn record_delivery(&mut self, position: Position, is_queue_empty: bool) -> bool {
        let is_progressing = position != self.position || !is_queue_empty;
        if is_progressing {
            *self = Self::new(position);
        }
        is_progressing
    }

    /// Records that the log's end could not be read. Returns whether a minute of such checks has passed: the leader is
    /// away, and nothing is known any more.
    fn record_failed_check(&mut self) -> bool {
        self.failed_checks = self.failed_checks.saturating_add(1);
        if self.failed_checks >= STALLED_CHECKS {
            self.checks_behind = 0;
        }
        self.failed_checks >= STALLED_CHECKS
    }

    /// Returns whether records in front of the log's end have not been delivered for too long.
    fn record_log_end(&mut self, position: Position, end: Position) -> bool {
        self.failed_checks = 0;
        if position != self.position || position >= end {
            *self = Self::new(position);
        } else {
            self.checks_behind = self.checks_behind.saturating_add(1);
        }
        self.checks_behind >= STALLED_CHECKS
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use runtime::metrics::Metrics;
    use storage::log::{LogBounds, ReadError};

    use super::*;
    use crate::metrics::EngineMetrics;

    const ONE: PartitionId = PartitionId(1);

    /// A log whose end a test moves; 0: its leader is away.
    #[derive(Default)]
    struct Log(AtomicU64);

    #[async_trait]
    impl BoundsReader for Log {
        async fn bounds(&self, _: PartitionId) -> Result<LogBounds, ReadError> {
            match self.0.load(Ordering::Relaxed) {
                0 => Err(ReadError::Unavailable("no leader".into())),
                high => Ok(LogBounds { low: Position(0), high: Position(high) }),
            }
        }
    }

    struct Watched {
        log: Log,
        progress: PartitionProgress,
        metrics: Metrics,
        partition: PartitionMetrics,
    }

    impl Watched {
        fn new() -> Self {
            let metrics = Metrics::new("test");
            let partition = EngineMetrics::new(&metrics).unwrap().partition(ONE);
            Self { log: Log::default(), progress: PartitionProgress::default(), metrics, partition }
        }

        async fn watch_for(&self, queue: &mpsc::Sender<RecordBatch>, seconds: u64) {
            let fetch = Fetch {
                partition: ONE,
                bounds: &self.log,
                progress: &self.progress,
                queue: queue.clone(),
                metrics: self.partition.clone(),
            };
            let watched = tokio::time::timeout(Duration::from_secs(seconds), fetch.watch()).await;
            assert!(watched.is_err());
        }

        /// The lag, and whether the fetch counts as stalled.
        fn shown(&self) -> (Option<u64>, Option<u64>) {
            let text = String::from_utf8(self.metrics.render()).unwrap();
            let value = |name: &str| {
                let sample = format!("allocator_processor_{name}{{partition=\"1\"}} ");
                text.lines().find_map(|line| line.strip_prefix(&sample)?.parse().ok())
            };
            (value("lag_records"), value("fetch_stalled"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_are_not_fetched_are_lag_and_reported_after_a_minute() {
        let (watched, (queue, _inbox)) = (Watched::new(), mpsc::channel(4));
        watched.progress.set_delivered(Position(200));
        watched.progress.set_committed(Position(200));
        watched.log.0.store(260, Ordering::Relaxed);
        watched.watch_for(&queue, 50).await;
        assert_eq!(watched.shown(), (Some(60), Some(0)));
        watched.watch_for(&queue, 70).await;
        assert_eq!(watched.shown(), (Some(60), Some(1)));
        // The next owner reads them.
        watched.progress.set_delivered(Position(260));
        watched.watch_for(&queue, 70).await;
        assert_eq!(watched.shown().1, Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_without_new_records_or_without_a_leader_is_not_stalled() {
        let (watched, (queue, _inbox)) = (Watched::new(), mpsc::channel(4));
        for end in [0, 200] {
            watched.progress.set_delivered(Position(200));
            watched.log.0.store(end, Ordering::Relaxed);
            watched.watch_for(&queue, 300).await;
            assert_eq!(watched.shown().1, Some(0), "the log ends at {end}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_stands_still_is_not_a_stalled_fetch() {
        let (watched, (queue, _inbox)) = (Watched::new(), mpsc::channel(4));
        queue.send(RecordBatch::new(ONE)).await.unwrap();
        watched.log.0.store(260, Ordering::Relaxed);
        watched.watch_for(&queue, 300).await;
        assert_eq!(watched.shown().1, Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_returns_with_new_records_is_no_stall() {
        let (watched, (queue, _inbox)) = (Watched::new(), mpsc::channel(4));
        watched.progress.set_delivered(Position(200));
        let outage = async {
            sleep(Duration::from_secs(130)).await;
            watched.log.0.store(260, Ordering::Relaxed);
        };
        tokio::join!(watched.watch_for(&queue, 150), outage);
        assert_eq!(watched.shown().1, Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_failed_check_keeps_a_stall_reported_and_a_minute_of_them_ends_it() {
        let (watched, (queue, _inbox)) = (Watched::new(), mpsc::channel(4));
        watched.progress.set_delivered(Position(200));
        watched.log.0.store(260, Ordering::Relaxed);
        let seen = async {
            let mut seen = Vec::new();
            // The third check is after 60 s; the leader is away at the fourth one, and from the sixth on.
            for (seconds, end) in [(70, 0), (20, 260), (20, 0), (60, 0)] {
                sleep(Duration::from_secs(seconds)).await;
                seen.push(watched.shown().1);
                watched.log.0.store(end, Ordering::Relaxed);
            }
            sleep(Duration::from_secs(1)).await;
            seen
        };
        let (seen, ()) = tokio::join!(seen, watched.watch_for(&queue, 171));
        assert_eq!(seen, [Some(1), Some(1), Some(1), Some(0)]);
    }

    #[test]
    fn a_failed_check_neither_raises_nor_clears_a_stall() {
        let (end, mut state) = (Position(9), FetchState::new(Position(1)));
        for stalled in [false, false, true, true] {
            assert!(!state.record_failed_check());
            assert!(!state.record_delivery(Position(1), true));
            assert_eq!(state.record_log_end(Position(1), end), stalled);
        }
        let unknown = [(); 3].map(|()| state.record_failed_check());
        assert_eq!(unknown, [false, false, true]);
        assert!(!state.record_log_end(Position(1), end), "the minute begins anew");
    }

    #[test]
    fn a_delivery_resets_the_checks() {
        let (end, mut state) = (Position(9), FetchState::new(Position(1)));
        let mut check = |position: u64| {
            let position = Position(position);
            !state.record_delivery(position, true) && state.record_log_end(position, end)
        };
        assert_eq!([check(1), check(1), check(1)], [false, false, true]);
        assert_eq!([check(2), check(2), check(2), check(2)], [false, false, false, true]);
    }
}
