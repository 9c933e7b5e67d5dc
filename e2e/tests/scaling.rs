//! Scaling the processors beyond the number of partitions and down to two, partly by crashes.
//!
//! Totals stay exact, no total goes back, and no partition is without an owner for long.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::audit;
use e2e::load::{Crowd, Load};
use e2e::ownership_gaps::{OwnershipGap, ProcessLog, gaps};
use e2e::scenario::scenario_within;
use e2e::service::Service;
use e2e::stack::{Stack, StackBuilder};
use e2e::wait::eventually;
use e2e::watch::{Tolerance, Watch};
use jiff::Timestamp;

const BUDGET: &str = "scaling";
const CATEGORIES: usize = 10;
const PARTITIONS: u32 = 6;
/// The default session timeout.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
const CLEAN_MOVE_LIMIT: Duration = Duration::from_secs(2);
const CRASH_LIMIT: Duration = Duration::from_secs(9);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);
const SCENARIO_TIMEOUT: Duration = Duration::from_secs(240);

/// The running and the ended processors, and the load.
struct Scaling {
    stack: Stack,
    load: Load,
    ended: Vec<(Service, Option<Timestamp>)>,
    since: Timestamp,
}

impl Scaling {
    async fn scale_up_to(&mut self, processors: usize) -> Result<()> {
        while self.stack.processors.len() < processors {
            self.stack.add_processor().await?;
        }
        // More processors than partitions: the last one gets none, and nothing moves.
        let moves = processors <= PARTITIONS as usize;
        self.wait_until_balanced(&format!("up to {processors}"), moves).await
    }

    async fn scale_down_to(&mut self, processors: usize) -> Result<()> {
        while self.stack.processors.len() > processors {
            let mut leaving = self.stack.processors.remove(0);
            leaving.terminate(SHUTDOWN_TIMEOUT).await?;
            self.ended.push((leaving, None));
        }
        self.wait_until_balanced(&format!("down to {processors}"), true).await
    }

    /// Kills a processor that owns partitions.
    async fn crash(&mut self) -> Result<()> {
        let owned = self.stack.owned().await;
        let owner =
            owned.iter().position(|owned| *owned > 0).context("no processor owns a partition")?;
        let mut victim = self.stack.processors.remove(owner);
        victim.process.kill()?;
        self.ended.push((victim, Some(Timestamp::now())));
        self.wait_until_balanced(&format!("one of {} crashes", owned.len()), true).await
    }

    /// Waits until the partitions are balanced and folded again. Checks how long each was unowned.
    async fn wait_until_balanced(&mut self, step: &str, moves: bool) -> Result<()> {
        let processors = self.stack.processors.len() as u32;
        let (least, most) = (PARTITIONS / processors, PARTITIONS.div_ceil(processors));
        let fair = |owned: &[u32]| owned.iter().all(|owned| (least..=most).contains(owned));
        self.stack.wait_until_owned(fair).await?;
        self.load.wait_for_acknowledgements(200).await?;
        let all = eventually("all partitions are folded again", SHUTDOWN_TIMEOUT, async || {
            gaps(&self.process_logs()?)
        })
        .await?;
        let now: Vec<&OwnershipGap> = all.iter().filter(|gap| gap.since >= self.since).collect();
        ensure!(!moves || !now.is_empty(), "{step}: no partition has moved");
        let (clean, crash): (Vec<&OwnershipGap>, Vec<&OwnershipGap>) =
            now.into_iter().partition(|gap| !gap.crash);
        for (kind, gaps, limit) in
            [("clean", clean, CLEAN_MOVE_LIMIT), ("crash", crash, CRASH_LIMIT)]
        {
            let Some(longest) = gaps.iter().map(|gap| gap.lasted).max() else { continue };
            let (moves, longest_ms) = (gaps.len(), longest.as_millis());
            println!(
                "SCALING {step}: {kind} moves={moves} longest_ms={longest_ms} limit={limit:?}"
            );
            ensure!(longest < limit, "{step}: a partition was not folded for {longest:?}");
        }
        self.since = Timestamp::now();
        Ok(())
    }

    fn process_logs(&self) -> Result<Vec<ProcessLog>> {
        let running = self.stack.processors.iter().map(|service| (service, None));
        let ended = self.ended.iter().map(|(service, killed)| (service, *killed));
        let process_log = |(service, killed): (&Service, _)| {
            Ok(ProcessLog { log: service.process.log()?, killed })
        };
        running.chain(ended).map(process_log).collect()
    }
}

#[test]
fn no_partition_is_unowned_for_long_while_processors_join_leave_and_crash() {
    scenario_within(SCENARIO_TIMEOUT, async || {
        let builder = StackBuilder {
            partitions: PARTITIONS,
            session_timeout_ms: SESSION_TIMEOUT.as_millis() as u32,
            ..Stack::builder()
        };
        let stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        load.wait_for_acknowledgements(300).await?;

        let mut scaling = Scaling { stack, load, ended: Vec::new(), since: Timestamp::now() };
        for processors in [3, 6, PARTITIONS as usize + 1] {
            scaling.scale_up_to(processors).await?;
        }
        scaling.crash().await?;
        scaling.scale_down_to(2).await?;
        scaling.crash().await?;

        let Scaling { stack, load, .. } = scaling;
        let ledger = load.stop().await?;
        watch.stop().await?;
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(
            totals == ledger.totals(CATEGORIES),
            "the counted totals differ from the acknowledged submissions"
        );
        ledger.check_log(&stack.kafka.read(&stack.topic).await?)
    });
}
