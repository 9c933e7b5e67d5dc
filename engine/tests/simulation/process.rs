//! A simulated process: a publisher, and an owner for each partition that it believes to own. Stands in for the
//! coordinator, with the simulated consumer group.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::metrics::EngineMetrics;
use engine::partition::{
    ClaimError, Partition, PartitionDeps, PartitionExit, PartitionProgress, check_log, claim,
};
use engine::publisher::Publisher;
use schemas::{Generation, LogRef, PartitionId, Position, Term};
use storage::log::{LogIdentity, RecordBatch};
use storage::store::PartitionRef;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cache::{CacheClient, CacheServer, FixedDefinitions};
use crate::cluster::Cluster;
use crate::control::Control;
use crate::dead_letters::{DeadLetterClient, DeadLetterServer};
use crate::network::Link;
use crate::store::StoreServer;
use crate::store_client::StoreClient;
use crate::world::{World, lock};

const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// The servers that every process connects to.
pub struct Servers {
    pub world: Arc<World>,
    pub store: Arc<StoreServer>,
    pub dead_letters: Arc<DeadLetterServer>,
    pub cache: Arc<CacheServer>,
    pub definitions: Arc<FixedDefinitions>,
    pub metrics: EngineMetrics,
}

pub struct Process {
    pub number: usize,
    pub control: Arc<Control>,
    name: String,
    servers: Arc<Servers>,
    store: Arc<StoreClient>,
    dead_letters: Arc<DeadLetterClient>,
    publisher: Arc<Publisher>,
    commit_permits: Arc<Semaphore>,
    stop_publisher: CancellationToken,
    owners: Mutex<BTreeMap<PartitionId, Owner>>,
}

struct Owner {
    stop: CancellationToken,
    task: AbortHandle,
}

