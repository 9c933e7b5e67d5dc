//! A simulated process: the engine's coordinator and publisher, and a log source in the place of Kafka's, which does
//! what the simulated consumer group says, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::coordinator::{Coordinator, CoordinatorDeps, ShadowOwners, Spawner};
use engine::metrics::EngineMetrics;
use engine::publisher::Publisher;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use runtime::health::{Health, HealthConfig};
use runtime::metrics::Metrics;
use schemas::{GenerationRegistry, PartitionId, Position};
use storage::log::{
    BoundsReader, LogBounds, PartitionHandler, ReadError, RecordBatch, Revocation, StartPosition,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cache::{CacheClient, CacheServer, FixedDefinitions};
use crate::control::Control;
use crate::dead_letters::{DeadLetterClient, DeadLetterServer};
use crate::log_reader::{SimulatedLogs, log_identity};
use crate::network::{Link, PartitionFault};
use crate::store::StoreServer;
use crate::store_client::StoreClient;
use crate::world::World;

const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// The servers that every process connects to.
pub struct Servers {
    pub world: Arc<World>,
    pub store: Arc<StoreServer>,
    pub dead_letters: Arc<DeadLetterServer>,
    pub cache: Arc<CacheServer>,
    pub definitions: Arc<FixedDefinitions>,
    /// Of all processes.
    pub metrics: Metrics,
    pub engine_metrics: EngineMetrics,
    /// Of all shadow partitions.
    pub shadow_metrics: EngineMetrics,
}

impl Servers {
    /// Sums the values of a metric whose labels contain `label`.
    pub fn sum_of(&self, name: &str, label: &str) -> u64 {
        let rendered = String::from_utf8(self.metrics.render()).unwrap();
        let name = format!("allocator_processor_{name}");
        let values = rendered.lines().filter_map(|line| {
            let (series, value) = line.split_once(' ')?;
            (series.starts_with(&name) && series.contains(label)).then_some(value)
        });
        values.map(|value| value.parse::<f64>().unwrap() as u64).sum()
    }
}

pub struct Process {
    pub number: usize,
    pub control: Arc<Control>,
    servers: Arc<Servers>,
    coordinator: Coordinator,
    bounds: Arc<dyn BoundsReader>,
    stop_publisher: CancellationToken,
    shadow_owners: Arc<ShadowOwners>,
    /// The registry as this process knows it.
    registry: watch::Sender<GenerationRegistry>,
    group: UnboundedSender<GroupCommand>,
    /// The partitions that the source has been assigned and not released.
    held: Mutex<BTreeSet<PartitionId>>,
}

/// What the consumer group tells a member.
enum GroupCommand {
    Assign(PartitionId),
    Revoke { partition: PartitionId, revocation: Revocation },
}

/// One partition that the source reads.
struct Cursor {
    next: u64,
    from: u64,
    max_batch: u64,
    /// A batch that the owner's queue had no capacity for.
    undelivered: Option<RecordBatch>,
}

/// Spawns a coordinator's tasks as tasks of a process.
struct ProcessSpawner(Arc<Control>);

impl Spawner for ProcessSpawner {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> JoinHandle<()> {
        self.0.spawn(task)
    }
}

/// Reads the simulated log's bounds, also of partitions whose leader is gone.
struct SimulatedBounds(Arc<World>);

#[async_trait]
impl BoundsReader for SimulatedBounds {
    async fn bounds(&self, partition: PartitionId) -> Result<LogBounds, ReadError> {
        let world = &self.0;
        if world.fault_of(partition) == Some(PartitionFault::NoLeader) {
            sleep(world.draw_ms(1..=200)).await;
            return Err(ReadError::Unavailable("the partition has no leader".into()));
        }
        sleep(world.draw_ms(0..=2)).await;
        Ok(world.log.bounds(partition))
    }
}

impl Process {
    /// Starts a process without partitions.
    pub fn start(servers: Arc<Servers>, control: Arc<Control>, number: usize) -> Arc<Self> {
        let world = Arc::clone(&servers.world);
        let link = Link { world: Arc::clone(&world) };
        let cache = CacheClient { server: Arc::clone(&servers.cache), link: link.clone() };
        let publisher = Arc::new(Publisher::new(
            Arc::new(cache),
            Arc::clone(&servers.definitions) as _,
            servers.engine_metrics.clone(),
        ));
        let registry = watch::Sender::new(world.registry());
        let shadow_owners = Arc::new(ShadowOwners::default());
        let deps = CoordinatorDeps {
            store: Arc::new(StoreClient { server: Arc::clone(&servers.store), link: link.clone() }),
            dead_letters: Arc::new(DeadLetterClient {
                server: Arc::clone(&servers.dead_letters),
                link,
            }),
            publisher: Arc::clone(&publisher),
            logs: Arc::new(SimulatedLogs(Arc::clone(&world))),
            shadow_owners: Arc::clone(&shadow_owners),
            identity: log_identity(),
            registry: registry.subscribe(),
            limits: world.plan.limits,
            commit_permits: Arc::new(Semaphore::new(world.draw(|rng| rng.usize(1..=3)))),
            claim_timeout: CLAIM_TIMEOUT,
            owner: format!("process-{number}"),
            metrics: servers.engine_metrics.clone(),
            check: Health::new(&HealthConfig::default()).check("partitions"),
        };
        let spawner = Box::new(ProcessSpawner(Arc::clone(&control)));
        let (group, commands) = mpsc::unbounded_channel();
        let process = Arc::new(Self {
            number,
            control,
            coordinator: Coordinator::with_spawner(deps, Handle::current(), spawner),
            bounds: Arc::new(SimulatedBounds(Arc::clone(&world))),
            stop_publisher: CancellationToken::new(),
            shadow_owners,
            registry,
            group,
            held: Mutex::default(),
            servers,
        });
        let stop = process.stop_publisher.clone();
        let interval = world.plan.republish_interval;
        process.control.spawn(async move { publisher.run(interval, stop).await });
        let source = Arc::clone(&process);
        process.control.spawn(async move { source.run_source(commands).await });
        process
    }

    pub fn servers(&self) -> &Arc<Servers> {
        &self.servers
    }

    pub fn shadow_owners(&self) -> &ShadowOwners {
        &self.shadow_owners
    }

    /// Spawns a task of this process.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.control.spawn(task);
    }

    /// The process gets to know a later registry.
    pub fn change_registry(&self, next: GenerationRegistry) {
        self.registry.send_if_modified(|known| {
            let is_later = next.revision > known.revision;
            if is_later {
                *known = next;
            }
            is_later
        });
    }

    /// Whether the source holds the partition.
    pub fn holds(&self, partition: PartitionId) -> bool {
        self.held.lock().contains(&partition)
    }

    /// The group assigns a partition; it may be assigned already.
    pub fn assign(&self, partition: PartitionId) {
        self.send_command(GroupCommand::Assign(partition));
    }

    /// The group revokes a partition: it is handed over, or sometimes released.
    pub fn revoke(&self, partition: PartitionId) {
        let moves = self.servers.world.chance(80);
        let revocation = if moves { Revocation::Moved } else { Revocation::Released };
        self.send_command(GroupCommand::Revoke { partition, revocation });
    }

    /// Waits until the moved partitions are claimed by other processes.
    pub async fn handed_over(&self) {
        self.coordinator.handed_over().await;
    }

    /// The group has given the partition away: its owner is aborted where it waits.
    pub fn lose(&self, partition: PartitionId) {
        self.send_command(GroupCommand::Revoke { partition, revocation: Revocation::Lost });
    }

    /// Stops the publisher after a last flush.
    pub fn stop_publishing(&self) {
        self.stop_publisher.cancel();
    }

    fn send_command(&self, command: GroupCommand) {
        // Fails only once the process is dead.
        let _ = self.group.send(command);
    }

    /// Follows the group and delivers records, as the log source's one thread does.
    async fn run_source(&self, mut commands: UnboundedReceiver<GroupCommand>) {
        let mut cursors = BTreeMap::new();
        loop {
            while let Ok(command) = commands.try_recv() {
                match command {
                    GroupCommand::Assign(partition) => {
                        self.held.lock().insert(partition);
                        self.coordinator.assigned(&[partition], &self.bounds);
                    }
                    GroupCommand::Revoke { partition, revocation } => {
                        self.coordinator.release(&[partition], revocation).await;
                        cursors.remove(&partition);
                        self.held.lock().remove(&partition);
                    }
                }
            }
            if self.coordinator.generation_changed() {
                self.coordinator.switch_in_place().await;
            }
            for (partition, start) in self.coordinator.take_starts() {
                cursors.remove(&partition);
                if let StartPosition::At(Position(next)) = start {
                    let max_batch = self.servers.world.draw(|rng| rng.u64(1..=40));
                    let cursor = Cursor { next, from: next, max_batch, undelivered: None };
                    cursors.insert(partition, cursor);
                }
            }
            for (partition, cursor) in &mut cursors {
                self.deliver(*partition, cursor);
            }
            sleep(self.servers.world.draw_ms(1..=20)).await;
        }
    }

    /// Delivers some of a partition's next records. Some are delivered twice.
    fn deliver(&self, partition: PartitionId, cursor: &mut Cursor) {
        let world = &self.servers.world;
        let has_leader = world.fault_of(partition) != Some(PartitionFault::NoLeader);
        let high = world.log.high(partition);
        self.coordinator.high_watermark(partition, high);
        while world.chance(70) {
            let batch = match cursor.undelivered.take() {
                Some(batch) => batch,
                None if has_leader && cursor.next < high.0 => {
                    if cursor.next > cursor.from && world.chance(3) {
                        cursor.next -= 1;
                    }
                    let records = world.draw(|rng| rng.u64(1..=cursor.max_batch));
                    let end = high.0.min(cursor.next + records);
                    let batch = world.log.batch(partition, cursor.next, end);
                    cursor.next = end;
                    batch
                }
                None => return,
            };
            if let Err(batch) = self.coordinator.deliver(batch, Duration::ZERO) {
                cursor.undelivered = Some(batch);
                return;
            }
        }
    }
}
