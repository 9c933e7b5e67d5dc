//! Damage drills: stored data is lost or goes back under load, and everything must heal by itself.
//!
//! In contrast to the faults of [`super::fault`], these break what the store and the log promise. Each drill checks
//! that its damage took effect and that the services reported the reason. The same judgement as after the faults
//! follows. Truncations come after it: partitions lose their checkpoints, and are folded from the beginning; the topic
//! loses its head; and last, records that nobody has folded, which halts a partition. All drills of a run share one
//! stack.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::fault::STORE_TIMEOUT;
use super::plan::SeededRng;
use super::verdict::Verdict;
use super::workload::Workload;
use super::{
    BUDGET, CATEGORIES, GROWING_BUDGET, PARTITIONS, define, judgement, nemesis, own_servers,
    start_watches,
};
use crate::audit;
use crate::load::Crowd;
use crate::own_servers::OwnServers;
use crate::port::free_port;
use crate::stack::{Stack, StackBuilder};
use crate::wait::eventually;

/// Timeout of one run, with the start of the servers and six restarts of Cassandra. Long, as are all waits of a drill:
/// a busy machine must not decide a verdict.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(1_800);
/// Timeout for the services to notice a damage and to fold what was lost again.
const HEAL_TIMEOUT: Duration = Duration::from_secs(180);
/// Submissions between two drills, and between a snapshot and its restoration.
const ACKNOWLEDGED_BETWEEN: u64 = 300;
/// What a processor logs when the store lost commits.
const COMMITS_LOST: &str = "the store lost acknowledged commits";
/// The budget that is filled after the totals were lost.
const BUDGET_AFTER_DAMAGE: &str = "chaos-after-damage";
/// The budget that is filled after the head of the topic was deleted.
const BUDGET_AFTER_TRUNCATION: &str = "chaos-after-truncation";
/// The budget that is filled while no processor runs, and part of which is lost.
const LOST_BUDGET: &str = "chaos-lost";
/// The partition that loses records.
const LOSING_PARTITION: u32 = 0;

/// A damage of stored data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The store is restored from a snapshot of some hundred submissions ago.
    StoreRestored,
    /// The table of person rows is truncated.
    PeopleTruncated,
    /// Every third person row is lost.
    PeopleLost,
}

impl Damage {
    /// The name in the verdict.
    fn name(self) -> &'static str {
        match self {
            Self::StoreRestored => "store_restored",
            Self::PeopleTruncated => "people_truncated",
            Self::PeopleLost => "people_lost",
        }
    }

    /// What a processor logs when it notices the damage.
    fn reason(self) -> &'static str {
        match self {
            Self::StoreRestored => COMMITS_LOST,
            Self::PeopleTruncated | Self::PeopleLost => "person rows do not match the totals",
        }
    }
}

/// A loss of whole tables or records. It follows the judgement of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// The table of totals and positions is truncated.
    Totals,
    /// The records whose person rows are all written are deleted.
    Log,
    /// Records that were accepted and never folded are deleted in one partition, which halts for good.
    UnfoldedLog,
}

impl Truncation {
    /// The name in the verdict.
    fn name(self) -> &'static str {
        match self {
            Self::Totals => "totals_truncated",
            Self::Log => "log_truncated",
            Self::UnfoldedLog => "unfolded_log_truncated",
        }
    }
}

/// Runs damage drills in the order of a seed, then truncations in the given order.
///
/// # Errors
/// When a damage is not noticed or not healed, or the verdict is a failure.
pub async fn run(
    seed: u64,
    mut damages: Vec<Damage>,
    truncations: &[Truncation],
) -> Result<Verdict> {
    let own = own_servers().await?;
    let mut stack = start(own).await?;
    define(&stack.system).await?;
    let watches = start_watches(&stack.system);
    let workload = Workload::start(&stack.system, seed);
    workload.wait_for_acknowledgements(ACKNOWLEDGED_BETWEEN).await?;

    SeededRng::new(seed).shuffle(&mut damages);
    let mut injected = BTreeMap::new();
    let mut healed = String::new();
    let mut last_damage_ended = Instant::now();
    for damage in damages.iter().copied() {
        let started = Instant::now();
        run_drill(damage, &mut stack, own, &workload)
            .await
            .with_context(|| format!("{damage:?} in {damages:?}"))?;
        write!(healed, " {}_s={:.1}", damage.name(), started.elapsed().as_secs_f64())?;
        injected.insert(damage.name(), 1);
        last_damage_ended = Instant::now();
    }

    let mut verdict = judgement::judge(&mut stack, workload, watches, last_damage_ended).await?;
    verdict.run = format!("CHAOS-DAMAGE seed={seed}{healed}");
    verdict.faults = injected;
    verdict.require_success().with_context(|| format!("damage drills {damages:?}"))?;
    for truncation in truncations {
        match truncation {
            Truncation::Totals => heal_without_checkpoints(&mut stack).await,
            Truncation::Log => continue_without_the_head(&mut stack).await,
            Truncation::UnfoldedLog => halt_without_unfolded_records(&mut stack).await,
        }
        .with_context(|| format!("after the truncation of {truncation:?}"))?;
        verdict.faults.insert(truncation.name(), 1);
    }
    Ok(verdict)
}

