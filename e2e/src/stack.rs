//! The services on real servers: each test's own processes, topics, keyspace and Redis beside everyone else's.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::sync::OnceCell;

use crate::kafka::Kafka;
use crate::own_servers::Servers;
use crate::port::free_port;
use crate::process::binary;
use crate::redis_server::Redis;
use crate::scenario;
use crate::service::Service;
use crate::stores::{Keys, Tables, drop_keyspaces};
use crate::system::System;
use crate::wait::eventually;

const START_PATIENCE: Duration = Duration::from_secs(40);
const PREFIX: &str = "e2e_";

/// How many of each, and how they are set up.
#[derive(Debug, Clone)]
pub struct StackBuilder {
    /// How many ingests.
    pub ingests: usize,
    /// How many processors.
    pub processors: usize,
    /// How many APIs.
    pub apis: usize,
    /// The topic's partitions.
    pub partitions: u32,
    /// After how much silence a processor's partitions are given to others.
    pub session_timeout_ms: u32,
    /// More lines of configuration, `section.key=value`.
    pub settings: Vec<String>,
    /// Where the servers are; those that the environment names, if not given.
    pub servers: Option<Servers>,
    /// Where its Redis listens; anywhere, if not given.
    pub redis_port: Option<u16>,
    /// What single services have that the others have not, by name.
    pub special: HashMap<String, Special>,
}

/// What sets one service apart.
#[derive(Debug, Clone, Default)]
pub struct Special {
    /// More lines of configuration, `section.key=value`.
    pub settings: Vec<String>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
}

impl Default for StackBuilder {
    fn default() -> Self {
        Self {
            ingests: 1,
            processors: 1,
            apis: 1,
            partitions: 4,
            session_timeout_ms: 6_000,
            settings: Vec::new(),
            servers: None,
            redis_port: None,
            special: HashMap::new(),
        }
    }
}

impl StackBuilder {
    /// Starts everything and waits until it is ready and every partition is owned.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(self) -> Result<Stack> {
        let servers = match &self.servers {
            Some(servers) => servers.clone(),
            None => Servers::shared()?,
        };
        sweep(&servers).await;
        let serial = scenario::serial();
        let name = format!("{PREFIX}{}_{serial}", std::process::id());
        let dir = scenario::new_dir("stack")?;
        fs::write(dir.join("person.secret"), "the same secret for every run of a test")?;
        let redis_port = match self.redis_port {
            Some(port) => port,
            None => free_port()?,
        };
        let redis = Redis::start(&dir, redis_port)?;
        let mut stack = Stack {
            kafka: Kafka::at(&servers.kafka),
            servers,
            topic: name.clone(),
            keyspace: name,
            partitions: self.partitions,
            system: System::new(Vec::new(), Vec::new())?,
            ingests: Vec::new(),
            processors: Vec::new(),
            apis: Vec::new(),
            redis,
            started_processors: 0,
            builder: self,
            dir,
        };
        stack.start_services().await?;
        Ok(stack)
    }
}

/// Removes what test programs that ended left on the servers. What cannot be removed now is left to the next one.
async fn sweep(servers: &Servers) {
    static SWEPT: OnceCell<()> = OnceCell::const_new();
    SWEPT
        .get_or_init(async || {
            let _ = drop_keyspaces(&servers.scylla, is_left_behind).await;
            let _ = Kafka::at(&servers.kafka).delete_topics(is_left_behind).await;
        })
        .await;
}

/// Whether a name holds the process id of a test program that runs no more.
fn is_left_behind(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
}

/// The services of one test.
pub struct Stack {
    /// A plain client of its Kafka.
    pub kafka: Kafka,
    /// Where the servers are.
    pub servers: Servers,
    /// The topic of submissions.
    pub topic: String,
    /// The keyspace.
    pub keyspace: String,
    /// The topic's partitions.
    pub partitions: u32,
    /// HTTP to all ingests and APIs.
    pub system: System,
    /// The ingests.
    pub ingests: Vec<Service>,
    /// The processors.
    pub processors: Vec<Service>,
    /// The APIs.
    pub apis: Vec<Service>,
    /// Its own Redis.
    pub redis: Redis,
    started_processors: usize,
    builder: StackBuilder,
    dir: PathBuf,
}

impl Stack {
    /// One of each, on four partitions.
    pub fn builder() -> StackBuilder {
        StackBuilder::default()
    }

