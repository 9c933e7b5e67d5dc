//! Counters in Redis: one call of a script for all limits of a request, by the server's clock. Requests that come while
//! a call is in flight share the next one (`combined_calls`), in which each is still charged to
//! all of its limits or to none.

use std::sync::Arc;

use async_trait::async_trait;
use redis::Script;
use runtime::limits::{
    Charge, CountersUnavailable, Quota, QuotaDecision, QuotaStatus, SharedCounters,
};
use schemas::redis::{LIMITS_SCRIPT, limit_key};

use super::combined_calls::{CombinedCalls, Request};
use crate::redis_connection::{RedisCallError, RedisConfig, RedisConnection};

/// Integers of the script's reply for each limit.
const REPLY_INTEGERS: usize = 3;

/// Counters in Redis.
pub struct RedisCounters {
    calls: CombinedCalls,
}

impl RedisCounters {
    /// Starts connecting, and waits at most about a second for the first attempt. Does not fail if Redis is
    /// unreachable.
    pub async fn connect(config: &RedisConfig) -> Self {
        let connection = RedisConnection::open(config).await;
        let script = LimitsScript { connection, script: Script::new(LIMITS_SCRIPT) };
        let script = Arc::new(script);
        let call = move |requests| {
            let script = Arc::clone(&script);
            async move { script.charge(requests).await }
        };
        Self { calls: CombinedCalls::start(config.timeout, call) }
    }
}

#[async_trait]
impl SharedCounters for RedisCounters {
    async fn charge(&self, charges: &[Charge]) -> Result<Vec<QuotaStatus>, CountersUnavailable> {
        if charges.is_empty() {
            return Ok(Vec::new());
        }
        self.calls.charge(charges.to_vec()).await
    }
}

struct LimitsScript {
    connection: RedisConnection,
    script: Script,
}

impl LimitsScript {
    /// Charges requests one after the other, and returns the outcomes of each.
    async fn charge(
        &self,
        requests: Vec<Request>,
    ) -> Result<Vec<Vec<QuotaStatus>>, CountersUnavailable> {
        let charges = || requests.iter().flatten();
        let quotas = distinct_quotas(charges());
        let mut invocation = self.script.prepare_invoke();
        invocation.arg(quotas.len());
        for quota in &quotas {
            invocation.arg(quota.algorithm().name()).arg(quota.limit());
            invocation.arg(quota.window_ms()).arg(quota.burst());
        }
        for request in &requests {
            invocation.arg(request.len());
            for Charge { policy, quota, subject, cost } in request {
                let algorithm = quota.algorithm().name();
                invocation.key(limit_key(&policy.name, algorithm, quota.window_ms(), subject));
                // Lua counts from one.
                let index = quotas.iter().position(|known| known == quota).unwrap_or_default() + 1;
                invocation.arg(index).arg(*cost);
            }
        }
        // Sends the script's digest, and the script itself only to a server that does not know it yet.
        let run = async |mut redis| invocation.invoke_async(&mut redis).await;
        let reply: Vec<i64> = self.connection.call(run).await?;
        if reply.len() != charges().count() * REPLY_INTEGERS {
            return Err(CountersUnavailable("the script answered for other limits".to_owned()));
        }
        let mut statuses = reply.chunks_exact(REPLY_INTEGERS).map(status);
        Ok(requests.iter().map(|request| statuses.by_ref().take(request.len()).collect()).collect())
    }
}

/// Returns each quota once: a deployment has few.
fn distinct_quotas<'a>(charges: impl Iterator<Item = &'a Charge>) -> Vec<Quota> {
    let mut quotas = Vec::new();
    for Charge { quota, .. } in charges {
        if !quotas.contains(quota) {
            quotas.push(*quota);
        }
    }
    quotas
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
