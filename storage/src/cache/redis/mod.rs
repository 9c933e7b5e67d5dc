//! The cache in Redis: a hash, an aggregate and a people count per budget, updated by one script. `schemas::redis`
//! owns the keys and the script.
//!
//! Several budgets are read with one `MGET`, which a Redis Cluster rejects for keys on different nodes. This adapter
//! needs one Redis server, or one primary with its replicas behind one address.

mod update_subscription;

use async_trait::async_trait;
use redis::Script;
use schemas::redis::{
    PUBLISH_SCRIPT, aggregate_key, parse_aggregate, partitions_key, people_key, publish_arguments,
};
use schemas::{BudgetId, CombinedTotals, PartitionCount, PartitionTotals};
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
        let mut invocation = self.publish.prepare_invoke();
        invocation.key(partitions_key(budget)).key(aggregate_key(budget)).key(people_key(budget));
        for argument in publish_arguments(budget, term, count, partitions) {
            invocation.arg(argument);
        }
        // Sends the script's digest, and the script itself only to a server that does not know it yet.
        let _changed: i64 = self
            .connection
            .call(async |mut redis| invocation.invoke_async(&mut redis).await)
            .await?;
        Ok(())
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
