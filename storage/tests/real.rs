//! The contract suites for the adapters of real servers: Kafka, Cassandra (or ScyllaDB) and Redis, at the addresses in
//! `KAFKA_BROKERS`, `SCYLLA_NODES` and `REDIS_URL`. Without servers every test fails.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod contract;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use contract::log::PARTITIONS;
use contract::{build, cache, definitions, idempotency, jobs, limits, log, one_time_codes, store};
use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use schemas::{Generation, LogNumber, Offset, PartitionId, RecordAddress};
use scylla::client::session_builder::SessionBuilder;
use storage::cache::redis::{RedisCache, RedisConfig};
use storage::control::kafka::KafkaControlTopic;
use storage::idempotency::layered::LayeredIdempotency;
use storage::idempotency::memory::MemoryIdempotency;
use storage::idempotency::redis::RedisIdempotency;
use storage::limits::redis::RedisCounters;
use storage::log::DeadLetter;
use storage::log::kafka::{
    KafkaConfig, KafkaDeadLetterJournal, KafkaDeadLetterWriter, KafkaLogWriter, KafkaReader,
    KafkaSource,
};
use storage::one_time_codes::redis::RedisOneTimeCodes;
use storage::store::scylla::{ScyllaConfig, ScyllaStore};
use tokio::sync::watch;
use uuid::Uuid;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: start the servers with `local/up servers`, then eval \"$(local/env)\""
        )
    })
}

/// Topics of one test, deleted on drop.
struct Topics(KafkaConfig);

impl Topics {
    fn new() -> Self {
        let name = format!("contract-{}", Uuid::new_v4());
        Self(KafkaConfig {
            brokers: address("KAFKA_BROKERS"),
            control_topic: format!("{name}.budgets"),
            group: name.clone(),
            topic: name,
            partitions: build::count(PARTITIONS.into()),
            replication_factor: 1,
            session_timeout: Duration::from_secs(6),
            delivery_timeout: REQUEST_TIMEOUT,
            linger: Duration::from_millis(1),
        })
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let config = self.0.clone();
        let names = [config.topic.clone(), config.dead_letters_topic(), config.control_topic];
        let delete = move || {
            let mut client = ClientConfig::new();
            client.set("bootstrap.servers", &config.brokers);
            let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
            runtime.block_on(admin.delete_topics(&names, &options)).unwrap();
        };
        // On a thread of its own, since the test's runtime must not block.
        std::thread::spawn(delete).join().unwrap();
    }
}

mod kafka_log {
    use super::*;

    async fn fixture() -> log::Fixture {
        let topics = Topics::new();
        let config = topics.0.clone();
        let log = config.first_log();
        log::Fixture {
            writer: Arc::new(
                KafkaLogWriter::open(&config, &log, watch::channel(None).1).await.unwrap(),
            ),
            source: Mutex::new(Some(Box::new(KafkaSource::open(&config, &log).await.unwrap()))),
            reader: Arc::new(KafkaReader::open(&config, &log).await.unwrap()),
            log,
            dead_letter_writer: Arc::new(KafkaDeadLetterWriter::open(&config).unwrap()),
            dead_letter_journal: Arc::new(KafkaDeadLetterJournal::new(&config)),
            read_dead_letters: Box::new(move || {
                let config = config.clone();
                Box::pin(async move {
                    tokio::task::spawn_blocking(move || read_dead_letters(&config)).await.unwrap()
                })
            }),
            _kept: Box::new(topics),
        }
    }

