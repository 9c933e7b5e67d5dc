//! A storm of faults within a minute: every fault of services, and some of the network and of Redis. `make chaos` is the
//! long one.

use e2e::chaos::plan::Extent;
use e2e::chaos::{bound, run};
use e2e::scenario::scenario_within;

/// Any would do; one that is always the same can be repeated.
const SEED: u64 = 4;

#[test]
fn a_storm_of_faults_loses_and_repeats_nothing_and_heals_by_itself() {
    scenario_within(bound(Extent::Smoke), async || {
        println!("{}", run(SEED, Extent::Smoke).await?);
        Ok(())
    });
}
