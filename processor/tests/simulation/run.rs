//! One seed from beginning to end: everything goes wrong for a while, then nothing does, and all must come right by
//! itself within a bound; then somebody else takes over, and what is appended last must come right as well.

use std::sync::Arc;
use std::time::Duration;

use processor::ProcessorMetrics;
use runtime::metrics::Metrics;
use schemas::{BudgetId, Position};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::cache::{CacheServer, FixedDefinitions, silent_budget};
use crate::cluster::Cluster;
use crate::letters::LettersServer;
use crate::nemesis;
use crate::oracle::{Checked, require};
use crate::process::{Servers, partition_ref};
use crate::store::StoreServer;
use crate::world::{Counts, Sabotage, World};

/// How long healing may take: the longest stall, a late effect, and some retries with their longest pause.
const RECOVERY_BOUND: Duration = Duration::from_secs(10);
const RECOVERY_POLL: Duration = Duration::from_millis(20);

/// What one seed came to.
pub struct Ran {
    pub counts: Counts,
    pub wrong: Option<String>,
    pub trace: Vec<String>,
}

/// Runs one seed. The same seed gives the same run, to the last line of its trace.
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Ran {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let world = Arc::new(World::new(seed, sabotage));
        let failed = Arc::clone(&world);
        tokio::select! {
            biased;
            () = failed.failed.notified() => {}
            () = live(Arc::clone(&world)) => {}
        }
        let (wrong, trace) = world.end();
        Ran { counts: world.counts(), wrong, trace }
    })
}

async fn live(world: Arc<World>) {
    let letters = Arc::new(LettersServer::new(Arc::clone(&world)));
    let store = Arc::new(StoreServer::new(Arc::clone(&world), Arc::clone(&letters)));
    let servers = Arc::new(Servers {
        cache: Arc::new(CacheServer::new(Arc::clone(&world), Arc::clone(&store))),
        definitions: Arc::new(FixedDefinitions::of(&world.log)),
        metrics: ProcessorMetrics::new(&Metrics::new("simulation")).unwrap(),
        world: Arc::clone(&world),
        store,
        letters,
    });
    let (report, events) = mpsc::unbounded_channel();
    // Some of the log is there before anybody reads it.
    let main = world.log.before_epilogue();
    world.log.append_to(world.draw(|rng| rng.usize(0..=main)));
    let cluster = Cluster::start(servers, report);
    let following = Arc::clone(&cluster);
    tokio::spawn(async move { following.follow(events).await });

    let pause = world.draw_ms(1..=60);
    tokio::join!(nemesis::strike(&cluster), nemesis::append(&cluster, main, 12, pause));
    world.heal();
    cluster.alive().iter().for_each(|process| process.control.put_fuse_out());
    if world.plan.forgets {
        // An owner finds out at its next commit; here there may be none, so others take over.
        cluster.alive().iter().for_each(|process| cluster.crash(process));
    }
    recover(&cluster, "by itself").await;

    match world.draw(|rng| rng.u32(0..3)) {
        0 => {}
        1 => cluster.alive().iter().for_each(|process| cluster.crash(process)),
        _ => {
            for process in cluster.alive() {
                cluster.stop_cleanly(&process).await;
            }
        }
    }
    let pause = world.draw_ms(1..=20);
    nemesis::append(&cluster, world.log.len(), 12, pause).await;
    recover(&cluster, "after the last take-over").await;
    world.count(|counts| {
        counts.records += world.log.len() as u64;
        counts.dead_letters += cluster.servers.letters.len() as u64;
    });
    world.check(require(cluster.servers.letters.len() == world.oracle.dead_letters(), || {
        "not every dead letter was put away".into()
    }));
}

/// Waits until everything is as the log has it.
async fn recover(cluster: &Arc<Cluster>, how: &str) {
    let healed = Instant::now();
    while let Err(missing) = is_exact(cluster).await {
        if healed.elapsed() > RECOVERY_BOUND {
            cluster.world.fail(format!("no recovery {how} in {RECOVERY_BOUND:?}: {missing}"));
            // The run ends here.
            std::future::pending::<()>().await;
        }
        sleep(RECOVERY_POLL).await;
    }
    cluster.world.note(format_args!("exact {how} after {} ms", healed.elapsed().as_millis()));
}

/// Whether totals, people's rows and what readers see are the naive fold of the log to its end.
async fn is_exact(cluster: &Cluster) -> Checked {
    let (world, store) = (&cluster.world, &cluster.servers.store);
    let mut ends = Vec::<Position>::new();
    for partition in world.log.count.partitions() {
        let (id, end) = (partition_ref(partition), world.log.high(partition));
        let stored = store.stored(id).await.ok_or("not claimed yet")?;
        let position = stored.checkpoint.position;
        require(position == end, || format!("{partition} is at {position} of {end}"))?;
        world.oracle.check_stored(partition, &stored)?;
        store.check_all_rows(id, end).await?;
        ends.push(end);
    }
    let budgets = world.log.budgets.iter().map(|(budget, _)| budget.clone());
    for budget in budgets.chain([silent_budget()]) {
        check_shown(cluster, &budget, &ends).await?;
    }
    Ok(())
}

async fn check_shown(cluster: &Cluster, budget: &BudgetId, ends: &[Position]) -> Checked {
    let shown = cluster.servers.cache.show(budget).await;
    require(shown == Some(cluster.world.oracle.combined_at(budget, ends)), || {
        format!("readers see an old answer of {budget}, or none")
    })
}
