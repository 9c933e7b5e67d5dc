//! A storm: a seeded load over HTTP, meanwhile seeded faults, then peace, and an independent judgement of what is left.
//!
//! | module | owns |
//! |---|---|
//! | [`fault`] | what can be done, and what at once |
//! | [`plan`] | what a seed does |
//! | [`nemesis`] | doing it, and making sure that it was there |
//! | [`proxy`], [`links`] | the network between clients, services and servers, and its troubles |
//! | [`redis_faults`], [`clock`] | what is wrong with a Redis that runs; wrong clocks |
//! | [`workload`], [`ask`] | what people want; one request for it |
//! | [`history`] | what came of each request, and whether the log agrees |
//! | [`aftermath`] | peace, and what must be true then |
//! | [`verdict`] | the line |
//! | [`disk`], [`small_disk`] | the embedded default on a full disk; a disk that can be filled |
//! | [`embedded_log`] | the log of the embedded default as a plain client sees it |

pub mod aftermath;
pub mod ask;
pub mod clock;
pub mod disk;
pub mod embedded_log;
pub mod fault;
pub mod history;
pub mod links;
pub mod nemesis;
pub mod plan;
pub mod proxy;
pub mod redis_faults;
pub mod small_disk;
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
use fault::{SESSION, STORE_TIMEOUT};
use links::Links;
use nemesis::Nemesis;
use plan::{EACH, Extent, Plan};
use verdict::Verdict;
use workload::Workload;

/// The budget that people speak about.
pub const BUDGET: &str = "chaos";
/// The budget that people only ever join.
pub const JOINS: &str = "chaos-joins";
/// The categories of both.
pub const CATEGORIES: usize = 10;
const PARTITIONS: u32 = 6;

/// How long a run may take, servers' start and judgement included.
pub fn bound(extent: Extent) -> Duration {
    match extent {
        Extent::Smoke => Duration::from_secs(240),
        Extent::Full => Duration::from_secs(900),
    }
}

/// Runs a seed.
///
/// # Errors
/// When something cannot be done, or the verdict is not right.
pub async fn run(seed: u64, extent: Extent) -> Result<Verdict> {
    let plan = Plan::of(seed, extent);
    let own = own_servers().await?;
    let redis_port = free_port()?;
    let (mut links, clocks) = (Links::start(own, redis_port).await?, Clocks::new()?);
    let mut stack = start(own, &links, &clocks, redis_port).await?;
    define(&stack.system).await?;

    let clients = links.in_front_of(&stack.system).await?;
    let watches = watches(&clients);
    let workload = Workload::start(&clients, seed);
    workload.goes_on_for(100).await?;
    let mut nemesis = Nemesis {
        stack: &mut stack,
        own,
        links: &links,
        clocks: &clocks,
        done: Default::default(),
        exits: Vec::new(),
        peace_since: Instant::now(),
    };
    nemesis.run(&plan, &workload).await.with_context(|| format!("the plan of {seed}:\n{plan}"))?;
    let Nemesis { done, exits, peace_since, .. } = nemesis;

    let mut verdict = aftermath::judge(&mut stack, workload, watches, peace_since).await?;
    verdict.run = format!("CHAOS seed={seed}");
    verdict.faults = done;
    verdict.missing(&plan.counts());
    verdict.note_exits(exits);
    verdict.require_right().with_context(|| format!("the plan of {seed}:\n{plan}"))?;
    Ok(verdict)
}

async fn define(system: &System) -> Result<()> {
    for budget in [BUDGET, JOINS] {
        system.define(budget, CATEGORIES).await?;
    }
    Ok(())
}

fn watches(system: &System) -> [Watch; 2] {
    [
        Watch::start(system, BUDGET, Tolerance::NoAnswer),
        Watch::start_growing(system, JOINS, Tolerance::NoAnswer),
    ]
}

async fn start(own: &OwnServers, links: &Links, clocks: &Clocks, redis: u16) -> Result<Stack> {
    let mut special = links.specials()?;
    special.extend(clocks.specials());
    let builder = StackBuilder {
        ingests: EACH,
        processors: EACH,
        apis: EACH,
        partitions: PARTITIONS,
        session_timeout_ms: SESSION.as_millis() as u32,
        settings: vec![format!("scylla.request_timeout_ms={}", STORE_TIMEOUT.as_millis())],
        servers: Some(own.servers.clone()),
        redis_port: Some(redis),
        special,
    };
    builder.start().await
}

/// One set of servers for all seeds.
async fn own_servers() -> Result<&'static OwnServers> {
    static SERVERS: OnceCell<OwnServers> = OnceCell::const_new();
    let own = SERVERS
        .get_or_try_init(async || tokio::task::spawn_blocking(OwnServers::start).await?)
        .await?;
    // A seed before this one may have failed half way.
    tokio::task::spawn_blocking(|| own.start_missing()).await??;
    Ok(own)
}
