//! A storm: a seeded load over HTTP, meanwhile seeded faults, then peace, and an independent judgement of what is left.
//!
//! | module | owns |
//! |---|---|
//! | [`fault`] | what can be done, and what at once |
//! | [`plan`] | what a seed does |
//! | [`nemesis`] | doing it, and making sure that it was there |
//! | [`proxy`], [`links`] | the network between services and servers, and its troubles |
//! | [`redis_faults`], [`clock`] | what is wrong with a Redis that runs; wrong clocks |
//! | [`workload`], [`history`] | what people ask for; what came of it, and whether the log agrees |
//! | [`aftermath`] | peace, and what must be true then |
//! | [`verdict`] | the line |
//! | [`disk`] | the embedded default on a full disk |

pub mod aftermath;
pub mod clock;
pub mod disk;
pub mod fault;
pub mod history;
pub mod links;
pub mod nemesis;
pub mod plan;
pub mod proxy;
pub mod redis_faults;
pub mod verdict;
pub mod workload;

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::OnceCell;

use crate::own_servers::OwnServers;
use crate::process::free_port;
use crate::stack::{Stack, StackBuilder};
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
/// Its categories.
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
    let (links, clocks) = (Links::start(own, redis_port).await?, Clocks::new()?);
    let mut stack = start(own, &links, &clocks, redis_port).await?;
    stack.system.define(BUDGET, CATEGORIES).await?;

    let watch = Watch::start(&stack.system, BUDGET, Tolerance::NoAnswer);
    let workload = Workload::start(&stack.system, BUDGET, CATEGORIES, seed);
    workload.goes_on_for(100).await?;
    let mut nemesis = Nemesis {
        stack: &mut stack,
        own,
        links: &links,
        clocks: &clocks,
        done: Default::default(),
    };
    nemesis.run(&plan, &workload).await.with_context(|| format!("the plan of {seed}:\n{plan}"))?;
    nemesis.heal().await?;
    let faults = nemesis.done;

    let mut verdict = aftermath::judge(&mut stack, workload, watch).await?;
    verdict.seed = seed;
    verdict.faults = faults;
    verdict.missing(&plan.counts());
    verdict.require_right().with_context(|| format!("the plan of {seed}:\n{plan}"))?;
    Ok(verdict)
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
