//! Submission ids in Redis, shared by every ingest. One key an attempt: its digest while it is in flight, its digest
//! and its receipt once it is accepted. Any trouble with Redis makes every attempt the first.

use std::time::Duration;

use async_trait::async_trait;
use schemas::Receipt;
use schemas::redis::idempotency_key;

use super::{Attempt, Begun, Idempotency};
use crate::redis_connection::{RedisConfig, RedisLink};

/// How long an attempt counts as in flight when nobody says what became of it.
const IN_FLIGHT: Duration = Duration::from_secs(10);

/// How long a receipt is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// Deletes a key only if it still says what we wrote: what was accepted meanwhile must stay.
const FORGET: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Submission ids in Redis.
pub struct RedisIdempotency {
    link: RedisLink,
}

impl RedisIdempotency {
    /// Begins to connect, and waits at most about a second for the first attempt. It does not fail when Redis is away.
    pub async fn connect(config: &RedisConfig) -> Self {
        Self { link: RedisLink::open(config).await }
    }
}

#[async_trait]
impl Idempotency for RedisIdempotency {
    async fn begin(&self, attempts: &[Attempt]) -> Vec<Begun> {
        let mut pipeline = redis::pipe();
        for attempt in attempts {
            pipeline
                .cmd("SET")
                .arg(idempotency_key(&attempt.budget, attempt.submission))
                .arg(in_flight(attempt))
                .arg("NX")
                .arg("GET")
                .arg("PX")
                .arg(IN_FLIGHT.as_millis() as u64);
        }
        let sent = self.link.call(async |mut redis| pipeline.query_async(&mut redis).await).await;
        let known: Vec<Option<Vec<u8>>> = match sent {
            Ok(known) => known,
            Err(fault) => {
                tracing::debug!(%fault, "submission ids could not be looked up");
                Vec::new()
            }
        };
        let known = known.into_iter().chain(std::iter::repeat(None));
        attempts
            .iter()
            .zip(known)
            .map(|(attempt, known)| judge(attempt, known.as_deref()))
            .collect()
    }

    async fn finish(&self, outcomes: &[(Attempt, Option<Receipt>)]) {
        let mut pipeline = redis::pipe();
        for (attempt, receipt) in outcomes {
            let key = idempotency_key(&attempt.budget, attempt.submission);
            match receipt {
                Some(receipt) => pipeline
                    .cmd("SET")
                    .arg(key)
                    .arg(accepted(attempt, receipt))
                    .arg("PX")
                    .arg(REMEMBERED.as_millis() as u64)
                    .ignore(),
                None => pipeline
                    .cmd("EVAL")
                    .arg(FORGET)
                    .arg(1)
                    .arg(key)
                    .arg(in_flight(attempt))
                    .ignore(),
            };
        }
        let sent: Result<(), _> =
            self.link.call(async |mut redis| pipeline.query_async(&mut redis).await).await;
        if let Err(fault) = sent {
            tracing::debug!(%fault, "what became of submissions could not be remembered");
        }
    }
}

fn in_flight(attempt: &Attempt) -> String {
    format!("{:016x}", attempt.digest)
}

fn accepted(attempt: &Attempt, receipt: &Receipt) -> String {
    format!("{:016x} {receipt}", attempt.digest)
}

/// What an attempt is, given what stood under its name before. What cannot be read is as good as nothing.
fn judge(attempt: &Attempt, known: Option<&[u8]>) -> Begun {
    let Some(text) = known.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
        return Begun::First;
    };
    let (digest, receipt) = match text.split_once(' ') {
        Some((digest, receipt)) => (digest, Some(receipt.parse())),
        None => (text, None),
    };
    match (u64::from_str_radix(digest, 16), receipt) {
        (Err(_), _) | (_, Some(Err(_))) => Begun::First,
        (Ok(digest), _) if digest != attempt.digest => Begun::Reused,
        (Ok(_), Some(Ok(receipt))) => Begun::Repeat(receipt),
        (Ok(_), None) => Begun::InFlight,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::{BudgetId, LogNumber, Offset, PartitionId, SubmissionId};
    use uuid::Uuid;

    use super::*;

    fn attempt(digest: u64) -> Attempt {
        let budget = BudgetId::parse("taxes").unwrap();
        Attempt { budget, submission: SubmissionId(Uuid::from_u128(1)), digest }
    }

    proptest! {
        #[test]
        fn what_is_written_is_judged_as_what_it_was(
            digest: u64, other: u64, log in 0..3_u32, partition in 0..1_024_u32, offset in 0..i64::MAX as u64,
        ) {
            let receipt = Receipt { log: LogNumber(log), partition: PartitionId(partition), offset: Offset(offset) };
            let mine = attempt(digest);
            prop_assert_eq!(judge(&mine, None), Begun::First);
            prop_assert_eq!(judge(&mine, Some(in_flight(&mine).as_bytes())), Begun::InFlight);
            let stored = accepted(&mine, &receipt);
            prop_assert_eq!(judge(&mine, Some(stored.as_bytes())), Begun::Repeat(receipt));
            if other != digest {
                prop_assert_eq!(judge(&attempt(other), Some(stored.as_bytes())), Begun::Reused);
            }
        }

        #[test]
        fn no_stored_value_panics_the_judge(bytes: Vec<u8>) {
            judge(&attempt(7), Some(&bytes));
        }
    }
}
