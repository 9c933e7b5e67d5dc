//! Processors join and leave under load: partitions move, and no reader sees a wrong total or one that goes back.

use e2e::load::Crowd;
use e2e::scenario::scenario;
use e2e::stack::{Stack, StackBuilder};
use e2e::watch::{Tolerance, Watch};
use std::time::Duration;

const CATEGORIES: usize = 10;

#[test]
fn partitions_move_between_one_to_three_processors_without_a_wrong_total() {
    scenario(async || {
        let mut stack = StackBuilder { apis: 2, partitions: 6, ..Stack::builder() }.start().await?;
        let budget = "moving";
        stack.system.define(budget, CATEGORIES).await?;
        let load = Crowd::new(budget, CATEGORIES).start(&stack.system);
        let watch = Watch::start(&stack.system, budget, Tolerance::None);

        load.wait_for_acknowledgements(200).await?;
        for processors in 2..=3 {
            stack.add_processor().await?;
            let share = stack.partitions / processors;
            stack.wait_until_owned(|owned| owned.iter().all(|owned| *owned == share)).await?;
            load.wait_for_acknowledgements(200).await?;
        }
        let mut leaving = stack.processors.remove(0);
        leaving.terminate(Duration::from_secs(15)).await?;
        stack.wait_until_owned(|owned| owned.iter().all(|owned| *owned == 3)).await?;
        load.wait_for_acknowledgements(200).await?;

        let ledger = load.stop().await?;
        watch.stop().await?;
        ledger.verify_counted(&stack, budget, CATEGORIES).await
    });
}