    async fn start_services(&mut self) -> Result<()> {
        let (ingests, processors, apis) =
            (self.builder.ingests, self.builder.processors, self.builder.apis);
        for number in 1..=ingests {
            self.ingests.push(self.service("ingest", number)?);
        }
        for _ in 0..processors {
            self.start_processor()?;
        }
        for number in 1..=apis {
            self.apis.push(self.service("api", number)?);
        }
        for service in self.services() {
            service.ready().await?;
        }
        let urls =
            |services: &[Service]| services.iter().map(|service| service.url.clone()).collect();
        self.system = System::new(urls(&self.ingests), urls(&self.apis))?;
        if processors > 0 {
            self.all_owned().await?;
        }
        Ok(())
    }

    /// Starts one more processor; it is ready when this returns, and owns nothing yet.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn add_processor(&mut self) -> Result<()> {
        self.start_processor()?;
        match self.processors.last_mut() {
            Some(processor) => processor.ready().await,
            None => Ok(()),
        }
    }

    /// Starts one more processor and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_processor(&mut self) -> Result<()> {
        // Numbers are not given again: each has its own log.
        self.started_processors += 1;
        let processor = self.service("processor", self.started_processors)?;
        self.processors.push(processor);
        Ok(())
    }

    /// All services.
    pub fn services(&mut self) -> impl Iterator<Item = &mut Service> {
        self.ingests.iter_mut().chain(&mut self.processors).chain(&mut self.apis)
    }

    fn service(&self, kind: &str, number: usize) -> Result<Service> {
        let port = free_port()?;
        let name = format!("{kind}-{number}");
        let config = self.dir.join(format!("{name}.toml"));
        fs::write(&config, self.config(kind, port))?;
        let mut arguments = vec!["--config".to_owned(), config.display().to_string()];
        let special = self.builder.special.get(&name).cloned().unwrap_or_default();
        for setting in self.builder.settings.iter().chain(&special.settings) {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        Service::start(
            name,
            &self.dir,
            binary(kind)?,
            arguments,
            special.environment,
            format!("http://127.0.0.1:{port}"),
        )
    }

    /// Where everyone's log is, those included that are gone.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration of a service.
    pub fn config(&self, kind: &str, port: u16) -> String {
        let Self { servers, topic, keyspace, partitions, .. } = self;
        format!(
            r#"
            [log]
            kind = "kafka"
            partitions = {partitions}
            [store]
            kind = "scylla"
            [cache]
            kind = "redis"
            [kafka]
            brokers = "{kafka}"
            topic = "{topic}"
            definitions_topic = "{topic}_budgets"
            group = "{topic}"
            session_timeout_ms = {session}
            [scylla]
            nodes = "{scylla}"
            keyspace = "{keyspace}"
            replication_factor = 1
            [redis]
            url = "{redis}"
            [privacy]
            person_key_secret_file = "{dir}/person.secret"
            [telemetry]
            format = "json"
            [{kind}]
            listen = "127.0.0.1:{port}"
            "#,
            kafka = servers.kafka,
            scylla = servers.scylla,
            session = self.builder.session_timeout_ms,
            redis = self.redis.url(),
            dir = self.dir.display(),
        )
    }

    /// A plain client of its tables.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn tables(&self) -> Result<Tables> {
        Tables::open(&self.servers.scylla, &self.keyspace).await
    }

    /// A plain client of its Redis.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn keys(&self) -> Result<Keys> {
        Keys::open(&self.redis.url()).await
    }

    /// How many partitions each processor says that it owns; none for one that does not answer.
    pub async fn owned(&self) -> Vec<u32> {
        let mut owned = Vec::new();
        for processor in &self.processors {
            owned.push(
                processor.metric("allocator_processor_partition_owned{").await.unwrap_or(0.0)
                    as u32,
            );
        }
        owned
    }

    /// Waits until every partition is owned once.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn all_owned(&self) -> Result<()> {
        self.owned_so(|_| true).await
    }

    /// Waits until every partition is owned once, and each processor's share is as `fair` says.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn owned_so(&self, fair: impl Fn(&[u32]) -> bool) -> Result<()> {
        eventually("every partition has its owner", START_PATIENCE, async || {
            let owned = self.owned().await;
            ensure!(
                owned.iter().sum::<u32>() == self.partitions && fair(&owned),
                "owned are {owned:?}"
            );
            Ok(())
        })
        .await
    }

    /// Waits until everything that is in the log now is committed.
    ///
    /// # Errors
    /// When it is not within the bound.
    pub async fn caught_up(&self, bound: Duration) -> Result<()> {
        let tables = self.tables().await?;
        eventually("the totals reach the end of the log", bound, async || {
            let ends = self.kafka.ends(&self.topic).await?;
            for (partition, end) in (0..).zip(ends) {
                let position =
                    tables.partition(partition).await?.map_or(0, |stored| stored.position);
                ensure!(position == end, "partition {partition} is at {position} of {end}");
            }
            Ok(())
        })
        .await
    }
}
