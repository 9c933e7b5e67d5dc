//! Submission ids in Redis, shared by all ingest processes. While Redis is unreachable or full, and for a day after it
//! has lost ids, one that it does not know is [`BeginOutcome::Unchecked`].
//!
//! The previous release stored ids without the person, in the Redis of the cache. This release still looks up unknown
//! ids there, so that what was accepted before an update stays known. If such an id has another content, the entry does
//! not say whether another person has used the id, and the id counts as used.

mod completeness;
mod lookup;
mod unstored;
mod value;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::completeness::Completeness;
pub use self::completeness::LogHasRecords;
use self::lookup::{IdLookup, key, look_up_and_mark, look_up_former};
use self::unstored::Unstored;
use self::value::{accepted, begin_outcome, in_flight, unknown};
use super::{AttemptOutcome, BeginOutcome, Idempotency, IdempotentSubmission};
use crate::redis_connection::{RedisConfig, RedisConnection};

/// How long an attempt stays in flight by default if it is never finished, besides the steps around its append.
const IN_FLIGHT_TTL: Duration = Duration::from_secs(10);

/// How long a receipt is stored, or the content of an attempt whose outcome is unknown.
const RECEIPT_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Deletes a key if it still holds our in-flight value: the receipt of a concurrent attempt must stay.
const DELETE_IN_FLIGHT_SCRIPT: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Stores that an attempt may be in the log, unless a concurrent attempt was accepted or has other content.
const STORE_UNKNOWN_SCRIPT: &str = "local known = redis.call('GET', KEYS[1]) \
     if not known or known == ARGV[1] or known == ARGV[2] then \
     redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end return 0";

/// Submission ids in Redis.
pub struct RedisIdempotency {
    connection: Arc<RedisConnection>,
    /// The Redis in which the release before stored ids; `None` if it is the same one.
    former: Option<RedisConnection>,
    in_flight: Duration,
    completeness: Completeness,
    unstored: Unstored,
}

impl RedisIdempotency {
    /// Starts connecting, and waits at most about two seconds for Redis and the log. Does not fail if either is
    /// unreachable. An empty Redis knows all ids if the log has no records.
    pub async fn connect(config: &RedisConfig, log_has_records: LogHasRecords) -> Self {
        let connection = Arc::new(RedisConnection::open(config).await);
        Self {
            completeness: Completeness::start(Arc::clone(&connection), log_has_records).await,
            connection,
            former: None,
            in_flight: IN_FLIGHT_TTL,
            unstored: Unstored::default(),
        }
    }

    /// Sets the Redis in which the release before stored ids, if it is another one.
    #[must_use]
    pub async fn with_former(self, config: &RedisConfig) -> Self {
        Self { former: Some(RedisConnection::open(config).await), ..self }
    }

    /// Sets how long an attempt stays in flight if it is never finished: longer than an append to the log may take.
    #[must_use]
    pub fn with_in_flight(self, in_flight: Duration) -> Self {
        Self { in_flight, ..self }
    }
}

#[async_trait]
impl Idempotency for RedisIdempotency {
    async fn begin(
        &self,
        attempts: &[IdempotentSubmission],
        around_append: Duration,
    ) -> Vec<BeginOutcome> {
        let former = self.former.as_ref().unwrap_or(self.connection.as_ref());
        let ((lookups, complete_since), former) = tokio::join!(
            look_up_and_mark(&self.connection, attempts, self.in_flight + around_append),
            look_up_former(former, attempts),
        );
        let is_complete = self.completeness.is_complete(complete_since);
        let mut outcomes = Vec::with_capacity(attempts.len());
        let mut known_formerly = Vec::new();
        for ((attempt, lookup), former) in attempts.iter().zip(lookups).zip(former) {
            outcomes.push(match (lookup, former) {
                (IdLookup::Known(value), _) => begin_outcome(attempt, &value),
                (_, IdLookup::Known(value)) => {
                    let outcome = begin_outcome(attempt, &value);
                    match outcome {
                        BeginOutcome::Repeat(receipt) => {
                            known_formerly
                                .push((attempt.clone(), AttemptOutcome::Accepted(receipt)));
                        }
                        BeginOutcome::InFlight | BeginOutcome::Reused => {
                            known_formerly.push((attempt.clone(), AttemptOutcome::NotAppended));
                        }
                        BeginOutcome::First | BeginOutcome::Unchecked => {}
                    }
                    outcome
                }
                (IdLookup::Absent, IdLookup::Absent) if is_complete => BeginOutcome::First,
                (IdLookup::Absent | IdLookup::Unknown, IdLookup::Absent | IdLookup::Unknown) => {
                    BeginOutcome::Unchecked
                }
            });
        }
        if !known_formerly.is_empty() {
            self.finish(&known_formerly).await;
        }
        outcomes
    }

    async fn finish(&self, outcomes: &[(IdempotentSubmission, AttemptOutcome)]) {
        let unstored = self.unstored.take();
        let outcomes = unstored.iter().chain(outcomes);
        let mut pipeline = redis::pipe();
        for (attempt, outcome) in outcomes.clone() {
            let key = key(attempt);
            match outcome {
                AttemptOutcome::Accepted(receipt) => pipeline
                    .cmd("SET")
                    .arg(key)
                    .arg(accepted(attempt, receipt))
                    .arg("PX")
                    .arg(RECEIPT_TTL.as_millis() as u64)
                    .ignore(),
                AttemptOutcome::Unknown => pipeline
                    .cmd("EVAL")
                    .arg(STORE_UNKNOWN_SCRIPT)
                    .arg(1)
                    .arg(key)
                    .arg(in_flight(attempt))
                    .arg(unknown(attempt))
                    .arg(RECEIPT_TTL.as_millis() as u64)
                    .ignore(),
                AttemptOutcome::NotAppended => pipeline
                    .cmd("EVAL")
                    .arg(DELETE_IN_FLIGHT_SCRIPT)
                    .arg(1)
                    .arg(key)
                    .arg(in_flight(attempt))
                    .ignore(),
            };
        }
        let stored: Result<(), _> =
            self.connection.call(async |mut redis| pipeline.query_async(&mut redis).await).await;
        if let Err(error) = stored {
            tracing::debug!(%error, "failed to store the outcome of submissions");
            if self.unstored.keep(outcomes.cloned()) {
                self.completeness.note_gap();
            }
        }
    }
}
