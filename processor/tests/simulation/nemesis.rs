//! Who makes things go wrong, as the seed has it.

use std::sync::Arc;
use std::time::Duration;

use schemas::PartitionId;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::control::Misfortune;
use crate::network::{Condition, Service};
use crate::world::lock;

/// As many misfortunes as the plan has, one after the other and overlapping.
pub async fn strike(cluster: &Arc<Cluster>) {
    for _ in 0..cluster.world.plan.faults {
        sleep(cluster.world.draw_ms(0..=250)).await;
        strike_once(cluster);
    }
}

fn strike_once(cluster: &Arc<Cluster>) {
    let world = &cluster.world;
    match world.draw(|rng| rng.u32(0..100)) {
        0..22 => light_fuse(cluster, Misfortune::Crash),
        22..42 => light_fuse(cluster, Misfortune::Stall(world.draw_ms(5..=1_500))),
        42..50 => rebalance(cluster, 1),
        50..54 => rebalance(cluster, world.draw(|rng| rng.usize(3..=8))),
        54..58 => {
            let (stopping, cluster) = (cluster.any_alive(), Arc::clone(cluster));
            tokio::spawn(async move { cluster.stop_cleanly(&stopping).await });
        }
        58..76 => trouble(cluster, Service::Store, false),
        76..82 => trouble(cluster, Service::Store, true),
        82..88 => trouble(cluster, Service::Cache, false),
        88..90 => trouble(cluster, Service::Cache, true),
        90..93 => trouble(cluster, Service::Letters, false),
        93..95 => trouble(cluster, Service::Letters, true),
        _ => {
            world.note(format_args!("the cache loses everything"));
            world.count(|counts| counts.flushes += 1);
            cluster.servers.cache.flush();
        }
    }
}

fn light_fuse(cluster: &Arc<Cluster>, misfortune: Misfortune) {
    let polls = cluster.world.draw(|rng| rng.u64(0..=120));
    cluster.any_alive().control.light_fuse(polls, misfortune);
}

/// Partitions move, with their owner's consent or without.
fn rebalance(cluster: &Arc<Cluster>, times: usize) {
    let cluster = Arc::clone(cluster);
    tokio::spawn(async move {
        for _ in 0..times {
            cluster.world.count(|counts| counts.rebalances += 1);
            let count = cluster.world.log.count.get();
            let partition = PartitionId(cluster.world.draw(|rng| rng.u32(0..count)));
            if cluster.world.chance(50) {
                cluster.move_cleanly(partition).await;
            } else {
                let cluster = Arc::clone(&cluster);
                tokio::spawn(async move { cluster.move_rudely(partition).await });
            }
            sleep(cluster.world.draw_ms(0..=60)).await;
        }
    });
}

/// A service is hard to reach for a while, or not at all.
fn trouble(cluster: &Arc<Cluster>, service: Service, down: bool) {
    let world = Arc::clone(&cluster.world);
    let duration = world.draw_ms(20..=1_000);
    let trouble_percent = world.draw(|rng| rng.u32(5..=70));
    world.note(format_args!("{service:?}: down {down}, trouble {trouble_percent} %, {duration:?}"));
    *lock(&world.weather).of(service) = Condition { down, trouble_percent };
    tokio::spawn(async move {
        sleep(duration).await;
        *lock(&world.weather).of(service) = Condition::default();
    });
}

/// How fast the log grows.
pub async fn append(cluster: &Arc<Cluster>, to: usize, at_once: usize, pause: Duration) {
    let log = &cluster.world.log;
    while log.appended() < to {
        let most = cluster.world.draw(|rng| rng.usize(1..=at_once));
        log.append_to(to.min(log.appended() + most));
        sleep(pause).await;
    }
}
