//! Processes are killed, and stand still, at any moment: nothing that was acknowledged is lost, nobody counts twice.

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

/// Everything of which there can be two, twice; and little patience with silent processors.
async fn two_of_each() -> Result<Stack> {
    let builder =
        StackBuilder { ingests: 2, processors: 2, session_timeout_ms: 2_000, ..Stack::builder() };
    let stack = builder.start().await?;
    stack.system.define(BUDGET, CATEGORIES).await?;
    Ok(stack)
}

#[test]
fn processors_killed_under_load_lose_and_repeat_nothing() {
    scenario(async || {
        let mut stack = two_of_each().await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        for victim in [0, 1, 0] {
            load.goes_on_for(200).await?;
            let processor = &mut stack.processors[victim];
            processor.process.kill()?;
            load.goes_on_for(50).await?;
            processor.restart().await?;
        }
        stack.all_owned().await?;
        let ledger = load.stop().await?;
        watch.stop().await?;
        ledger.is_counted(&stack, BUDGET, CATEGORIES).await
    });
}

#[test]
fn ingests_killed_under_load_lose_and_repeat_nothing() {
    scenario(async || {
        let mut stack = two_of_each().await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        for victim in [0, 1, 0, 1] {
            load.goes_on_for(150).await?;
            let ingest = &mut stack.ingests[victim];
            ingest.process.kill()?;
            load.goes_on_for(50).await?;
            ingest.restart().await?;
        }
        let ledger = load.stop().await?;
        watch.stop().await?;
        ensure!(ledger.repeats > 0, "nobody noticed");
        ledger.is_counted(&stack, BUDGET, CATEGORIES).await
    });
}

#[test]
fn an_api_killed_under_load_never_shows_an_older_number_afterwards() {
    scenario(async || {
        let mut stack = two_of_each().await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::NoAnswer);
        for _ in 0..3 {
            load.goes_on_for(150).await?;
            stack.apis[0].process.kill()?;
            stack.apis[0].restart().await?;
        }
        load.goes_on_for(100).await?;
        let ledger = load.stop().await?;
        watch.stop().await?;
        ledger.is_counted(&stack, BUDGET, CATEGORIES).await
    });
}

#[test]
fn a_processor_that_stood_still_past_its_session_is_fenced_and_does_no_harm() {
    scenario(async || {
        let mut stack = two_of_each().await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        load.goes_on_for(200).await?;
        let zombie = stack.processors.remove(0);
        zombie.process.signal(Signal::Stop)?;
        // The other one has taken everything over.
        stack.all_owned().await?;
        load.goes_on_for(200).await?;
        zombie.process.signal(Signal::Continue)?;
        stack.processors.push(zombie);
        load.goes_on_for(200).await?;
        stack.owned_so(|owned| owned.iter().all(|owned| *owned > 0)).await?;
        let ledger = load.stop().await?;
        watch.stop().await?;
        ledger.is_counted(&stack, BUDGET, CATEGORIES).await
    });
}

#[test]
fn the_embedded_default_killed_under_load_loses_and_repeats_nothing() {
    scenario(async || {
        let mut embedded = Embedded::start().await?;
        embedded.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&embedded.system);
        let watch = Watch::start(&embedded.system, BUDGET, Tolerance::NoAnswer);
        for _ in 0..4 {
            load.goes_on_for(200).await?;
            embedded.service.process.kill()?;
            embedded.service.restart().await?;
        }
        load.goes_on_for(100).await?;
        let ledger = load.stop().await?;
        watch.stop().await?;
        ensure!(ledger.repeats > 0, "nobody noticed");
        embedded.system.shows(BUDGET, &ledger.totals(CATEGORIES), Duration::from_secs(10)).await?;
        // The same after a restart in peace, from disk alone.
        embedded.service.process.kill()?;
        embedded.service.restart().await?;
        eventually("the same totals from disk", Duration::from_secs(10), async || {
            embedded.system.shows(BUDGET, &ledger.totals(CATEGORIES), Duration::ZERO).await
        })
        .await
    });
}
