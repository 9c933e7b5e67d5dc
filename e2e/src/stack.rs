//! The services on real servers. Each test has its own processes, topics, keyspace and Redis.

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

const START_TIMEOUT: Duration = Duration::from_secs(120);
const PREFIX: &str = "e2e_";
const ADMIN_TOKEN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// The digest by `printf %s TOKEN | sha256sum`.
const ADMIN_TOKENS_FILE: &str =
    "anna admin sha256:3ba3f5f43b92602683c19aee62a20342b084dd5971ddd33808d81a328879a547\n";

/// The number of services and their settings.
#[derive(Debug, Clone)]
pub struct StackBuilder {
    /// Number of ingests.
    pub ingests: usize,
    /// Number of processors.
    pub processors: usize,
    /// Number of APIs.
    pub apis: usize,
    /// Number of partitions of the topic.
    pub partitions: u32,
    /// Kafka session timeout of the processors, in milliseconds.
    pub session_timeout_ms: u32,
    /// Additional settings, `section.key=value`.
    pub settings: Vec<String>,
    /// The servers. Default: from the environment.
    pub servers: Option<Servers>,
    /// Port of the stack's Redis. Default: any free port.
    pub redis_port: Option<u16>,
    /// Settings of single services, by name.
    pub overrides: HashMap<String, ServiceOverrides>,
    /// The topic, which may exist already, and the keyspace; from [`Stack::unique_name`]. Default: a new one.
    pub name: Option<String>,
    /// The folder of the services' binaries. Default: that of [`binary`].
    pub bin_dir: Option<PathBuf>,
}

/// Additional settings and environment of one service.
#[derive(Debug, Clone, Default)]
pub struct ServiceOverrides {
    /// Additional settings, `section.key=value`.
    pub settings: Vec<String>,
    /// Environment variables.
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
            overrides: HashMap::new(),
            name: None,
            bin_dir: None,
        }
    }
}

