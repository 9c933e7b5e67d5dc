//! Killed and stopped processes: no acknowledged submission is lost, and no person is counted twice.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::embedded::Embedded;
use e2e::load::Crowd;
use e2e::process::Signal;
use e2e::scenario::scenario;
use e2e::stack::{Stack, StackBuilder};
use e2e::wait::eventually;
use e2e::watch::{Tolerance, Watch};

const CATEGORIES: usize = 10;
const BUDGET: &str = "crashes";

/// Starts two ingests and two processors, with a short session timeout.
async fn two_of_each() -> Result<Stack> {
    let builder =
        StackBuilder { ingests: 2, processors: 2, session_timeout_ms: 2_000, ..Stack::builder() };
    let stack = builder.start().await?;
    stack.system.define(BUDGET, CATEGORIES).await?;
    Ok(stack)
}

#[test]
fn processors_killed_under_load_lose_and_duplicate_nothing() {
    scenario(async || {
        let mut stack = two_of_each().await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        for victim in [0, 1, 0] {
            load.wait_for_acknowledgements(200).await?;
            let processor = &mut stack.processors[victim];
            processor.process.kill()?;
            load.wait_for_acknowledgements(50).await?;
            processor.restart().await?;
        }
        stack.wait_until_all_owned().await?;
        let ledger = load.stop().await?;
        watch.stop().await?;
        ledger.verify_counted(&stack, BUDGET, CATEGORIES).await
    });
}

#[test]
fn ingests_killed_under_load_lose_and_duplicate_nothing() {
    scenario(async || {
        let mut stack = two_of_each().await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        for victim in [0, 1, 0, 1] {
            load.wait_for_acknowledgements(150).await?;
            let ingest = &mut stack.ingests[victim];
            ingest.process.kill()?;
            load.wait_for_acknowledgements(50).await?;
            ingest.restart().await?;
        }
        let ledger = load.stop().await?;
        watch.stop().await?;
        ensure!(ledger.retries > 0, "the load noticed no crash");
        ledger.verify_counted(&stack, BUDGET, CATEGORIES).await
    });
}

#[test]
fn an_api_killed_under_load_never_serves_older_totals_afterwards() {
    scenario(async || {
        let mut stack = two_of_each().await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::Unavailable);
        for _ in 0..3 {
            load.wait_for_acknowledgements(150).await?;
            stack.apis[0].process.kill()?;
            stack.apis[0].restart().await?;
        }
        load.wait_for_acknowledgements(100).await?;
        let ledger = load.stop().await?;
        watch.stop().await?;
        ledger.verify_counted(&stack, BUDGET, CATEGORIES).await
    });
}

#[test]
fn a_processor_stopped_past_its_session_is_fenced_and_does_no_harm() {
    scenario(async || {
        let mut stack = two_of_each().await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        load.wait_for_acknowledgements(200).await?;
        let zombie = stack.processors.remove(0);
        zombie.process.signal(Signal::Stop)?;
        // The other processor has taken over all partitions.
        stack.wait_until_all_owned().await?;
        load.wait_for_acknowledgements(200).await?;
        zombie.process.signal(Signal::Continue)?;
        stack.processors.push(zombie);
        load.wait_for_acknowledgements(200).await?;
        stack.wait_until_owned(|owned| owned.iter().all(|owned| *owned > 0)).await?;
        let ledger = load.stop().await?;
        watch.stop().await?;
        ledger.verify_counted(&stack, BUDGET, CATEGORIES).await
    });
}

#[test]
fn the_embedded_default_killed_under_load_loses_and_duplicates_nothing() {
    scenario(async || {
        let mut embedded = Embedded::start().await?;
        embedded.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&embedded.system);
        let watch = Watch::start(&embedded.system, BUDGET, Tolerance::Unavailable);
        for _ in 0..4 {
            load.wait_for_acknowledgements(200).await?;
            embedded.service.process.kill()?;
            embedded.service.restart().await?;
        }
        load.wait_for_acknowledgements(100).await?;
        let ledger = load.stop().await?;
        watch.stop().await?;
        ensure!(ledger.retries > 0, "the load noticed no crash");
        embedded
            .system
            .wait_until_shown(BUDGET, &ledger.totals(CATEGORIES), Duration::from_secs(30))
            .await?;
        // The same after a restart without load, from disk alone.
        embedded.service.process.kill()?;
        embedded.service.restart().await?;
        eventually("the same totals from disk", Duration::from_secs(30), async || {
            embedded
                .system
                .wait_until_shown(BUDGET, &ledger.totals(CATEGORIES), Duration::ZERO)
                .await
        })
        .await
    });
}
