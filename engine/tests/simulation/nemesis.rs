//! Fault injection, drawn from the seed; and the pace at which the log grows.

use std::sync::Arc;
use std::time::Duration;

use schemas::PartitionId;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::control::ProcessFault;
use crate::network::{Condition, Service};

/// Injects the plan's number of faults, which may overlap.
pub async fn inject_faults(cluster: &Arc<Cluster>) {
    for _ in 0..cluster.world.plan.faults {
        sleep(cluster.world.draw_ms(0..=250)).await;
        inject_fault(cluster);
    }
}

/// Lets the store go back to earlier moments of single partitions, under processes that run.
pub async fn let_store_go_back(cluster: &Arc<Cluster>) {
    let world = &cluster.world;
    if !world.plan.goes_back {
        return;
    }
    for _ in 0..world.draw(|rng| rng.u32(0..=3)) {
        sleep(world.draw_ms(50..=600)).await;
        let count = world.log.count.get();
        let partition = PartitionId(world.draw(|rng| rng.u32(0..count)));
        cluster.servers.store.go_back(world.active(partition));
    }
}

fn inject_fault(cluster: &Arc<Cluster>) {
    let world = &cluster.world;
    match world.draw(|rng| rng.u32(0..100)) {
        0..22 => schedule_fault(cluster, ProcessFault::Crash),
        22..42 => schedule_fault(cluster, ProcessFault::Stall(world.draw_ms(5..=1_500))),
        42..50 => rebalance(cluster, 1),
        50..54 => rebalance(cluster, world.draw(|rng| rng.usize(3..=8))),
        54..58 => {
            let (stopping, cluster) = (cluster.any_alive(), Arc::clone(cluster));
            tokio::spawn(async move { cluster.stop_cleanly(&stopping).await });
        }
        58..76 => degrade(cluster, Service::Store, false),
        76..82 => degrade(cluster, Service::Store, true),
        82..88 => degrade(cluster, Service::Cache, false),
        88..90 => degrade(cluster, Service::Cache, true),
        90..93 => degrade(cluster, Service::DeadLetters, false),
        93..95 => degrade(cluster, Service::DeadLetters, true),
        95..98 => sicken(cluster),
        _ => {
            world.note(format_args!("the cache loses its data"));
            world.count(|counts| counts.flushes += 1);
            cluster.servers.cache.flush();
        }
    }
}

fn schedule_fault(cluster: &Arc<Cluster>, fault: ProcessFault) {
    let polls = cluster.world.draw(|rng| rng.u64(0..=120));
    cluster.any_alive().control.schedule_fault(polls, fault);
}

/// Moves partitions, with or without a release by their owner.
pub fn rebalance(cluster: &Arc<Cluster>, times: usize) {
    let cluster = Arc::clone(cluster);
    tokio::spawn(async move {
        for _ in 0..times {
            cluster.world.count(|counts| counts.rebalances += 1);
            let count = cluster.world.log.count.get();
            let partition = PartitionId(cluster.world.draw(|rng| rng.u32(0..count)));
            if cluster.world.chance(50) {
                cluster.move_with_release(partition).await;
            } else {
                let cluster = Arc::clone(&cluster);
                tokio::spawn(async move { cluster.move_without_release(partition).await });
            }
            sleep(cluster.world.draw_ms(0..=60)).await;
        }
    });
}

/// Makes a service unreliable or unreachable for a while.
fn degrade(cluster: &Arc<Cluster>, service: Service, down: bool) {
    let world = Arc::clone(&cluster.world);
    let duration = world.draw_ms(20..=1_000);
    let failing_percent = world.draw(|rng| rng.u32(5..=70));
    world.note(format_args!("{service:?}: down {down}, failing {failing_percent} %, {duration:?}"));
    *world.network.lock().of(service) = Condition { down, failing_percent };
    tokio::spawn(async move {
        sleep(duration).await;
        *world.network.lock().of(service) = Condition::default();
    });
}

/// Makes one partition unresponsive for a while.
fn sicken(cluster: &Arc<Cluster>) {
    let world = Arc::clone(&cluster.world);
    let count = world.log.count.get();
    let partition = PartitionId(world.draw(|rng| rng.u32(0..count)));
    let duration = world.draw_ms(20..=3_000);
    world.set_fault(partition, Some(world.draw_fault()));
    tokio::spawn(async move {
        sleep(duration).await;
        world.set_fault(partition, None);
    });
}

/// Appends records until `to` are appended, at most `max_batch` before each pause.
pub async fn append(cluster: &Arc<Cluster>, to: usize, max_batch: usize, pause: Duration) {
    let log = &cluster.world.log;
    while log.appended() < to {
        let batch = cluster.world.draw(|rng| rng.usize(1..=max_batch));
        log.append_to(to.min(log.appended() + batch));
        sleep(pause).await;
    }
}
