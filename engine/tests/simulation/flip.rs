//! Flips: another generation is folded from the log's beginning by shadow owners in the processes, catches up, and
//! becomes the active one, while processes crash and stall and partitions move.

use std::sync::Arc;
use std::time::Duration;

use engine::partition::{PartitionDeps, PartitionOwner, PartitionProgress, check_log, claim};
use schemas::{PartitionId, Position};
use storage::log::RecordBatch;
use storage::store::PartitionRef;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::control::ProcessFault;
use crate::dead_letters::DeadLetterClient;
use crate::log_reader::log_identity;
use crate::nemesis;
use crate::network::Link;
use crate::process::Process;
use crate::store_client::StoreClient;
use crate::world::World;

/// Time after which the shadow partitions that are still behind are begun again.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// How often they are, before the run fails.
const MAX_RESTARTS: usize = 4;
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Builds the next generation and makes it the active one.
pub async fn flip(cluster: &Arc<Cluster>) {
    let world = &cluster.world;
    let mut next = world.registry();
    (next.revision, next.term) = (next.revision + 1, next.term + 1);
    next.active.generation.0 += 1;
    let generation = next.active.generation;
    let ids: Vec<_> = world
        .log
        .count
        .partitions()
        .map(|partition| PartitionRef { generation, partition })
        .collect();

    let (appended, all) = (world.log.appended(), world.log.len());
    let pause = world.draw_ms(1..=20);
    tokio::join!(
        catch_up(cluster, &ids),
        nemesis::append(cluster, appended + (all - appended) / 2, 12, pause)
    );
    world.note(format_args!("generation {generation} becomes the active one"));
    world.count(|counts| counts.flips += 1);
    let disturbed = cluster.any_alive();
    match world.draw(|rng| rng.u32(0..4)) {
        0 => {
            disturbed.control.schedule_fault(world.draw(|rng| rng.u64(0..=60)), ProcessFault::Crash)
        }
        1 => {
            let stall = ProcessFault::Stall(world.draw_ms(5..=1_500));
            disturbed.control.schedule_fault(world.draw(|rng| rng.u64(0..=60)), stall);
        }
        2 => nemesis::rebalance(cluster, 2),
        _ => {}
    }
    world.set_registry(next.clone());
    for process in cluster.alive() {
        let (delay, next) = (world.draw_ms(0..=300), next.clone());
        tokio::spawn(async move {
            sleep(delay).await;
            process.change_registry(next);
        });
    }
    let appended = world.log.appended();
    nemesis::append(cluster, appended + (all - appended) / 2, 12, pause).await;
    // No fault is pending once the expected state is to be reached; every process knows the switch by then.
    sleep(Duration::from_millis(300)).await;
    cluster.alive().iter().for_each(|process| process.control.cancel_fault());
}

/// Lets shadow owners fold the partitions until they are at the log's end.
async fn catch_up(cluster: &Arc<Cluster>, ids: &[PartitionRef]) {
    for _ in 0..=MAX_RESTARTS {
        for id in ids {
            let process = cluster.any_alive();
            process.spawn(fold_shadow(Arc::clone(&process), *id));
        }
        let deadline = Instant::now() + RESTART_AFTER;
        while Instant::now() < deadline {
            if are_caught_up(cluster, ids).await {
                return;
            }
            sleep(POLL_INTERVAL).await;
        }
    }
    cluster.world.fail("the next generation does not catch up".into());
    // The failure ends the run.
    std::future::pending::<()>().await;
}

async fn are_caught_up(cluster: &Cluster, ids: &[PartitionRef]) -> bool {
    for id in ids {
        let stored = cluster.servers.store.stored(*id).await;
        let end = cluster.world.log.high(id.partition);
        if stored.is_none_or(|stored| stored.checkpoint.position < end) {
            return false;
        }
    }
    true
}

/// Folds a partition of the generation that is being built, until the coordinator takes its people, or another owner
/// claims it.
async fn fold_shadow(process: Arc<Process>, id: PartitionRef) {
    let (servers, world) = (process.servers(), &process.servers().world);
    let link = || Link { world: Arc::clone(world) };
    let store = Arc::new(StoreClient { server: Arc::clone(&servers.store), link: link() });
    let owner = format!("shadow-{}", process.number);
    let Ok(stored) = claim(store.as_ref(), id, &owner).await else { return };
    let bounds = world.log.bounds(id.partition);
    let resume = check_log(&stored.checkpoint, &log_identity(), bounds).unwrap();
    let deps = PartitionDeps {
        store,
        dead_letters: Arc::new(DeadLetterClient {
            server: Arc::clone(&servers.dead_letters),
            link: link(),
        }),
        publisher: None,
        commit_permits: Arc::new(Semaphore::new(1)),
        row_write_permits: Some(Arc::new(Semaphore::new(1))),
        identity: log_identity(),
        log: world.registry().active.log,
        limits: world.plan.limits,
        metrics: servers.shadow_metrics.partition(id.partition),
        progress: Arc::new(PartitionProgress::default()),
    };
    let stop = CancellationToken::new();
    let people = process.shadow_owners().register(id, stop.clone());
    let (records, inbox) = mpsc::channel(4);
    let from = resume.from;
    let partition = PartitionOwner::new(id, stored, resume, Instant::now(), deps);
    let run = partition.run_and_keep_people(inbox, stop);
    let ((_, kept), ()) = tokio::join!(run, feed(world, id.partition, from, records));
    if let Some(kept) = kept {
        // Fails if nobody waits for them.
        let _ = people.send(kept);
    }
}

/// Feeds a shadow owner the log's records until it has ended.
async fn feed(
    world: &World,
    partition: PartitionId,
    from: Position,
    records: mpsc::Sender<RecordBatch>,
) {
    let mut next = from.0;
    while !records.is_closed() {
        let high = world.log.high(partition).0;
        if next < high {
            let end = high.min(next + world.draw(|rng| rng.u64(1..=40)));
            let _ = records.send(world.log.batch(partition, next, end)).await;
            next = end;
        }
        sleep(world.draw_ms(1..=10)).await;
    }
}
