//! Looks ids up in Redis, and marks those as in flight that it does not know.

use std::time::Duration;

use redis::{Pipeline, RedisResult};
use schemas::redis::{IDS_COMPLETE_SINCE_KEY, former_idempotency_key, idempotency_key};

use super::completeness::CompleteSince;
use super::value::in_flight;
use crate::idempotency::IdempotentSubmission;
use crate::redis_connection::RedisConnection;

/// The error code of a write to a server that is full and evicts nothing.
const OUT_OF_MEMORY_CODE: &str = "OOM";

/// What a Redis says of one id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IdLookup {
    /// It has a value.
    Known(Vec<u8>),
    /// It has none.
    Absent,
    /// It did not answer; or it is full and has none now, and so may not have been able to store one.
    Unknown,
}

impl From<Option<Vec<u8>>> for IdLookup {
    fn from(value: Option<Vec<u8>>) -> Self {
        value.map_or(Self::Absent, Self::Known)
    }
}

/// Looks ids up, and marks those without a value as in flight. Reads also since when Redis has all ids.
pub(super) async fn look_up_and_mark(
    connection: &RedisConnection,
    attempts: &[IdempotentSubmission],
    lifetime: Duration,
) -> (Vec<IdLookup>, CompleteSince) {
    let mut pipeline = redis::pipe();
    for attempt in attempts {
        pipeline
            .cmd("SET")
            .arg(key(attempt))
            .arg(in_flight(attempt))
            .arg("NX")
            .arg("GET")
            .arg("PX")
            .arg(lifetime.as_millis() as u64);
    }
    pipeline.get(IDS_COMPLETE_SINCE_KEY);
    let mut lookups = run_lookups(connection, attempts.len() + 1, &mut pipeline).await;
    let complete_since = match lookups.pop() {
        Some(Some(IdLookup::Known(value))) => CompleteSince::parse(Some(&value)),
        Some(Some(IdLookup::Absent | IdLookup::Unknown) | None) | None => CompleteSince::Unknown,
    };
    // A full server refuses the whole command, and still knows what it has stored.
    if lookups.iter().any(Option::is_none) {
        let mut pipeline = redis::pipe();
        for attempt in attempts {
            pipeline.get(key(attempt));
        }
        let stored = run_lookups(connection, attempts.len(), &mut pipeline).await;
        for (lookup, stored) in lookups.iter_mut().zip(stored) {
            lookup.get_or_insert(match stored {
                Some(IdLookup::Known(value)) => IdLookup::Known(value),
                Some(IdLookup::Absent | IdLookup::Unknown) | None => IdLookup::Unknown,
            });
        }
    }
    let lookups = lookups.into_iter().map(|lookup| lookup.unwrap_or(IdLookup::Unknown));
    (lookups.collect(), complete_since)
}

/// Looks ids up where, and as, the release before stored them: without the person.
pub(super) async fn look_up_former(
    connection: &RedisConnection,
    attempts: &[IdempotentSubmission],
) -> Vec<IdLookup> {
    let mut pipeline = redis::pipe();
    for attempt in attempts {
        pipeline.get(former_idempotency_key(&attempt.budget, attempt.submission));
    }
    let lookups = run_lookups(connection, attempts.len(), &mut pipeline).await;
    lookups.into_iter().map(|lookup| lookup.unwrap_or(IdLookup::Unknown)).collect()
}

/// Runs one command for each id. `None` for a command that a full server has refused.
async fn run_lookups(
    connection: &RedisConnection,
    ids: usize,
    pipeline: &mut Pipeline,
) -> Vec<Option<IdLookup>> {
    pipeline.ignore_errors();
    let answer = connection.call(async |mut redis| {
        let replies: Vec<RedisResult<Option<Vec<u8>>>> = pipeline.query_async(&mut redis).await?;
        let lookup = |reply: RedisResult<Option<Vec<u8>>>| match reply {
            Ok(value) => Ok(Some(IdLookup::from(value))),
            Err(error) if error.code() == Some(OUT_OF_MEMORY_CODE) => Ok(None),
            Err(error) => Err(error),
        };
        replies.into_iter().map(lookup).collect()
    });
    let mut lookups: Vec<Option<IdLookup>> = answer.await.unwrap_or_else(|error| {
        tracing::debug!(%error, "failed to look up submission ids");
        Vec::new()
    });
    lookups.resize(ids, Some(IdLookup::Unknown));
    lookups
}

pub(super) fn key(attempt: &IdempotentSubmission) -> String {
    idempotency_key(&attempt.budget, &attempt.person, attempt.submission)
}
