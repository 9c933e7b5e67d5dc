//! Chaos runs: a seeded load over HTTP, seeded faults meanwhile, then recovery and an independent verdict.
//!
//! | module | owns |
//! |---|---|
//! | [`fault`] | the faults, and which of them may overlap |
//! | [`plan`] | the faults of a seed |
//! | [`nemesis`] | injecting faults, and checking that they took effect |
//! | [`proxy`], [`links`] | network faults between clients, services and servers |
//! | `proxy_listener` | accepting a proxy's connections |
//! | [`redis_faults`], [`clock`] | faults of a running Redis; wrong clocks |
//! | [`workload`], [`request`] | the load; one of its requests |
//! | [`history`] | the outcome of each request, compared with the log |
//! | [`judgement`] | recovery, and the checks after it |
//! | [`verdict`] | the result line |
//! | [`drill`] | the drills by name, and running them |
//! | [`brokers`] | three brokers: killed, stopped and restarted one after the other |
//! | [`damage`] | stored data that is lost or goes back |
//! | [`leaderless`], [`store_range`] | one partition without a leader; one range of the store that does not respond |
//! | [`isolation`], [`freshness`] | their load, by partition; what it has seen |
//! | [`cql_proxy`] | a proxy that drops the requests to one range of the store |
//! | [`disk`], [`small_disk`] | the embedded default on a full disk; a disk small enough to fill |
//! | [`embedded_log`] | a plain client of the embedded log |

pub mod brokers;
pub mod clock;
pub mod cql_proxy;
pub mod damage;
pub mod disk;
pub mod drill;
pub mod embedded_log;
pub mod fault;
pub mod freshness;
pub mod history;
pub mod isolation;
pub mod judgement;
pub mod leaderless;
pub mod links;
pub mod nemesis;
pub mod plan;
pub mod proxy;
mod proxy_listener;
pub mod redis_faults;
pub mod request;
pub mod small_disk;
pub mod store_range;
pub mod verdict;
pub mod workload;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::OnceCell;

use crate::own_servers::OwnServers;
use crate::port::free_port;
use crate::stack::{Stack, StackBuilder};
use crate::system::System;
use crate::watch::{Tolerance, Watch};
use clock::Clocks;
use fault::{SESSION_TIMEOUT, STORE_TIMEOUT};
use links::Links;
use nemesis::Nemesis;
use plan::{Extent, Plan, SERVICES_PER_KIND};
use verdict::Verdict;
use workload::Workload;

/// The budget of the load.
pub const BUDGET: &str = "chaos";
/// The budget in which each person submits once.
pub const GROWING_BUDGET: &str = "chaos-joins";
/// Number of categories of both budgets.
pub const CATEGORIES: usize = 10;
const PARTITIONS: u32 = 6;

/// Timeout of a run, including the start of the servers and the judgement.
pub fn run_timeout(extent: Extent) -> Duration {
    match extent {
        Extent::Smoke => Duration::from_secs(240),
        Extent::Full => Duration::from_secs(900),
    }
}

/// Runs one seed.
///
/// # Errors
/// When a fault cannot be injected, or the verdict is a failure.
pub async fn run(seed: u64, extent: Extent) -> Result<Verdict> {
    let plan = Plan::from_seed(seed, extent);
    let own = own_servers().await?;
    let redis_port = free_port()?;
    let (mut links, clocks) = (Links::start(own, redis_port).await?, Clocks::new()?);
    let mut stack = start(own, &links, &clocks, redis_port).await?;
    define(&stack.system).await?;

    let clients = links.add_client_proxies(&stack.system).await?;
    let watches = start_watches(&clients);
    let workload = Workload::start(&clients, seed);
    workload.wait_for_acknowledgements(100).await?;
    let mut nemesis = Nemesis {
        stack: &mut stack,
        own,
        links: &links,
        clocks: &clocks,
        injected: Default::default(),
        exits: Vec::new(),
        last_fault_ended: Instant::now(),
    };
    nemesis.run(&plan, &workload).await.with_context(|| format!("plan of seed {seed}:\n{plan}"))?;
    let Nemesis { injected, exits, last_fault_ended, .. } = nemesis;

    let mut verdict = judgement::judge(&mut stack, workload, watches, last_fault_ended).await?;
    verdict.run = format!("CHAOS seed={seed}");
    verdict.faults = injected;
    verdict.note_missing_faults(&plan.counts());
    verdict.note_exits(exits);
    verdict.require_success().with_context(|| format!("plan of seed {seed}:\n{plan}"))?;
    Ok(verdict)
}

async fn define(system: &System) -> Result<()> {
    for budget in [BUDGET, GROWING_BUDGET] {
        system.define(budget, CATEGORIES).await?;
    }
    Ok(())
}

fn start_watches(system: &System) -> [Watch; 2] {
    [
        Watch::start(system, BUDGET, Tolerance::Unavailable),
        Watch::start_growing(system, GROWING_BUDGET, Tolerance::Unavailable),
    ]
}

async fn start(own: &OwnServers, links: &Links, clocks: &Clocks, redis: u16) -> Result<Stack> {
    let mut overrides = links.overrides()?;
    overrides.extend(clocks.overrides());
    let builder = StackBuilder {
        ingests: SERVICES_PER_KIND,
        processors: SERVICES_PER_KIND,
        apis: SERVICES_PER_KIND,
        partitions: PARTITIONS,
        session_timeout_ms: SESSION_TIMEOUT.as_millis() as u32,
        settings: vec![format!("scylla.request_timeout_ms={}", STORE_TIMEOUT.as_millis())],
        servers: Some(own.servers.clone()),
        redis_port: Some(redis),
        overrides,
        ..Stack::builder()
    };
    builder.start().await
}

/// Starts the servers once for all seeds.
async fn own_servers() -> Result<&'static OwnServers> {
    static SERVERS: OnceCell<OwnServers> = OnceCell::const_new();
    let own = SERVERS
        .get_or_try_init(async || tokio::task::spawn_blocking(OwnServers::start).await?)
        .await?;
    // An earlier seed may have failed with a server down.
    tokio::task::spawn_blocking(|| own.start_missing()).await??;
    Ok(own)
}
