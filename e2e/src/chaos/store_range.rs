//! One range of the store that responds to nobody.
//!
//! The store of the drill is a single node, which cannot lose one range. So a proxy drops every CQL request that is
//! bound to one partition of the active generation: its totals, its checkpoint and its person rows. The services see
//! what they see of a range whose replicas hang: no response, on connections on which all other requests are answered.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::cql_proxy::{CqlProxy, StoreKey};
use super::freshness::SICK;
use super::isolation::{Isolation, PARTITIONS, VISIBLE_TIMEOUT};
use super::own_servers;
use super::verdict::Verdict;
use crate::own_servers::OwnServers;
use crate::port::free_port;
use crate::stack::{Stack, StackBuilder};

/// The first generation, which is active.
const GENERATION: u32 = 1;

/// Drops the requests to one range for `hold` under load.
///
/// # Errors
/// When the fault does not take effect, or the verdict is a failure.
pub async fn run(hold: Duration) -> Result<Verdict> {
    let own = own_servers().await?;
    let proxy = CqlProxy::start(own.cassandra()).await?;
    let mut stack = start(own, &proxy).await?;
    let drill = Isolation::start(&stack).await?;

    let began = Instant::now();
    proxy.drop_requests_to(Some(StoreKey { generation: GENERATION, partition: SICK }));
    tokio::time::sleep(hold).await;
    let (ended, dropped) = (Instant::now(), proxy.dropped());
    ensure!(dropped > 0, "no request was dropped");
    proxy.drop_requests_to(None);

    let (mut verdict, samples) = drill.finish(&mut stack, Verdict::default(), ended).await?;
    let others = samples.judge_others(began..ended, &mut verdict);
    let sick = samples.of_sick(began..ended);
    let accepted = sick.iter().filter(|sample| sample.status == Some(202)).count();
    if accepted == 0 || accepted < sick.len() {
        let other = sick.iter().find(|sample| sample.status != Some(202));
        verdict.wrong.push(format!("{accepted} of {} were accepted, but {other:?}", sick.len()));
    }
    // Nothing is visible before it is committed.
    let visible = |sample: &&super::freshness::Sample| {
        sample.sent + sample.answered_after + sample.visible_after.unwrap_or(VISIBLE_TIMEOUT)
            < ended
            && sample.visible_after.is_some()
    };
    if let Some(sample) = sick.iter().find(visible) {
        verdict.wrong.push(format!("a submission was visible without a commit: {sample:?}"));
    }
    verdict.run = format!(
        "CHAOS-STORE-RANGE partition={SICK} for_s={:.0} {others} accepted={accepted} requests_dropped={dropped}",
        (ended - began).as_secs_f64(),
    );
    verdict.faults.insert("store_range", 1);
    verdict.require_success()?;
    Ok(verdict)
}

async fn start(own: &OwnServers, proxy: &CqlProxy) -> Result<Stack> {
    let builder = StackBuilder {
        ingests: 2,
        processors: 2,
        apis: 2,
        partitions: PARTITIONS,
        settings: vec![format!("scylla.nodes={}", proxy.address())],
        servers: Some(own.servers.clone()),
        redis_port: Some(free_port()?),
        ..Stack::builder()
    };
    builder.start().await
}
