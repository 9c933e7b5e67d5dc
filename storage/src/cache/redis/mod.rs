//! The cache in Redis: a hash, an aggregate and a people count per budget, updated by one script. `schemas::redis`
//! owns the keys and the script.
//!
//! Several budgets are read with one `MGET`, which a Redis Cluster rejects for keys on different nodes. This adapter
//! needs one Redis server, or one primary with its replicas behind one address.

mod update_subscription;

use async_trait::async_trait;
use redis::Script;
use schemas::redis::{
    PUBLISH_SCRIPT, aggregate_key, compare_arguments, parse_aggregate, publish_arguments,
    publish_keys,
};
use schemas::{
    BudgetId, CombinedTotals, PartitionCount, PartitionId, PartitionTotals, Position, Term,
};
use tokio::sync::broadcast;

use self::update_subscription::UpdateSubscription;
use super::{Cache, CacheError, CacheUpdate};
use crate::redis_connection::{RedisCallError, RedisConnection};

pub use crate::redis_connection::{InvalidRedisUrl, RedisConfig, RedisUrl};

/// The cache in Redis.
pub struct RedisCache {
    connection: RedisConnection,
    updates: UpdateSubscription,
    publish: Script,
}

impl RedisCache {
    /// Starts connecting, and waits at most about two seconds for the first attempt. If Redis is unreachable, calls
    /// fail at once until it is reachable.
    pub async fn connect(config: &RedisConfig) -> Self {
        let (connection, updates) =
            tokio::join!(RedisConnection::open(config), UpdateSubscription::start(&config.url));
        Self { connection, updates, publish: Script::new(PUBLISH_SCRIPT) }
    }

    /// Runs the script, which returns the compared partitions that are outdated.
    async fn run_script(
        &self,
        budget: &BudgetId,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Vec<u32>, CacheError> {
        let mut invocation = self.publish.prepare_invoke();
        for key in publish_keys(budget) {
            invocation.key(key);
        }
        for argument in arguments {
            invocation.arg(argument);
        }
        // Sends the script's digest, and the script itself only to a server that does not know it yet.
        let run = async |mut redis| invocation.invoke_async(&mut redis).await;
        Ok(self.connection.call(run).await?)
    }
}

#[async_trait]
impl Cache for RedisCache {
    async fn publish(
        &self,
        budget: &BudgetId,
        count: PartitionCount,
        partitions: &[PartitionTotals],
    ) -> Result<(), CacheError> {
        let Some(term) = partitions.first().map(|part| part.term) else {
            return Ok(());
        };
        self.run_script(budget, publish_arguments(budget, term, count, partitions)).await?;
        Ok(())
    }

    async fn outdated_partitions(
        &self,
        budget: &BudgetId,
        term: Term,
        count: PartitionCount,
        positions: &[(PartitionId, Position)],
    ) -> Result<Vec<PartitionId>, CacheError> {
        let arguments = compare_arguments(budget, term, count, positions);
        let outdated = self.run_script(budget, arguments).await?;
        Ok(outdated.into_iter().map(PartitionId).collect())
    }

    async fn read(&self, budgets: &[BudgetId]) -> Result<Vec<Option<CombinedTotals>>, CacheError> {
        if budgets.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("MGET");
        for budget in budgets {
            command.arg(aggregate_key(budget));
        }
        let values: Vec<Option<Vec<u8>>> =
            self.connection.call(async |mut redis| command.query_async(&mut redis).await).await?;
        if values.len() != budgets.len() {
            return Err(CacheError(
                "Redis returned another number of values than keys were requested".into(),
            ));
        }
        Ok(values.into_iter().map(|value| parse_aggregate(&value?)).collect())
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        self.updates.subscribe()
    }
}

impl From<RedisCallError> for CacheError {
    fn from(error: RedisCallError) -> Self {
        Self(error.to_string())
    }
}
