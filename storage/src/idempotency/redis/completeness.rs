//! Whether Redis has every id that was accepted within the retention.
//!
//! A key beside the ids, `complete_since`, says since when it has all of them, and is lost with them when a Redis without persistence
//! restarts or is flushed. An id that an incomplete Redis does not know may be known to the log. Ids that Redis evicts, or
//! that a restart from an older snapshot loses, are not noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use redis::RedisResult;
use runtime::clock::now_ms;
use schemas::redis::IDS_COMPLETE_SINCE_KEY;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::RECEIPT_TTL;
use crate::redis_connection::RedisConnection;

/// Reads whether a record was ever appended to the log; `None` if that is unknown now.
pub type LogHasRecords = Box<dyn Fn() -> BoxFuture<'static, Option<bool>> + Send + Sync>;

/// Complete since the first submission.
const SINCE_EVER: u64 = 0;
/// How long a start waits for the first check.
const FIRST_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Since when Redis has all ids, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CompleteSince {
    /// Milliseconds since 1970.
    At(u64),
    /// There is none, or Redis did not answer.
    Unknown,
}

impl CompleteSince {
    /// Parses the key's value. One that is not a number counts as none.
    pub fn parse(value: Option<&[u8]>) -> Self {
        let text = value.and_then(|value| std::str::from_utf8(value).ok());
        text.and_then(|text| text.parse().ok()).map_or(Self::Unknown, Self::At)
    }
}

/// Decides whether Redis is complete. A task of its own sets `complete_since` where it is missing.
pub(super) struct Completeness {
    has_gap: Arc<AtomicBool>,
    _keeper: AbortOnDropHandle<()>,
}

impl Completeness {
    /// Starts the task, and waits for its first check, at most for a second.
    pub async fn start(connection: Arc<RedisConnection>, log_has_records: LogHasRecords) -> Self {
        let has_gap = Arc::<AtomicBool>::default();
        let keeper =
            CompleteSinceKeeper { connection, log_has_records, has_gap: Arc::clone(&has_gap) };
        let _ = timeout(FIRST_CHECK_TIMEOUT, keeper.check()).await;
        Self { has_gap, _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run())) }
    }

    /// Notes that Redis lacks an accepted id for good.
    pub fn note_gap(&self) {
        self.has_gap.store(true, Ordering::Relaxed);
    }

    /// Whether an id that Redis does not know now is new.
    pub fn is_complete(&self, complete_since: CompleteSince) -> bool {
        let covers = matches!(complete_since, CompleteSince::At(since_ms) if covers_retention(since_ms, now_ms()));
        covers && !self.has_gap.load(Ordering::Relaxed)
    }
}

struct CompleteSinceKeeper {
    connection: Arc<RedisConnection>,
    log_has_records: LogHasRecords,
    has_gap: Arc<AtomicBool>,
}

impl CompleteSinceKeeper {
    async fn run(self) {
        loop {
            let is_set = self.check().await.is_some();
            sleep(if is_set { CHECK_INTERVAL } else { RETRY_INTERVAL }).await;
        }
    }

    /// Sets `complete_since` if it is missing, and anew after a gap. `None` if Redis or the log does not answer.
    async fn check(&self) -> Option<()> {
        if self.has_gap.swap(false, Ordering::Relaxed) {
            let is_set = self.set(now_ms(), false).await;
            if is_set.is_none() {
                self.has_gap.store(true, Ordering::Relaxed);
            }
            return is_set;
        }
        if matches!(self.read().await?, CompleteSince::At(_)) {
            return Some(());
        }
        if (self.log_has_records)().await? {
            tracing::warn!(
                "the Redis of submission ids may lack those of the last day, as after a restart: for a day, answers say \
                 that new ids were not checked"
            );
            self.set(now_ms(), true).await
        } else {
            self.set(SINCE_EVER, true).await
        }
    }

    async fn read(&self) -> Option<CompleteSince> {
        let run = async |mut redis| -> RedisResult<Option<Vec<u8>>> {
            redis::cmd("GET").arg(IDS_COMPLETE_SINCE_KEY).query_async(&mut redis).await
        };
        let value = self.connection.call(run).await.ok()?;
        Some(CompleteSince::parse(value.as_deref()))
    }

    /// Sets `complete_since`, in place of an earlier one or only if there is none: another process may have set it meanwhile.
    async fn set(&self, since_ms: u64, only_if_missing: bool) -> Option<()> {
        let run = async |mut redis| -> RedisResult<Option<String>> {
            let mut command = redis::cmd("SET");
            command.arg(IDS_COMPLETE_SINCE_KEY).arg(since_ms);
            if only_if_missing {
                command.arg("NX");
            }
            command.query_async(&mut redis).await
        };
        self.connection.call(run).await.ok().map(drop)
    }
}

fn covers_retention(since_ms: u64, now_ms: u64) -> bool {
    since_ms.saturating_add(RECEIPT_TTL.as_millis() as u64) <= now_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_retention_is_covered_after_a_day_and_in_a_new_deployment_at_once() {
        let day_ms = RECEIPT_TTL.as_millis() as u64;
        let now_ms = 20 * day_ms;
        for (since_ms, expected) in [
            (SINCE_EVER, true),
            (19 * day_ms, true),
            (19 * day_ms + 1, false),
            (now_ms, false),
            (now_ms + 1, false),
            (u64::MAX, false),
        ] {
            assert_eq!(covers_retention(since_ms, now_ms), expected, "{since_ms}");
        }
    }

    #[test]
    fn a_value_that_is_no_number_says_nothing() {
        assert_eq!(CompleteSince::parse(Some(b"42")), CompleteSince::At(42));
        for value in [None, Some(&b""[..]), Some(b"-1"), Some(b"\xff")] {
            assert_eq!(CompleteSince::parse(value), CompleteSince::Unknown);
        }
    }
}