async fn start(own: &OwnServers) -> Result<Stack> {
    let builder = StackBuilder {
        ingests: 2,
        processors: 2,
        apis: 2,
        partitions: PARTITIONS,
        session_timeout_ms: 6_000,
        settings: vec![format!("scylla.request_timeout_ms={}", STORE_TIMEOUT.as_millis())],
        servers: Some(own.servers.clone()),
        redis_port: Some(free_port()?),
        ..Stack::builder()
    };
    builder.start().await
}

/// Damages the store under load, and waits until the damage is noticed and healed.
async fn run_drill(
    damage: Damage,
    stack: &mut Stack,
    own: &'static OwnServers,
    workload: &Workload,
) -> Result<()> {
    let reported_before = reports(stack, damage.reason())?;
    match damage {
        Damage::StoreRestored => {
            nemesis::blocking(|| own.snapshot_cassandra()).await?;
            let in_snapshot = committed(stack).await?;
            eventually("commits follow the snapshot", HEAL_TIMEOUT, async || {
                let committed = committed(stack).await?;
                ensure!(committed >= in_snapshot + ACKNOWLEDGED_BETWEEN, "{committed} records");
                Ok(())
            })
            .await?;
            nemesis::blocking(|| own.restore_cassandra()).await?;
        }
        Damage::PeopleTruncated => {
            stack.tables().await?.truncate("allocations").await?;
            take_over_every_partition(stack).await?;
        }
        Damage::PeopleLost => {
            let lost = stack.tables().await?.lose_people().await?;
            ensure!(lost > 0, "there were no person rows to lose");
            take_over_every_partition(stack).await?;
        }
    }
    workload.wait_for_acknowledgements(ACKNOWLEDGED_BETWEEN).await?;
    eventually("the damage is reported", HEAL_TIMEOUT, async || {
        let reported = reports(stack, damage.reason())?;
        ensure!(reported > reported_before, "no processor logged {:?}", damage.reason());
        Ok(())
    })
    .await?;
    stack.wait_until_all_owned().await
}

/// How many records are committed, over all partitions.
async fn committed(stack: &Stack) -> Result<u64> {
    Ok(stack.tables().await?.positions(stack.partitions).await?.values().sum())
}

/// Kills and restarts every processor: person rows are read only by a takeover.
async fn take_over_every_partition(stack: &mut Stack) -> Result<()> {
    for processor in &mut stack.processors {
        processor.process.kill()?;
    }
    for processor in &mut stack.processors {
        processor.restart().await?;
    }
    stack.wait_until_all_owned().await
}

/// How many log lines of the processors give a reason.
fn reports(stack: &Stack, reason: &str) -> Result<usize> {
    let mut reported = 0;
    for file in fs::read_dir(stack.dir())? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("processor-") && name.ends_with(".log") {
            let log = fs::read(&path)?;
            reported += String::from_utf8_lossy(&log).matches(reason).count();
        }
    }
    Ok(reported)
}

