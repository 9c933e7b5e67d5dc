//! The cache in Redis: one hash, one aggregate and one count a budget, moved by one script. The keys and the script
//! are `schemas::redis`'s; here they are only sent.
//!
//! Several budgets are read with one `MGET`. A Redis Cluster keeps the keys of different budgets on different nodes
//! and refuses that; this adapter talks to one Redis server (or one primary with its replicas behind one address).

mod news;

use async_trait::async_trait;
use redis::Script;
use schemas::redis::{
    PUBLISH_SCRIPT, aggregate_key, parse_aggregate, partitions_key, people_key, publish_arguments,
};
use schemas::{BudgetId, CombinedTotals, PartitionCount, PartitionTotals};
use tokio::sync::broadcast;

use self::news::News;
use super::{Cache, CacheError, CacheUpdate};
use crate::redis_connection::{RedisFault, RedisLink};

pub use crate::redis_connection::{RedisConfig, RedisUrl, RedisUrlFault};

/// The cache in Redis.
pub struct RedisCache {
    link: RedisLink,
    news: News,
    publish: Script,
}

impl RedisCache {
    /// Begins to connect, and waits at most about two seconds for the first attempt. It does not fail when Redis is
    /// away: then calls fail at once until it is back.
    pub async fn connect(config: &RedisConfig) -> Self {
        let (link, news) = tokio::join!(RedisLink::open(config), News::listen(&config.url));
        Self { link, news, publish: Script::new(PUBLISH_SCRIPT) }
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
        // By its digest; a server that does not know the script yet is sent it.
        let sent =
            self.link.call(async |mut redis| invocation.invoke_async(&mut redis).await).await;
        let _moved: i64 = sent?;
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
        let sent = self.link.call(async |mut redis| command.query_async(&mut redis).await).await;
        let values: Vec<Option<Vec<u8>>> = sent?;
        if values.len() != budgets.len() {
            return Err(CacheError(
                "Redis gave another number of values than it was asked for".into(),
            ));
        }
        Ok(values.into_iter().map(|value| parse_aggregate(&value?)).collect())
    }

    fn subscribe(&self) -> broadcast::Receiver<CacheUpdate> {
        self.news.subscribe()
    }
}

impl From<RedisFault> for CacheError {
    fn from(fault: RedisFault) -> Self {
        Self(fault.to_string())
    }
}
