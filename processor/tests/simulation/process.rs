//! A processor's process: its publisher, and an owner for each partition that it believes to have. What the coordinator
//! does with the log's group, this does with the simulated one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use processor::ProcessorMetrics;
use processor::partition::{
    ClaimError, Ended, Partition, PartitionParts, Progress, check_log, claim,
};
use processor::publisher::Publisher;
use schemas::{Generation, LogRef, PartitionId, Position, Term};
use storage::log::{LogIdentity, RecordBatch};
use storage::store::PartitionRef;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cache::{CacheClient, CacheServer, FixedDefinitions};
use crate::cluster::Cluster;
use crate::control::Control;
use crate::letters::{LettersClient, LettersServer};
use crate::network::Link;
use crate::store::{StoreClient, StoreServer};
use crate::world::{World, lock};

const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// What every process talks to.
pub struct Servers {
    pub world: Arc<World>,
    pub store: Arc<StoreServer>,
    pub letters: Arc<LettersServer>,
    pub cache: Arc<CacheServer>,
    pub definitions: Arc<FixedDefinitions>,
    pub metrics: ProcessorMetrics,
}

pub struct Process {
    pub number: usize,
    pub control: Arc<Control>,
    name: String,
    servers: Arc<Servers>,
    store: Arc<StoreClient>,
    letters: Arc<LettersClient>,
    publisher: Arc<Publisher>,
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
    /// Starts a process that owns nothing yet.
    pub fn start(servers: Arc<Servers>, control: Arc<Control>, number: usize) -> Arc<Self> {
        let world = Arc::clone(&servers.world);
        let link = Link { world: Arc::clone(&world) };
        let cache = CacheClient { server: Arc::clone(&servers.cache), link: link.clone() };
        let publisher = Arc::new(Publisher::new(
            Arc::new(cache),
            Arc::clone(&servers.definitions) as _,
            servers.metrics.clone(),
        ));
        publisher.answer_in(Term::FIRST, world.log.count);
        let process = Arc::new(Self {
            number,
            control,
            name: format!("process {number}"),
            store: Arc::new(StoreClient { server: Arc::clone(&servers.store), link: link.clone() }),
            letters: Arc::new(LettersClient { server: Arc::clone(&servers.letters), link }),
            publisher: Arc::clone(&publisher),
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

    /// Owns the partition, again and again, as long as the group says so.
    pub fn own(self: &Arc<Self>, cluster: &Arc<Cluster>, partition: PartitionId) {
        let (process, cluster) = (Arc::clone(self), Arc::clone(cluster));
        let mut owners = lock(&self.owners);
        let task = self.control.spawn(async move {
            while cluster.is_assigned(partition, process.number) {
                let stop = CancellationToken::new();
                if let Some(owner) = lock(&process.owners).get_mut(&partition) {
                    owner.stop = stop.clone();
                }
                process.live(partition, stop).await;
                process.publisher.forget(partition_ref(partition));
                sleep(process.servers.world.draw_ms(1..=100)).await;
            }
            lock(&process.owners).remove(&partition);
        });
        owners.insert(partition, Owner { stop: CancellationToken::new(), task });
    }

    /// Asks the owner to let go, with a last commit.
    pub fn release(&self, partition: PartitionId) {
        if let Some(owner) = lock(&self.owners).get(&partition) {
            owner.stop.cancel();
        }
    }

    /// Ends the owner where it waits: somebody else may own the partition already.
    pub fn lose(&self, partition: PartitionId) {
        if let Some(owner) = lock(&self.owners).remove(&partition) {
            owner.task.abort();
            self.publisher.forget(partition_ref(partition));
        }
    }

    /// Ends the publisher, after it has told everything.
    pub fn stop_publishing(&self) {
        self.stop_publisher.cancel();
    }

    /// One life of an owner, from its claim.
    async fn live(&self, partition: PartitionId, stop: CancellationToken) {
        let (world, id) = (&self.servers.world, partition_ref(partition));
        let claimed_at = Instant::now();
        let claiming = claim(self.store.as_ref(), id, &self.name);
        let stored = match timeout(CLAIM_TIMEOUT, claiming).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(ClaimError::Corrupt(wrong))) => return world.fail(wrong),
            Ok(Err(ClaimError::Outrun)) | Err(_) => return,
        };
        let identity = LogIdentity { cluster_id: "simulated".into(), topic_id: "log".into() };
        let bounds = world.log.bounds(partition);
        let resume = match check_log(&stored.checkpoint, &identity, bounds) {
            Ok(resume) => resume,
            Err(halted) => return world.fail(format!("halted at the claim: {halted}")),
        };
        world.note(format_args!(
            "{partition}: {} begins at {}, reads from {}",
            self.name, stored.checkpoint.position, resume.from
        ));
        world.count(|counts| counts.takeovers += 1);
        let progress = Arc::new(Progress::default());
        progress.set_high(bounds.high);
        let parts = PartitionParts {
            store: Arc::clone(&self.store) as _,
            dead_letters: Arc::clone(&self.letters) as _,
            publisher: Some(Arc::clone(&self.publisher)),
            turns_to_write: None,
            identity,
            log: LogRef::first("submissions", world.log.count),
            limits: world.plan.limits,
            metrics: self.servers.metrics.partition(partition),
            progress: Arc::clone(&progress),
        };
        let (records, inbox) = mpsc::channel(world.draw(|rng| rng.usize(1..=8)));
        let life = Partition::new(id, stored, resume, claimed_at, parts).run(inbox, stop);
        let ended = tokio::select! {
            biased;
            ended = life => ended,
            never = self.feed(partition, resume.from, records, &progress) => match never {},
        };
        world.note(format_args!("{partition}: {} ended: {ended}", self.name));
        match ended {
            Ended::Released => {}
            Ended::Fenced => world.count(|counts| counts.fenced += 1),
            Ended::StoreWentBack if world.plan.forgets => {
                world.count(|counts| counts.went_back += 1);
            }
            Ended::StoreWentBack | Ended::Halted(_) => world.fail(ended.to_string()),
        }
    }

    /// The source: delivers what the log holds, in batches of any size and at any pace, sometimes a record twice.
    async fn feed(
        &self,
        partition: PartitionId,
        from: Position,
        records: mpsc::Sender<RecordBatch>,
        progress: &Progress,
    ) -> std::convert::Infallible {
        let world = &self.servers.world;
        let most = world.draw(|rng| rng.u64(1..=40));
        let mut next = from.0;
        loop {
            let high = world.log.high(partition);
            progress.set_high(high);
            if next < high.0 {
                if next > from.0 && world.chance(3) {
                    next -= 1;
                }
                let end = high.0.min(next + world.draw(|rng| rng.u64(1..=most)));
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
