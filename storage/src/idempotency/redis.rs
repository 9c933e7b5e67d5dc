//! Submission ids in Redis, shared by all ingest processes. If Redis fails, every attempt counts as the first.
//!
//! | value of an attempt's key | means |
//! |---|---|
//! | `<digest>` | it is in flight |
//! | `<digest> <receipt>` | it is accepted |
//! | `<digest> ?` | it may be in the log |
//!
//! Releases that do not write the last form take it for a new id, whatever the content, and leave it until they accept the
//! submission.

use std::time::Duration;

use async_trait::async_trait;
use schemas::Receipt;
use schemas::redis::idempotency_key;

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

/// Stands in place of a receipt while it is unknown whether there is one.
const UNKNOWN_MARK: &str = "?";

/// Submission ids in Redis.
pub struct RedisIdempotency {
    connection: RedisConnection,
    in_flight: Duration,
}

impl RedisIdempotency {
    /// Starts connecting, and waits at most about a second for the first attempt. Does not fail if Redis is
    /// unreachable.
    pub async fn connect(config: &RedisConfig) -> Self {
        Self { connection: RedisConnection::open(config).await, in_flight: IN_FLIGHT_TTL }
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
        let in_flight_ttl = self.in_flight + around_append;
        let mut pipeline = redis::pipe();
        for attempt in attempts {
            pipeline
                .cmd("SET")
                .arg(idempotency_key(&attempt.budget, attempt.submission))
                .arg(in_flight(attempt))
                .arg("NX")
                .arg("GET")
                .arg("PX")
                .arg(in_flight_ttl.as_millis() as u64);
        }
        let replies =
            self.connection.call(async |mut redis| pipeline.query_async(&mut redis).await).await;
        let previous: Vec<Option<Vec<u8>>> = replies.unwrap_or_else(|error| {
            tracing::debug!(%error, "failed to look up submission ids");
            Vec::new()
        });
        let previous = previous.into_iter().chain(std::iter::repeat(None));
        attempts
            .iter()
            .zip(previous)
            .map(|(attempt, previous)| begin_outcome(attempt, previous.as_deref()))
            .collect()
    }

    async fn finish(&self, outcomes: &[(IdempotentSubmission, AttemptOutcome)]) {
        let mut pipeline = redis::pipe();
        for (attempt, outcome) in outcomes {
            let key = idempotency_key(&attempt.budget, attempt.submission);
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
        }
    }
}

fn in_flight(attempt: &IdempotentSubmission) -> String {
    format!("{:016x}", attempt.digest)
}

fn unknown(attempt: &IdempotentSubmission) -> String {
    format!("{:016x} {UNKNOWN_MARK}", attempt.digest)
}

fn accepted(attempt: &IdempotentSubmission, receipt: &Receipt) -> String {
    format!("{:016x} {receipt}", attempt.digest)
}

/// Returns the outcome for the key's previous value. A malformed value counts as none.
fn begin_outcome(attempt: &IdempotentSubmission, previous: Option<&[u8]>) -> BeginOutcome {
    let Some(text) = previous.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
        return BeginOutcome::First;
    };
    let (digest, result) = match text.split_once(' ') {
        Some((digest, UNKNOWN_MARK)) => (digest, Ok(BeginOutcome::First)),
        Some((digest, receipt)) => (digest, receipt.parse().map(BeginOutcome::Repeat)),
        None => (text, Ok(BeginOutcome::InFlight)),
    };
    match (u64::from_str_radix(digest, 16), result) {
        (Err(_), _) | (_, Err(_)) => BeginOutcome::First,
        (Ok(digest), _) if digest != attempt.digest => BeginOutcome::Reused,
        (Ok(_), Ok(outcome)) => outcome,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::{BudgetId, LogNumber, Offset, PartitionId, SubmissionId};
    use uuid::Uuid;

    use super::*;

    fn attempt(digest: u64) -> IdempotentSubmission {
        let budget = BudgetId::parse("taxes").unwrap();
        IdempotentSubmission { budget, submission: SubmissionId(Uuid::from_u128(1)), digest }
    }

    proptest! {
        #[test]
        fn stored_values_yield_the_outcome_they_were_written_for(
            digest: u64, other: u64, log in 0..3_u32, partition in 0..1_024_u32, offset in 0..i64::MAX as u64,
        ) {
            let receipt = Receipt { log: LogNumber(log), partition: PartitionId(partition), offset: Offset(offset) };
            let outcome = |digest, previous: &str| {
                begin_outcome(&attempt(digest), Some(previous.as_bytes()))
            };
            prop_assert_eq!(begin_outcome(&attempt(digest), None), BeginOutcome::First);
            prop_assert_eq!(outcome(digest, &in_flight(&attempt(digest))), BeginOutcome::InFlight);
            let stored = accepted(&attempt(digest), &receipt);
            prop_assert_eq!(outcome(digest, &stored), BeginOutcome::Repeat(receipt));
            let maybe_stored = unknown(&attempt(digest));
            prop_assert_eq!(outcome(digest, &maybe_stored), BeginOutcome::First);
            if other != digest {
                prop_assert_eq!(outcome(other, &stored), BeginOutcome::Reused);
                prop_assert_eq!(outcome(other, &maybe_stored), BeginOutcome::Reused);
            }
        }

        #[test]
        fn no_stored_value_causes_a_panic(bytes: Vec<u8>) {
            begin_outcome(&attempt(7), Some(&bytes));
        }
    }
}
