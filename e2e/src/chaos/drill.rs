//! The drills that follow the seeds: their names, and which of them run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};

use super::damage::{self, Damage, Truncation};
use super::{brokers, disk, isolation, leaderless, store_range};
use crate::scenario::scenario_within;

const DISK_TIMEOUT: Duration = Duration::from_secs(300);

/// A drill, by the name that selects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drill {
    /// Stored data is lost or goes back under load.
    Damage(Damage),
    /// Stored data is lost after the load.
    Truncation(Truncation),
    /// Three brokers are killed, stopped and restarted.
    Brokers,
    /// One partition has no leader.
    Leaderless,
    /// One range of the store does not respond.
    StoreRange,
    /// The disk of the embedded default is full.
    FullDisk,
}

/// All drills, in the order in which they run.
const DRILLS: [(&str, Drill); 10] = [
    ("restore", Drill::Damage(Damage::StoreRestored)),
    ("people-truncated", Drill::Damage(Damage::PeopleTruncated)),
    ("people-lost", Drill::Damage(Damage::PeopleLost)),
    ("totals-truncated", Drill::Truncation(Truncation::Totals)),
    ("log-truncated", Drill::Truncation(Truncation::Log)),
    // Last of its stack: the partition stays halted.
    ("records-lost", Drill::Truncation(Truncation::UnfoldedLog)),
    ("brokers", Drill::Brokers),
    ("leaderless", Drill::Leaderless),
    ("store-range", Drill::StoreRange),
    ("disk", Drill::FullDisk),
];

impl FromStr for Drill {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let Some((_, drill)) = DRILLS.into_iter().find(|(known, _)| *known == name) else {
            let known = DRILLS.map(|(name, _)| name).join(", ");
            bail!("no drill is named {name:?}; the drills are {known}");
        };
        Ok(drill)
    }
}

impl Drill {
    /// All drills.
    pub fn all() -> Vec<Self> {
        DRILLS.map(|(_, drill)| drill).to_vec()
    }

    fn name(self) -> &'static str {
        DRILLS.into_iter().find(|(_, drill)| *drill == self).map_or("", |(name, _)| name)
    }
}

/// What the drills depend on.
#[derive(Debug, Clone, Copy)]
pub struct DrillOptions {
    /// Decides the order of the damages.
    pub seed: u64,
    /// How long one partition has no leader, and one range of the store does not respond.
    pub fault_duration: Duration,
}

/// Runs drills and prints their verdicts. Returns the names of those that failed.
pub fn run_all(drills: &[Drill], options: DrillOptions) -> Vec<&'static str> {
    let mut failed = Vec::new();
    let (mut damages, mut truncations) = (Vec::new(), Vec::new());
    for drill in drills.iter().copied() {
        match drill {
            Drill::Damage(damage) => damages.push(damage),
            Drill::Truncation(truncation) => truncations.push(truncation),
            _ => {}
        }
    }
    // Damages and truncations share the stack and the load of one run.
    if !damages.is_empty() || !truncations.is_empty() {
        let run = async || Ok(damage::run(options.seed, damages, &truncations).await?.to_string());
        failed.extend(attempt("damage", damage::RUN_TIMEOUT, run).err());
    }
    for drill in drills.iter().copied() {
        let hold = options.fault_duration;
        let outcome = match drill {
            Drill::Damage(_) | Drill::Truncation(_) => continue,
            Drill::Brokers => attempt(drill.name(), brokers::RUN_TIMEOUT, brokers::run),
            Drill::Leaderless => {
                let run = async || Ok(leaderless::run(hold).await?.to_string());
                attempt(drill.name(), isolation::run_timeout(hold), run)
            }
            Drill::StoreRange => {
                let run = async || Ok(store_range::run(hold).await?.to_string());
                attempt(drill.name(), isolation::run_timeout(hold), run)
            }
            Drill::FullDisk => {
                let run = async || Ok(disk::run_full_disk().await?.to_string());
                attempt(drill.name(), DISK_TIMEOUT, run)
            }
        };
        failed.extend(outcome.err());
    }
    failed
}

/// Runs one drill and prints its verdict, or the reason of its failure. The others still run after a failure.
fn attempt(
    name: &'static str,
    timeout: Duration,
    run: impl AsyncFnOnce() -> Result<String>,
) -> Result<(), &'static str> {
    let scenario = || {
        scenario_within(timeout, async || {
            println!("{}", run().await?);
            Ok(())
        })
    };
    catch_unwind(AssertUnwindSafe(scenario)).map_err(|_| {
        println!("CHAOS drill {name} failed");
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_drill_is_found_by_its_name_and_an_unknown_name_lists_all() {
        for drill in Drill::all() {
            assert_eq!(drill.name().parse::<Drill>().unwrap(), drill);
        }
        let error = "restor".parse::<Drill>().unwrap_err().to_string();
        assert!(Drill::all().iter().all(|drill| error.contains(drill.name())), "{error}");
    }
}