/// Truncates the table of totals and positions: each partition is claimed again after its next commit, and folds
/// everything again.
async fn heal_without_checkpoints(stack: &mut Stack) -> Result<()> {
    let reported_before = reports(stack, COMMITS_LOST)?;
    stack.tables().await?.truncate("totals").await?;
    let load = Crowd::new(BUDGET_AFTER_DAMAGE, CATEGORIES);
    stack.system.define(BUDGET_AFTER_DAMAGE, CATEGORIES).await?;
    let load = load.start(&stack.system);
    load.wait_for_acknowledgements(ACKNOWLEDGED_BETWEEN).await?;
    eventually("the lost commits are reported", HEAL_TIMEOUT, async || {
        let reported = reports(stack, COMMITS_LOST)?;
        ensure!(reported > reported_before, "no processor has noticed");
        Ok(())
    })
    .await?;
    load.stop().await?.verify_counted(stack, BUDGET_AFTER_DAMAGE, CATEGORIES).await?;
    for budget in [BUDGET, GROWING_BUDGET] {
        audit::exact(stack, budget, CATEGORIES).await?;
    }
    Ok(())
}

/// Deletes the records whose person rows are all written, takes every partition over, and counts new submissions.
async fn continue_without_the_head(stack: &mut Stack) -> Result<()> {
    let tables = stack.tables().await?;
    let mut lows = Vec::new();
    for partition in 0..stack.partitions {
        let stored = tables.partition(partition).await?.context("a partition was never claimed")?;
        ensure!(stored.rows_position > 0, "partition {partition} has no person row");
        lows.push((partition, stored.rows_position));
    }
    let alarms_before = judgement::alarms(stack.dir())?;
    let before = tables.sums(BUDGET, stack.partitions).await?;
    stack.kafka.delete_records_below(&stack.topic, &lows).await?;
    take_over_every_partition(stack).await?;

    stack.system.define(BUDGET_AFTER_TRUNCATION, CATEGORIES).await?;
    let load = Crowd::new(BUDGET_AFTER_TRUNCATION, CATEGORIES).start(&stack.system);
    load.wait_for_acknowledgements(ACKNOWLEDGED_BETWEEN).await?;
    let expected = load.stop().await?.totals(CATEGORIES);
    stack.system.wait_until_shown(BUDGET_AFTER_TRUNCATION, &expected, HEAL_TIMEOUT).await?;
    let after = tables.sums(BUDGET, stack.partitions).await?;
    ensure!(after == before, "{after:?} instead of {before:?}");
    let alarms = judgement::alarms(stack.dir())?;
    ensure!(alarms == alarms_before, "{}", alarms.join("\n"));
    Ok(())
}

/// Deletes records that were accepted while no processor ran, in one partition. It halts and names them; all others
/// count theirs.
async fn halt_without_unfolded_records(stack: &mut Stack) -> Result<()> {
    stack.system.define(LOST_BUDGET, CATEGORIES).await?;
    for processor in &mut stack.processors {
        processor.process.kill()?;
    }
    let load = Crowd::new(LOST_BUDGET, CATEGORIES).start(&stack.system);
    load.wait_for_acknowledgements(ACKNOWLEDGED_BETWEEN).await?;
    load.stop().await?;
    let tables = stack.tables().await?;
    let positions = tables.positions(stack.partitions).await?;
    let position = *positions.get(&LOSING_PARTITION).context("the partition was never claimed")?;
    let ends = stack.kafka.ends(&stack.topic).await?;
    let end = *ends.get(LOSING_PARTITION as usize).context("the topic has too few partitions")?;
    ensure!(end > position, "the partition has no record that is not folded");
    stack.kafka.delete_records_below(&stack.topic, &[(LOSING_PARTITION, end)]).await?;

    for processor in &mut stack.processors {
        processor.respawn()?;
    }
    let reason = format!("records {position}..{end} are in neither");
    eventually("the partition halts and says why", HEAL_TIMEOUT, async || {
        ensure!(reports(stack, &reason)? > 0, "no processor logged {reason:?}");
        // The gauge of the alert `PartitionHalted`.
        let mut halted = 0.0;
        for processor in &stack.processors {
            halted += processor.metric("allocator_processor_partition_halted").await?;
        }
        ensure!(halted == 1.0, "{halted} partitions have halted");
        Ok(())
    })
    .await?;
    eventually("the other partitions go on", HEAL_TIMEOUT, async || {
        for (partition, position) in tables.positions(stack.partitions).await? {
            let end = ends[partition as usize];
            let is_done = position == end || partition == LOSING_PARTITION;
            ensure!(is_done, "partition {partition} is at {position} of {end}");
        }
        Ok(())
    })
    .await?;
    let stays = tables.positions(stack.partitions).await?.get(&LOSING_PARTITION).copied();
    ensure!(stays == Some(position), "the halted partition has moved to {stays:?}");
    Ok(())
}
