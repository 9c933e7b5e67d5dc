//! One seed's run: faults for a while, then none, and the expected state must be reached within a time bound; then
//! other processes take over, records are appended, and the expected state must be reached again.

use std::sync::Arc;
use std::time::Duration;

use engine::metrics::EngineMetrics;
use runtime::metrics::Metrics;
use schemas::{BudgetId, CombinedTotals, PartitionId, Position};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::cache::{CacheServer, FixedDefinitions, budget_without_records};
use crate::cluster::Cluster;
use crate::counts::Counts;
use crate::dead_letters::DeadLetterServer;
use crate::flip::flip;
use crate::nemesis;
use crate::network::MAX_LATE_EFFECT_MS;
use crate::oracle::{CheckResult, require};
use crate::process::Servers;
use crate::store::StoreServer;
use crate::world::{InjectedBug, World};

/// Maximum time to recover: the longest stall, a late effect, and some retries at maximum backoff.
const MAX_RECOVERY_TIME: Duration = Duration::from_secs(10);
const RECOVERY_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Longer than any backoff, and than whatever the nemesis begins.
const LONG_SICKNESS: Duration = Duration::from_secs(8);

/// The result of one seed.
pub struct RunResult {
    pub counts: Counts,
    pub failure: Option<String>,
    pub trace: Vec<String>,
}

/// Runs one seed. The same seed gives the same run, down to the trace.
pub fn run(seed: u64, bug: Option<InjectedBug>) -> RunResult {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let world = Arc::new(World::new(seed, bug));
        let failed = Arc::clone(&world);
        tokio::select! {
            biased;
            () = failed.failed.notified() => {}
            () = simulate(Arc::clone(&world)) => {}
        }
        let (failure, trace) = world.end();
        RunResult { counts: world.counts(), failure, trace }
    })
}

async fn simulate(world: Arc<World>) {
    let dead_letters = Arc::new(DeadLetterServer::new(Arc::clone(&world)));
    let store = Arc::new(StoreServer::new(Arc::clone(&world), Arc::clone(&dead_letters)));
    let metrics = Metrics::new("simulation");
    let servers = Arc::new(Servers {
        cache: Arc::new(CacheServer::new(Arc::clone(&world), Arc::clone(&store))),
        definitions: Arc::new(FixedDefinitions::of(&world.log)),
        engine_metrics: EngineMetrics::new(&metrics).unwrap(),
        shadow_metrics: EngineMetrics::new(&Metrics::new("shadows")).unwrap(),
        metrics,
        world: Arc::clone(&world),
        store,
        dead_letters,
    });
    let (fault_events, events) = mpsc::unbounded_channel();
    // Part of the log is appended before any process starts.
    let before_healing = world.log.before_healing();
    world.log.append_to(world.draw(|rng| rng.usize(0..=before_healing)));
    let cluster = Cluster::start(servers, fault_events);
    let handler = Arc::clone(&cluster);
    tokio::spawn(async move { handler.handle_faults(events).await });

    let pause = world.draw_ms(1..=60);
    tokio::join!(
        nemesis::inject_faults(&cluster),
        nemesis::let_store_go_back(&cluster),
        nemesis::append(&cluster, before_healing, 12, pause)
    );
    world.heal();
    cluster.alive().iter().for_each(|process| process.control.cancel_fault());
    if world.plan.loses_commits || world.plan.goes_back {
        // An owner detects lost commits at its next commit. There may be none, so other processes take over.
        cluster.alive().iter().for_each(|process| cluster.crash(process));
    }
    recover(&cluster, "by itself").await;
    if world.plan.loses_rows {
        let dead = cluster.alive();
        dead.iter().for_each(|process| process.control.kill());
        // A late commit that states an earlier rows position would hide that rows are lost.
        sleep(Duration::from_millis(MAX_LATE_EFFECT_MS + 1)).await;
        for partition in world.log.count.partitions() {
            cluster.servers.store.lose_rows(world.active(partition)).await;
        }
        // Also a process that took over meanwhile: it still has the people in memory.
        dead.iter().chain(&cluster.alive()).for_each(|process| cluster.crash(process));
        recover(&cluster, "after rows were lost").await;
    }
    if world.plan.goes_back {
        let dead = cluster.alive();
        dead.iter().for_each(|process| process.control.kill());
        sleep(Duration::from_millis(MAX_LATE_EFFECT_MS + 1)).await;
        for partition in world.log.count.partitions() {
            cluster.servers.store.go_back(world.active(partition));
        }
        // Also a process that took over meanwhile: it still has the people in memory.
        dead.iter().chain(&cluster.alive()).for_each(|process| cluster.crash(process));
        recover(&cluster, "after the store went back").await;
    }
    if world.plan.sickens_one && world.log.count.get() > 1 {
        sicken_one(&cluster).await;
    }

    if world.plan.flips {
        flip(&cluster).await;
        recover(&cluster, "after the switch of generations").await;
    }

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
    recover(&cluster, "after the last takeover").await;
    let servers = &cluster.servers;
    world.count(|counts| {
        counts.fenced = servers.sum_of("fenced_total", "");
        counts.replayed_people = servers.sum_of("claim_retries_total", "rows_lost");
        counts.from_shadows = servers.sum_of("takeovers_total", "\"shadow\"");
        counts.prepared = servers.sum_of("takeovers_total", "\"read\"");
        counts.kept = servers.sum_of("takeovers_total", "\"kept\"");
        counts.handed_over = servers.sum_of("hand_overs_total", "claimed");
        counts.not_handed_over = servers.sum_of("hand_overs_total", "not_read");
        counts.records += world.log.len() as u64;
        counts.dead_letters += cluster.servers.dead_letters.len() as u64;
    });
    world.check(require(cluster.servers.dead_letters.len() == world.oracle.dead_letters(), || {
        "not every dead letter was appended".into()
    }));
}

