//! A short chaos run of about a minute: every fault of the services, and some of the network and of Redis.
//!
//! `make chaos` is the long run.

use e2e::chaos::plan::Extent;
use e2e::chaos::{run, run_timeout};
use e2e::scenario::scenario_within;

/// Fixed, so that a failure can be reproduced.
const SEED: u64 = 4;

#[test]
fn random_faults_lose_and_duplicate_nothing_and_the_system_recovers() {
    scenario_within(run_timeout(Extent::Smoke), async || {
        println!("{}", run(SEED, Extent::Smoke).await?);
        Ok(())
    });
}
