//! From one processor to three, to six, to one more than there are partitions, and down to two, some of them by a crash:
//! totals stay exact, no number goes back, and no partition is without an owner for long.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::audit;
use e2e::load::{Crowd, Load};
use e2e::scenario::scenario_within;
use e2e::service::Service;
use e2e::stack::{Stack, StackBuilder};
use e2e::unowned::{Gap, Life, gaps};
use e2e::wait::eventually;
use e2e::watch::{Tolerance, Watch};
use jiff::Timestamp;

const BUDGET: &str = "scaling";
const CATEGORIES: usize = 10;
const PARTITIONS: u32 = 6;
/// As it is by default.
const SESSION: Duration = Duration::from_secs(6);
const CLEAN_MOVE: Duration = Duration::from_secs(2);
const CRASH: Duration = Duration::from_secs(9);
const LEAVE: Duration = Duration::from_secs(15);
const BOUND: Duration = Duration::from_secs(240);

/// The processors, those that are gone included, and what people say meanwhile.
struct Scaling {
    stack: Stack,
    load: Load,
    gone: Vec<(Service, Option<Timestamp>)>,
    since: Timestamp,
}

impl Scaling {
    async fn up_to(&mut self, processors: usize) -> Result<()> {
        while self.stack.processors.len() < processors {
            self.stack.add_processor().await?;
        }
        // One more than there are partitions has nothing to take.
        let moves = processors <= PARTITIONS as usize;
        self.settled(&format!("up to {processors}"), moves).await
    }

    async fn down_to(&mut self, processors: usize) -> Result<()> {
        while self.stack.processors.len() > processors {
            let mut leaving = self.stack.processors.remove(0);
            leaving.terminate(LEAVE).await?;
            self.gone.push((leaving, None));
        }
        self.settled(&format!("down to {processors}"), true).await
    }

    /// One that owns something is killed.
    async fn crash(&mut self) -> Result<()> {
        let owned = self.stack.owned().await;
        let owner = owned.iter().position(|owned| *owned > 0).context("nobody owns anything")?;
        let mut victim = self.stack.processors.remove(owner);
        victim.process.kill()?;
        self.gone.push((victim, Some(Timestamp::now())));
        self.settled(&format!("one of {} crashes", owned.len()), true).await
    }

    /// Waits until the partitions are shared fairly and all are folded again, and says how long that took them.
    async fn settled(&mut self, what: &str, moves: bool) -> Result<()> {
        let processors = self.stack.processors.len() as u32;
        let (least, most) = (PARTITIONS / processors, PARTITIONS.div_ceil(processors));
        let fair = |owned: &[u32]| owned.iter().all(|owned| (least..=most).contains(owned));
        self.stack.owned_so(fair).await?;
        self.load.goes_on_for(200).await?;
        let all = eventually("all are folded again", LEAVE, async || gaps(&self.lives()?)).await?;
        let now: Vec<&Gap> = all.iter().filter(|gap| gap.since >= self.since).collect();
        ensure!(!moves || !now.is_empty(), "{what}: nothing has moved");
        let (clean, crash): (Vec<&Gap>, Vec<&Gap>) = now.into_iter().partition(|gap| !gap.crash);
        for (how, gaps, limit) in [("clean", clean, CLEAN_MOVE), ("crash", crash, CRASH)] {
            let Some(longest) = gaps.iter().map(|gap| gap.lasted).max() else { continue };
            let (moves, longest_ms) = (gaps.len(), longest.as_millis());
            println!("SCALING {what}: {how} moves={moves} longest_ms={longest_ms} limit={limit:?}");
            ensure!(longest < limit, "{what}: nobody folded a partition for {longest:?}");
        }
        self.since = Timestamp::now();
        Ok(())
    }

    fn lives(&self) -> Result<Vec<Life>> {
        let there = self.stack.processors.iter().map(|service| (service, None));
        let gone = self.gone.iter().map(|(service, killed)| (service, *killed));
        let life =
            |(service, killed): (&Service, _)| Ok(Life { log: service.process.log()?, killed });
        there.chain(gone).map(life).collect()
    }
}

#[test]
fn processors_come_go_and_crash_and_no_partition_is_unowned_for_long() {
    scenario_within(BOUND, async || {
        let builder = StackBuilder {
            partitions: PARTITIONS,
            session_timeout_ms: SESSION.as_millis() as u32,
            ..Stack::builder()
        };
        let stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        load.goes_on_for(300).await?;

        let mut scaling = Scaling { stack, load, gone: Vec::new(), since: Timestamp::now() };
        for processors in [3, 6, PARTITIONS as usize + 1] {
            scaling.up_to(processors).await?;
        }
        scaling.crash().await?;
        scaling.down_to(2).await?;
        scaling.crash().await?;

        let Scaling { stack, load, .. } = scaling;
        let ledger = load.stop().await?;
        watch.stop().await?;
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(
            totals == ledger.totals(CATEGORIES),
            "what is counted is not what was acknowledged"
        );
        ledger.check_log(&stack.kafka.read(&stack.topic).await?)
    });
}
