//! Counters in Redis: one call of a script for all limits of a request, by the server's clock.

use async_trait::async_trait;
use redis::Script;
use runtime::limits::{Charge, CountersUnavailable, QuotaDecision, QuotaStatus, SharedCounters};
use schemas::redis::{LIMITS_SCRIPT, limit_key};

use crate::redis_connection::{RedisCallError, RedisConfig, RedisConnection};

/// Integers of the script's reply for each limit.
const REPLY_INTEGERS: usize = 3;

/// Counters in Redis.
pub struct RedisCounters {
    connection: RedisConnection,
    script: Script,
}

impl RedisCounters {
    /// Starts connecting, and waits at most about a second for the first attempt. Does not fail if Redis is
    /// unreachable.
    pub async fn connect(config: &RedisConfig) -> Self {
        let connection = RedisConnection::open(config).await;
        Self { connection, script: Script::new(LIMITS_SCRIPT) }
    }
}

#[async_trait]
impl SharedCounters for RedisCounters {
    async fn charge(&self, charges: &[Charge]) -> Result<Vec<QuotaStatus>, CountersUnavailable> {
        if charges.is_empty() {
            return Ok(Vec::new());
        }
        let mut invocation = self.script.prepare_invoke();
        for Charge { policy, quota, subject, cost } in charges {
            let algorithm = quota.algorithm().name();
            invocation.key(limit_key(&policy.name, algorithm, quota.window_ms(), subject));
            invocation.arg(algorithm).arg(quota.limit()).arg(quota.window_ms());
            invocation.arg(quota.burst()).arg(*cost);
        }
        // Sends the script's digest, and the script itself only to a server that does not know it yet.
        let run = async |mut redis| invocation.invoke_async(&mut redis).await;
        let reply: Vec<i64> = self.connection.call(run).await?;
        if reply.len() != charges.len() * REPLY_INTEGERS {
            return Err(CountersUnavailable("the script answered for other limits".to_owned()));
        }
        Ok(reply.chunks_exact(REPLY_INTEGERS).map(status).collect())
    }
}

/// Parses the reply for one limit.
fn status(reply: &[i64]) -> QuotaStatus {
    let number = |index: usize| reply.get(index).copied().unwrap_or_default();
    let positive = |index: usize| u64::try_from(number(index)).unwrap_or_default();
    let decision = match number(0) {
        0 => QuotaDecision::Allowed,
        after_ms if after_ms > 0 => QuotaDecision::Later { after_ms: after_ms.unsigned_abs() },
        _ => QuotaDecision::Never,
    };
    QuotaStatus { decision, remaining: positive(1), reset_ms: positive(2) }
}

impl From<RedisCallError> for CountersUnavailable {
    fn from(error: RedisCallError) -> Self {
        Self(error.to_string())
    }
}