    /// Reads all dead letters once. Asserts that repeated dead letters are equal.
    fn read_dead_letters(config: &KafkaConfig) -> Vec<DeadLetter> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &config.brokers)
            .set("group.id", "contract-dead-letters")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut start = rdkafka::TopicPartitionList::new();
        let topic = config.dead_letters_topic();
        start.add_partition_offset(&topic, 0, rdkafka::Offset::Beginning).unwrap();
        consumer.assign(&start).unwrap();
        let mut letters = BTreeMap::new();
        loop {
            match consumer.poll(REQUEST_TIMEOUT).expect("the dead letters can be read") {
                Ok(message) => {
                    let letter = parse_dead_letter(&message);
                    let source = letter.source;
                    let copy = letters.entry(source).or_insert_with(|| letter.clone());
                    assert_eq!(*copy, letter);
                }
                Err(KafkaError::PartitionEOF(_)) => return letters.into_values().collect(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn parse_dead_letter(message: &BorrowedMessage<'_>) -> DeadLetter {
        let header = |name: &str| -> String {
            let header = message.headers().unwrap().iter().find(|header| header.key == name);
            String::from_utf8(header.unwrap().value.unwrap().to_vec()).unwrap()
        };
        DeadLetter {
            source: RecordAddress {
                log: LogNumber(header("log").parse().unwrap()),
                partition: PartitionId(header("partition").parse().unwrap()),
                offset: Offset(header("offset").parse().unwrap()),
            },
            reason: header("reason"),
            key: message.key().unwrap().to_vec(),
            value: message.payload().unwrap_or_default().to_vec(),
        }
    }

    log::log_contract!(fixture());
}

mod scylla_store {
    use storage::store::Generations;

    use super::*;

    fn config(keyspace: &str) -> ScyllaConfig {
        ScyllaConfig {
            nodes: address("SCYLLA_NODES").split(',').map(str::to_owned).collect(),
            keyspace: keyspace.parse().unwrap(),
            replication_factor: 1,
            datacenter: None,
            credentials: None,
            request_timeout: REQUEST_TIMEOUT,
            connect_timeout: Duration::from_secs(60),
        }
    }

    async fn connect(config: &ScyllaConfig) -> store::Fixture {
        store::Fixture {
            store: Arc::new(ScyllaStore::connect(config).await.unwrap()),
            // The keyspace is shared with other tests and earlier runs.
            generation: Generation(Uuid::new_v4().as_u64_pair().0 as u32 >> 1),
            _kept: Box::new(()),
        }
    }

    async fn shared() -> store::Fixture {
        connect(&config("storage_contract")).await
    }

    async fn empty() -> store::Fixture {
        let config = config("storage_contract_empty");
        drop_keyspace(&config).await;
        connect(&config).await
    }

    async fn drop_keyspace(config: &ScyllaConfig) {
        let session = SessionBuilder::new().known_nodes(&config.nodes).build().await.unwrap();
        let drop = format!("DROP KEYSPACE IF EXISTS {}", config.keyspace);
        session.query_unpaged(drop, ()).await.unwrap();
        session.await_schema_agreement().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_connects_without_a_keyspace_all_succeed() {
        let config = config("storage_contract_new");
        for _ in 0..3 {
            drop_keyspace(&config).await;
            let all = (0..8).map(|_| ScyllaStore::connect(&config));
            for connected in futures_util::future::join_all(all).await {
                let store = connected.map_err(|error| error.to_string()).unwrap();
                assert_eq!(store.registry().await, Ok(None));
            }
        }
    }

    async fn jobs_fixture() -> jobs::Fixture {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let config = config(&format!("storage_contract_jobs_{number}"));
        drop_keyspace(&config).await;
        jobs::Fixture {
            jobs: Arc::new(ScyllaStore::connect(&config).await.unwrap()),
            _kept: Box::new(()),
        }
    }

    store::store_contract!(shared(), empty());
    jobs::jobs_contract!(jobs_fixture());
}

fn redis_config() -> RedisConfig {
    RedisConfig { url: address("REDIS_URL").parse().unwrap(), timeout: REQUEST_TIMEOUT }
}

mod redis_cache {
    use schemas::BudgetId;
    use schemas::redis::{aggregate_key, partitions_key, people_key};
    use storage::cache::Cache;

    use super::*;

    async fn fixture() -> cache::Fixture {
        let cache: Arc<dyn Cache> = Arc::new(RedisCache::connect(&redis_config()).await);
        let same = Arc::clone(&cache);
        let lose = move |budget: BudgetId| {
            let cache = Arc::clone(&same);
            Box::pin(async move {
                delete(&budget).await;
                cache
            }) as _
        };
        cache::Fixture { cache, lose: Box::new(lose) }
    }

    async fn delete(budget: &BudgetId) {
        let client = redis::Client::open(address("REDIS_URL")).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut delete = redis::cmd("DEL");
        delete.arg(partitions_key(budget)).arg(aggregate_key(budget)).arg(people_key(budget));
        let deleted: u64 = delete.query_async(&mut connection).await.unwrap();
        assert_eq!(deleted, 3);
    }

    cache::cache_contract!(fixture());
}

mod kafka_definitions {
    use storage::log::kafka::KafkaLogWriter;

    use super::*;

    async fn fixture() -> definitions::Fixture {
        let topics = Topics::new();
        // Creates the topics.
        let (config, active_log) = (&topics.0, watch::channel(None).1);
        drop(KafkaLogWriter::open(config, &config.first_log(), active_log).await.unwrap());
        let open = || Arc::new(KafkaControlTopic::open(&topics.0).unwrap());
        definitions::Fixture {
            ours: open(),
            rival: open(),
            follower: open(),
            _kept: Box::new(topics),
        }
    }

    definitions::definitions_contract!(fixture());
}

mod redis_one_time_codes {
    use super::*;

    async fn fixture() -> one_time_codes::Fixture {
        Arc::new(RedisOneTimeCodes::connect(&redis_config()).await)
    }

    one_time_codes::one_time_codes_contract!(fixture());
}

mod redis_limits {
    use super::*;

    async fn fixture() -> limits::Fixture {
        Arc::new(RedisCounters::connect(&redis_config()).await)
    }

    limits::limits_contract!(fixture());
}

mod redis_idempotency {
    use super::*;

    async fn fixture() -> idempotency::Fixture {
        Arc::new(
            RedisIdempotency::connect(
                &redis_config(),
                Box::new(|| Box::pin(async { Some(false) })),
            )
            .await,
        )
    }

    idempotency::idempotency_contract!(fixture());
}

mod layered_idempotency {
    use super::*;

    async fn fixture() -> idempotency::Fixture {
        let shared = RedisIdempotency::connect(
            &redis_config(),
            Box::new(|| Box::pin(async { Some(false) })),
        )
        .await;
        Arc::new(LayeredIdempotency::new(MemoryIdempotency::default(), shared))
    }

    idempotency::idempotency_contract!(fixture());
}
