//! Submission ids in Redis, shared by all ingest processes. The key of an attempt holds its digest while it is in
//! flight, and its digest and receipt once it is accepted. If Redis fails, every attempt counts as the first.

use std::time::Duration;

use async_trait::async_trait;
use schemas::Receipt;
use schemas::redis::idempotency_key;

use super::{BeginOutcome, Idempotency, IdempotentSubmission};
use crate::redis_connection::{RedisConfig, RedisConnection};

/// How long an attempt stays in flight by default if it is never finished.
const IN_FLIGHT_TTL: Duration = Duration::from_secs(10);

/// How long a receipt is stored.
const RECEIPT_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Deletes a key if it still holds our in-flight value: the receipt of a concurrent attempt must stay.
const DELETE_IN_FLIGHT_SCRIPT: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

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

    /// Sets how long an attempt stays in flight if it is never finished: longer than an append may take.
    #[must_use]
    pub fn with_in_flight(self, in_flight: Duration) -> Self {
        Self { in_flight, ..self }
    }
}

#[async_trait]
impl Idempotency for RedisIdempotency {
    async fn begin(&self, attempts: &[IdempotentSubmission]) -> Vec<BeginOutcome> {
        let mut pipeline = redis::pipe();
        for attempt in attempts {
            pipeline
                .cmd("SET")
                .arg(idempotency_key(&attempt.budget, attempt.submission))
                .arg(in_flight(attempt))
                .arg("NX")
                .arg("GET")
                .arg("PX")
                .arg(self.in_flight.as_millis() as u64);
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

    async fn finish(&self, outcomes: &[(IdempotentSubmission, Option<Receipt>)]) {
        let mut pipeline = redis::pipe();
        for (attempt, receipt) in outcomes {
            let key = idempotency_key(&attempt.budget, attempt.submission);
            match receipt {
                Some(receipt) => pipeline
                    .cmd("SET")
                    .arg(key)
                    .arg(accepted(attempt, receipt))
                    .arg("PX")
                    .arg(RECEIPT_TTL.as_millis() as u64)
                    .ignore(),
                None => pipeline
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

fn accepted(attempt: &IdempotentSubmission, receipt: &Receipt) -> String {
    format!("{:016x} {receipt}", attempt.digest)
}

/// Returns the outcome for the key's previous value. A malformed value counts as none.
fn begin_outcome(attempt: &IdempotentSubmission, previous: Option<&[u8]>) -> BeginOutcome {
    let Some(text) = previous.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
        return BeginOutcome::First;
    };
    let (digest, receipt) = match text.split_once(' ') {
        Some((digest, receipt)) => (digest, Some(receipt.parse())),
        None => (text, None),
    };
    match (u64::from_str_radix(digest, 16), receipt) {
        (Err(_), _) | (_, Some(Err(_))) => BeginOutcome::First,
        (Ok(digest), _) if digest != attempt.digest => BeginOutcome::Reused,
        (Ok(_), Some(Ok(receipt))) => BeginOutcome::Repeat(receipt),
        (Ok(_), None) => BeginOutcome::InFlight,
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
            if other != digest {
                prop_assert_eq!(outcome(other, &stored), BeginOutcome::Reused);
            }
        }

        #[test]
        fn no_stored_value_causes_a_panic(bytes: Vec<u8>) {
            begin_outcome(&attempt(7), Some(&bytes));
        }
    }
}