/// One partition does not respond while every partition is taken over, and for long after that: all others are folded
/// as ever, and none of them changes its owner for it. Once it is well it is folded, too.
async fn sicken_one(cluster: &Arc<Cluster>) {
    let world = &cluster.world;
    let count = world.log.count.get();
    let unresponsive = PartitionId(world.draw(|rng| rng.u32(0..count)));
    world.set_fault(unresponsive, Some(world.draw_fault()));
    cluster.alive().iter().for_each(|process| cluster.crash(process));
    let pause = world.draw_ms(1..=20);
    let (appended, all) = (world.log.appended(), world.log.len());
    nemesis::append(cluster, appended + (all - appended) / 2, 12, pause).await;
    recover_all_except(cluster, Some(unresponsive), "while one partition does not respond").await;

    // What the nemesis had begun has ended by then.
    sleep(LONG_SICKNESS).await;
    let takeovers_of_others = || {
        let mut takeovers = world.takeovers.lock().clone();
        takeovers.remove(&unresponsive);
        takeovers
    };
    let before = takeovers_of_others();
    sleep(LONG_SICKNESS).await;
    let after = takeovers_of_others();
    world.check(require(before == after, || {
        format!("partition {unresponsive} did not respond, and others changed owners: {before:?}, {after:?}")
    }));
    world.set_fault(unresponsive, None);
    recover(cluster, "once the partition responds again").await;
}

/// Waits until the state equals the oracle's, within the time bound.
async fn recover(cluster: &Arc<Cluster>, how: &str) {
    recover_all_except(cluster, None, how).await;
}

async fn recover_all_except(cluster: &Arc<Cluster>, unresponsive: Option<PartitionId>, how: &str) {
    let healed = Instant::now();
    while let Err(missing) = is_exact(cluster, unresponsive).await {
        if healed.elapsed() > MAX_RECOVERY_TIME {
            let setbacks = check_setbacks(cluster);
            cluster.world.fail(format!(
                "no recovery {how} in {MAX_RECOVERY_TIME:?}: {missing}; setbacks: {setbacks:?}"
            ));
            // The failure ends the run.
            std::future::pending::<()>().await;
        }
        sleep(RECOVERY_POLL_INTERVAL).await;
    }
    cluster.world.check(check_setbacks(cluster));
    cluster.world.note(format_args!("exact {how} after {} ms", healed.elapsed().as_millis()));
}

/// Checks that totals, person rows and published totals equal the naive fold of the appended log.
async fn is_exact(cluster: &Cluster, unresponsive: Option<PartitionId>) -> CheckResult {
    let (world, store) = (&cluster.world, &cluster.servers.store);
    let mut ends = Vec::<Position>::new();
    for partition in
        world.log.count.partitions().filter(|partition| Some(*partition) != unresponsive)
    {
        let (id, end) = (world.active(partition), world.log.high(partition));
        let stored = store.stored(id).await.ok_or("not claimed yet")?;
        let position = stored.checkpoint.position;
        require(position == end, || format!("partition {partition} is at {position} of {end}"))?;
        world.oracle.check_stored(partition, &stored)?;
        store.check_all_rows(id, end).await?;
        ends.push(end);
    }
    if unresponsive.is_some() {
        // An aggregate that lacks a partition is not an answer.
        return Ok(());
    }
    let budgets = world.log.budgets.iter().map(|(budget, _)| budget.clone());
    for budget in budgets.chain([budget_without_records()]) {
        check_visible(cluster, &budget, &ends).await?;
    }
    Ok(())
}

/// Checks that no partition has halted, and that no owner has ended for a reason that the run does not have.
fn check_setbacks(cluster: &Cluster) -> CheckResult {
    let (plan, servers) = (&cluster.world.plan, &cluster.servers);
    let unexplained = [
        ("partition_halted", "", true),
        ("claim_retries_total", "log_gap", true),
        ("claim_retries_total", "read_failed", true),
        ("claim_retries_total", "commits_lost", !plan.loses_commits && !plan.goes_back),
        ("claim_retries_total", "rows_lost", !plan.loses_rows && !plan.goes_back),
        ("claim_retries_total", "prepared_people", !plan.loses_rows && !plan.goes_back),
    ];
    for (name, label, is_unexplained) in unexplained {
        let count = if is_unexplained { servers.sum_of(name, label) } else { 0 };
        require(count == 0, || format!("{name} {label} is {count}"))?;
    }
    Ok(())
}

async fn check_visible(cluster: &Cluster, budget: &BudgetId, ends: &[Position]) -> CheckResult {
    let visible = cluster.servers.cache.read_budget(budget).await;
    let term = cluster.world.registry().term();
    let expected = cluster.world.oracle.combined_at(budget, ends, term);
    let positions = |totals: &CombinedTotals| (totals.term, totals.positions.clone());
    require(visible.as_ref() == Some(&expected), || {
        let (found, expected) = (visible.as_ref().map(positions), positions(&expected));
        format!(
            "readers see outdated totals of {budget}, or none: {found:?}, expected {expected:?}"
        )
    })
}