impl StackBuilder {
    /// Starts the stack and waits until all services are ready and every partition is owned.
    ///
    /// # Errors
    /// When a service does not become ready.
    pub async fn start(self) -> Result<Stack> {
        let servers = match &self.servers {
            Some(servers) => servers.clone(),
            None => Servers::shared()?,
        };
        drop_leftovers(&servers).await;
        let name = self.name.clone().unwrap_or_else(Stack::unique_name);
        let dir = scenario::new_dir("stack")?;
        fs::write(dir.join("person.secret"), "the same secret for every run of a test")?;
        fs::write(dir.join("admin.token"), ADMIN_TOKEN)?;
        fs::write(dir.join("admin.tokens"), ADMIN_TOKENS_FILE)?;
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

/// Drops keyspaces and topics of test programs that have exited. Failures are left to the next program.
async fn drop_leftovers(servers: &Servers) {
    static DROPPED: OnceCell<()> = OnceCell::const_new();
    DROPPED
        .get_or_init(async || {
            let _ = drop_keyspaces(&servers.scylla, is_leftover).await;
            let _ = Kafka::at(&servers.kafka).delete_topics(is_leftover).await;
        })
        .await;
}

/// Whether a name contains the process id of a test program that has exited.
fn is_leftover(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
}

/// The services of one test.
pub struct Stack {
    /// Client of the stack's Kafka.
    pub kafka: Kafka,
    /// The servers.
    pub servers: Servers,
    /// The topic of submissions.
    pub topic: String,
    /// The keyspace.
    pub keyspace: String,
    /// Number of partitions of the topic.
    pub partitions: u32,
    /// HTTP client of all ingests and APIs.
    pub system: System,
    /// The ingests.
    pub ingests: Vec<Service>,
    /// The processors.
    pub processors: Vec<Service>,
    /// The APIs.
    pub apis: Vec<Service>,
    /// The stack's own Redis.
    pub redis: Redis,
    started_processors: usize,
    builder: StackBuilder,
    dir: PathBuf,
}

impl Stack {
    /// One service of each kind, on four partitions.
    pub fn builder() -> StackBuilder {
        StackBuilder::default()
    }

    /// A name for a topic and a keyspace that no other stack has.
    pub fn unique_name() -> String {
        format!("{PREFIX}{}_{}", std::process::id(), scenario::serial())
    }

    /// The topics of a stack besides the log's, with their cleanup policies. The services create missing ones.
    pub fn auxiliary_topics(name: &str) -> [(String, &'static str); 2] {
        [(format!("{name}_budgets"), "compact"), (format!("{name}.dead-letters"), "delete")]
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
        let (writes, reads) = (urls(&self.ingests), urls(&self.apis));
        self.system = System::new(writes, reads)?.with_token(ADMIN_TOKEN)?;
        if processors > 0 {
            self.wait_until_all_owned().await?;
        }
        Ok(())
    }

    /// Starts one more processor and waits until it is ready. It may own no partition yet.
    ///
    /// # Errors
    /// When the processor does not become ready.
    pub async fn add_processor(&mut self) -> Result<()> {
        self.start_processor()?;
        match self.processors.last_mut() {
            Some(processor) => processor.ready().await,
            None => Ok(()),
        }
    }

    /// Starts one more processor without waiting for readiness.
    ///
    /// # Errors
    /// When the processor cannot be started.
    pub fn start_processor(&mut self) -> Result<()> {
        // Numbers are not reused, because each processor has its own log file.
        self.started_processors += 1;
        let processor = self.service("processor", self.started_processors)?;
        self.processors.push(processor);
        Ok(())
    }

    /// Starts one more service as another build of its program, without waiting for readiness. It is none of
    /// [`Self::services`].
    ///
    /// # Errors
    /// When the service cannot be started.
    pub fn start_beside(&self, kind: &str, program: PathBuf) -> Result<Service> {
        let name = format!("{kind}-beside-{}", scenario::serial());
        self.start_service(kind, name, program)
    }

    /// All services.
    pub fn services(&mut self) -> impl Iterator<Item = &mut Service> {
        self.ingests.iter_mut().chain(&mut self.processors).chain(&mut self.apis)
    }

    fn service(&self, kind: &str, number: usize) -> Result<Service> {
        let program = match &self.builder.bin_dir {
            Some(dir) => dir.join(kind),
            None => binary(kind)?,
        };
        self.start_service(kind, format!("{kind}-{number}"), program)
    }

    fn start_service(&self, kind: &str, name: String, program: PathBuf) -> Result<Service> {
        let port = free_port()?;
        let config = self.dir.join(format!("{name}.toml"));
        fs::write(&config, self.config(kind, port))?;
        let mut arguments = vec!["--config".to_owned(), config.display().to_string()];
        let overrides = self.builder.overrides.get(&name).cloned().unwrap_or_default();
        for setting in self.builder.settings.iter().chain(&overrides.settings) {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        Service::start(
            name,
            &self.dir,
            program,
            arguments,
            overrides.environment,
            format!("http://127.0.0.1:{port}"),
        )
    }

    /// The file of an administrator's token.
    pub fn token_file(&self) -> PathBuf {
        self.dir.join("admin.token")
    }

    /// The directory of all log files, including those of exited processes.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Builds the configuration file of a service.
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
            [admin]
            tokens_file = "{dir}/admin.tokens"
            requests_per_minute = 100000
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

    /// Connects to the stack's tables.
    ///
    /// # Errors
    /// When no node responds.
    pub async fn tables(&self) -> Result<Tables> {
        Tables::open(&self.servers.scylla, &self.keyspace).await
    }

    /// Connects to the stack's Redis.
    ///
    /// # Errors
    /// When Redis does not respond.
    pub async fn keys(&self) -> Result<Keys> {
        Keys::open(&self.redis.url()).await
    }

    /// Number of partitions that each processor reports as owned, 0 if it does not respond.
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

    /// Waits until every partition has one owner.
    ///
    /// # Errors
    /// When it does not within the timeout.
    pub async fn wait_until_all_owned(&self) -> Result<()> {
        self.wait_until_owned(|_| true).await
    }

    /// Waits until every partition has one owner and the distribution satisfies `fair`.
    ///
    /// # Errors
    /// When it does not within the timeout.
    pub async fn wait_until_owned(&self, fair: impl Fn(&[u32]) -> bool) -> Result<()> {
        eventually("every partition has an owner", START_TIMEOUT, async || {
            let owned = self.owned().await;
            ensure!(
                owned.iter().sum::<u32>() == self.partitions && fair(&owned),
                "owned partitions per processor: {owned:?}"
            );
            Ok(())
        })
        .await
    }

    /// Waits until the current end of the log is committed.
    ///
    /// # Errors
    /// When it is not within `timeout`.
    pub async fn wait_until_caught_up(&self, timeout: Duration) -> Result<()> {
        let tables = self.tables().await?;
        eventually("the totals reach the end of the log", timeout, async || {
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
