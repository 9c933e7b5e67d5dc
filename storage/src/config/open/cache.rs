//! Opens what Redis keeps, or the memory of a single process: the cache, submission ids, counters of limits and
//! one-time codes.

use std::sync::Arc;
use std::time::Duration;

use runtime::limits::{LocalCounters, SharedCounters};

use crate::cache::Cache;
use crate::cache::memory::MemoryCache;
use crate::cache::redis::RedisCache;
use crate::config::{CacheKind, StorageConfig};
use crate::control::ActiveLog;
use crate::idempotency::Idempotency;
use crate::idempotency::layered::LayeredIdempotency;
use crate::idempotency::memory::{MemoryIdempotency, Retention};
use crate::idempotency::redis::{LogHasRecords, RedisIdempotency};
use crate::limits::redis::RedisCounters;
use crate::one_time_codes::OneTimeCodes;
use crate::one_time_codes::memory::MemoryOneTimeCodes;
use crate::one_time_codes::redis::RedisOneTimeCodes;
use crate::redis_connection::RedisConfig;

/// Submission ids that each ingest remembers itself, in front of Redis. About 50 MB.
const OWN_SUBMISSION_IDS: u64 = 250_000;
/// How much longer than all steps of an append an in-flight mark lasts: looking ids up and storing receipts takes time,
/// too.
const IN_FLIGHT_MARGIN: Duration = Duration::from_secs(3);

impl StorageConfig {
    /// Opens the cache, which may be unreachable.
    pub async fn open_cache(&self) -> Arc<dyn Cache> {
        match self.cache {
            CacheKind::Redis => Arc::new(RedisCache::connect(&self.redis).await),
            CacheKind::Memory => Arc::new(MemoryCache::new()),
        }
    }

    /// Opens the cache, if other processes can reach it.
    pub async fn open_shared_cache(&self) -> Option<Arc<dyn Cache>> {
        match self.cache {
            CacheKind::Redis => Some(self.open_cache().await),
            CacheKind::Memory => None,
        }
    }

    /// Opens the store of submission ids, which may be unreachable.
    pub async fn open_idempotency(&self, active_log: &Arc<dyn ActiveLog>) -> Arc<dyn Idempotency> {
        let in_flight = self.in_flight();
        match self.cache {
            CacheKind::Redis => {
                let log_has_records = self.log_has_records(active_log);
                let mut shared = RedisIdempotency::connect(&self.ids_redis, log_has_records).await;
                if let Some(former) = self.former_ids_redis() {
                    shared = shared.with_former(former).await;
                }
                let retention =
                    Retention { attempts: OWN_SUBMISSION_IDS, in_flight, ..Retention::default() };
                Arc::new(LayeredIdempotency::new(
                    MemoryIdempotency::new(retention),
                    shared.with_in_flight(in_flight),
                ))
            }
            CacheKind::Memory => {
                Arc::new(MemoryIdempotency::new(Retention { in_flight, ..Retention::default() }))
            }
        }
    }

    fn log_has_records(&self, active_log: &Arc<dyn ActiveLog>) -> LogHasRecords {
        let (storage, active_log) = (self.clone(), Arc::clone(active_log));
        Box::new(move || {
            let (storage, log) = (storage.clone(), storage.announced_log(active_log.as_ref()));
            Box::pin(async move { storage.has_records(&log).await.ok() })
        })
    }

    /// Opens the counters of rate limits, which may be unreachable.
    pub async fn open_limit_counters(&self) -> Arc<dyn SharedCounters> {
        match self.cache {
            CacheKind::Redis => Arc::new(RedisCounters::connect(&self.limits_redis).await),
            CacheKind::Memory => Arc::new(LocalCounters::default()),
        }
    }

    /// Opens the store of one-time codes, which may be unreachable.
    pub async fn open_one_time_codes(&self) -> Arc<dyn OneTimeCodes> {
        match self.cache {
            CacheKind::Redis => Arc::new(RedisOneTimeCodes::connect(&self.limits_redis).await),
            CacheKind::Memory => Arc::new(MemoryOneTimeCodes::default()),
        }
    }

    /// Returns where the release before stored submission ids, if ids are stored elsewhere now.
    fn former_ids_redis(&self) -> Option<&RedisConfig> {
        let is_another = self.redis.url.to_string() != self.ids_redis.url.to_string();
        is_another.then_some(&self.redis)
    }

    /// Returns how long a submission id is marked as in flight, besides the steps around its append: longer than any
    /// append takes.
    fn in_flight(&self) -> Duration {
        self.kafka.max_append_duration() + IN_FLIGHT_MARGIN
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use runtime::config::Settings;

    use super::*;

    #[test]
    fn ids_are_stored_where_limits_are_counted_unless_they_have_a_server_of_their_own() {
        let urls = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, host)| ((*key).into(), format!("redis://{host}")));
            let settings = Settings::from_pairs(pairs);
            let config = StorageConfig::read(&mut settings.reader()).unwrap();
            let former = config.former_ids_redis().map(|redis| redis.url.to_string());
            (config.ids_redis.url.to_string(), former)
        };
        let (cache, limits, ids) =
            (("redis.url", "cache"), ("redis.limits_url", "limits"), ("redis.ids_url", "ids"));
        let url = |host| format!("redis://{host}:6379/0");
        assert_eq!(urls(&[cache]), (url("cache"), None));
        assert_eq!(urls(&[cache, limits]), (url("limits"), Some(url("cache"))));
        assert_eq!(urls(&[cache, limits, ids]), (url("ids"), Some(url("cache"))));
        assert_eq!(urls(&[cache, limits, ("redis.ids_url", "cache")]), (url("cache"), None));
    }

    #[test]
    fn an_id_is_in_flight_for_longer_than_an_append() {
        for delivery_timeout_ms in [1_000, 60_000] {
            let setting = ("kafka.delivery_timeout_ms".to_owned(), delivery_timeout_ms.to_string());
            let settings = Settings::from_pairs([setting]);
            let config = StorageConfig::read(&mut settings.reader()).unwrap();
            let append = config.kafka.max_append_duration();
            assert!(append > Duration::from_millis(delivery_timeout_ms));
            assert!(config.in_flight() > append);
        }
    }
}