pub fn partition_ref(partition: PartitionId) -> PartitionRef {
    PartitionRef { generation: Generation::FIRST, partition }
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
            servers.metrics.clone(),
        ));
        publisher.set_active_term(Term::FIRST, world.log.count);
        let process = Arc::new(Self {
            number,
            control,
            name: format!("process {number}"),
            store: Arc::new(StoreClient { server: Arc::clone(&servers.store), link: link.clone() }),
            dead_letters: Arc::new(DeadLetterClient {
                server: Arc::clone(&servers.dead_letters),
                link,
            }),
            publisher: Arc::clone(&publisher),
            commit_permits: Arc::new(Semaphore::new(world.draw(|rng| rng.usize(1..=3)))),
            stop_publisher: CancellationToken::new(),
            owners: Mutex::default(),
            servers,
        });
        let stop = process.stop_publisher.clone();
        let interval = world.plan.republish_interval;
        process.control.spawn(async move { publisher.run(interval, stop).await });
        process
    }

    pub fn owns(&self, partition: PartitionId) -> bool {
        lock(&self.owners).contains_key(&partition)
    }

    /// Owns the partition for as long as the group assigns it, and restarts its owner.
    pub fn own(self: &Arc<Self>, cluster: &Arc<Cluster>, partition: PartitionId) {
        let (process, cluster) = (Arc::clone(self), Arc::clone(cluster));
        let mut owners = lock(&self.owners);
        let task = self.control.spawn(async move {
            while cluster.is_assigned(partition, process.number) {
                let stop = CancellationToken::new();
                if let Some(owner) = lock(&process.owners).get_mut(&partition) {
                    owner.stop = stop.clone();
                }
                process.run_owner(partition, stop).await;
                process.publisher.forget(partition_ref(partition));
                sleep(process.servers.world.draw_ms(1..=100)).await;
            }
            lock(&process.owners).remove(&partition);
        });
        owners.insert(partition, Owner { stop: CancellationToken::new(), task });
    }

    /// Asks the owner to release the partition after a final commit.
    pub fn release(&self, partition: PartitionId) {
        if let Some(owner) = lock(&self.owners).get(&partition) {
            owner.stop.cancel();
        }
    }

    /// Aborts the owner where it waits: another process may already own the partition.
    pub fn lose(&self, partition: PartitionId) {
        if let Some(owner) = lock(&self.owners).remove(&partition) {
            owner.task.abort();
            self.publisher.forget(partition_ref(partition));
        }
    }

    /// Stops the publisher after a last flush.
    pub fn stop_publishing(&self) {
        self.stop_publisher.cancel();
    }

    /// Runs one owner, from its claim to its exit.
    async fn run_owner(&self, partition: PartitionId, stop: CancellationToken) {
        let (world, id) = (&self.servers.world, partition_ref(partition));
        let claimed_at = Instant::now();
        let claiming = claim(self.store.as_ref(), id, &self.name);
        let stored = match timeout(CLAIM_TIMEOUT, claiming).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(ClaimError::Corrupt(failure))) => return world.fail(failure),
            Ok(Err(ClaimError::LostClaimRace)) | Err(_) => return,
        };
        let identity = LogIdentity { cluster_id: "simulated".into(), topic_id: "log".into() };
        let bounds = world.log.bounds(partition);
        let resume = match check_log(&stored.checkpoint, &identity, bounds) {
            Ok(resume) => resume,
            Err(halted) => return world.fail(format!("halted at the claim: {halted}")),
        };
        world.note(format_args!(
            "{partition}: {} starts at {}, reads from {}",
            self.name, stored.checkpoint.position, resume.from
        ));
        world.count(|counts| counts.takeovers += 1);
        let progress = Arc::new(PartitionProgress::default());
        progress.set_high(bounds.high);
        let deps = PartitionDeps {
            store: Arc::clone(&self.store) as _,
            dead_letters: Arc::clone(&self.dead_letters) as _,
            publisher: Some(Arc::clone(&self.publisher)),
            commit_permits: Arc::clone(&self.commit_permits),
            row_write_permits: None,
            identity,
            log: LogRef::first("submissions", world.log.count),
            limits: world.plan.limits,
            metrics: self.servers.metrics.partition(partition),
            progress: Arc::clone(&progress),
        };
        let (records, inbox) = mpsc::channel(world.draw(|rng| rng.usize(1..=8)));
        let run = Partition::new(id, stored, resume, claimed_at, deps).run(inbox, stop);
        let exit = tokio::select! {
            biased;
            exit = run => exit,
            never = self.deliver(partition, resume.from, records, &progress) => match never {},
        };
        world.note(format_args!("{partition}: {} exited: {exit}", self.name));
        match exit {
            PartitionExit::Released => {}
            PartitionExit::Fenced => world.count(|counts| counts.fenced += 1),
            PartitionExit::CommitsLost if world.plan.loses_commits => {
                world.count(|counts| counts.went_back += 1);
            }
            PartitionExit::RowsLost(_) if world.plan.loses_rows => {
                world.count(|counts| counts.replayed_people += 1);
            }
            PartitionExit::CommitsLost
            | PartitionExit::RowsLost(_)
            | PartitionExit::LogGap { .. }
            | PartitionExit::Halted(_) => world.fail(exit.to_string()),
        }
    }

    /// Delivers the log's records in batches of any size and at any pace. Some records are delivered twice.
    async fn deliver(
        &self,
        partition: PartitionId,
        from: Position,
        records: mpsc::Sender<RecordBatch>,
        progress: &PartitionProgress,
    ) -> std::convert::Infallible {
        let world = &self.servers.world;
        let max_batch = world.draw(|rng| rng.u64(1..=40));
        let mut next = from.0;
        loop {
            let high = world.log.high(partition);
            progress.set_high(high);
            if next < high.0 {
                if next > from.0 && world.chance(3) {
                    next -= 1;
                }
                let end = high.0.min(next + world.draw(|rng| rng.u64(1..=max_batch)));
                if records.send(world.log.batch(partition, next, end)).await.is_err() {
                    std::future::pending::<()>().await;
                }
                next = end;
            }
            if next >= high.0 || world.chance(30) {
                sleep(world.draw_ms(1..=20)).await;
            }
        }
    }
}
