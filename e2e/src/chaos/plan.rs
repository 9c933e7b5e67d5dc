//! The faults of a run, as a pure function of the seed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::fault::{Fault, Kind, Link, RedisFault, STALL_DURATION, STORE_TIMEOUT};
use super::proxy::NetworkFault;
use crate::own_servers::Server;
use crate::record::mix;

/// Number of services of each kind.
pub const SERVICES_PER_KIND: usize = 2;
/// Two processors join, one is killed, and the other leaves.
const SHORT_STORM: u32 = 3;
/// Every action of a rebalance storm happens twice.
const LONG_STORM: u32 = 8;

/// How many faults a run injects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All service faults and a few of the others, within a minute.
    Smoke,
    /// All faults.
    Full,
}

/// Faults that are active at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The faults, in the order of their start and end.
    pub faults: Vec<Fault>,
    /// How long the faults stay active.
    pub hold: Duration,
    /// Submissions that must be acknowledged before the next step.
    pub acknowledged_after: u64,
}

/// All steps of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps in order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Builds the plan of a seed.
    ///
    /// Every fault of the extent is in it. The seed determines the targets, the order and the combinations.
    pub fn from_seed(seed: u64, extent: Extent) -> Self {
        let mut rng = SeededRng::new(seed);
        let mut left = match extent {
            Extent::Smoke => smoke_faults(&mut rng, SHORT_STORM),
            Extent::Full => all_faults(&mut rng),
        };
        rng.shuffle(&mut left);
        let mut steps = Vec::new();
        while let Some(first) = left.pop() {
            let mut faults = vec![first];
            // Half of the faults are injected alone.
            let additional = [0, 0, 1, 2][rng.below(4)];
            for _ in 0..additional {
                let fits = |fault: &Fault| faults.iter().all(|active| active.may_overlap(*fault));
                if let Some(index) = left.iter().position(fits) {
                    faults.push(left.remove(index));
                }
            }
            let stall = faults.iter().any(|fault| matches!(fault, Fault::Stall(_)));
            let longest = faults.iter().map(|fault| fault.hold()).max().unwrap_or_default();
            steps.push(Step {
                hold: if stall { STALL_DURATION } else { longest },
                acknowledged_after: 10 + rng.below(60) as u64,
                faults,
            });
        }
        Self { steps }
    }

    /// Number of occurrences of each fault.
    pub fn counts(&self) -> BTreeMap<&'static str, u32> {
        let mut counts = BTreeMap::new();
        for fault in self.steps.iter().flat_map(|step| &step.faults) {
            *counts.entry(fault.name()).or_default() += 1;
        }
        counts
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(f, "  {number}. {:?} for {:?}", step.faults, step.hold)?;
        }
        Ok(())
    }
}

/// All service faults and a few of the others.
fn smoke_faults(rng: &mut SeededRng, storm: u32) -> Vec<Fault> {
    vec![
        Fault::Kill((Kind::Processor, rng.below(SERVICES_PER_KIND))),
        Fault::Kill((Kind::Ingest, rng.below(SERVICES_PER_KIND))),
        Fault::Kill((Kind::Api, rng.below(SERVICES_PER_KIND))),
        Fault::Terminate((rng.kind(), rng.below(SERVICES_PER_KIND))),
        Fault::Roll,
        Fault::Pause(rng.below(SERVICES_PER_KIND)),
        Fault::Stall((rng.kind(), rng.below(SERVICES_PER_KIND))),
        Fault::Storm(storm),
        delayed_replies(Link::Cassandra(Kind::Processor)),
        Fault::Net(NetworkFault::Cut, Link::Kafka),
        Fault::Net(NetworkFault::Reset, Link::Redis(rng.kind())),
        Fault::Net(NetworkFault::Reset, Link::Client(rng.client_facing_kind())),
        Fault::Redis(RedisFault::Flush),
    ]
}

fn all_faults(rng: &mut SeededRng) -> Vec<Fault> {
    let mut faults = smoke_faults(rng, LONG_STORM);
    for server in 0..3 {
        let mut link = || match server {
            0 => Link::Kafka,
            1 => Link::Cassandra([Kind::Processor, Kind::Processor, Kind::Api][rng.below(3)]),
            _ => Link::Redis(rng.kind()),
        };
        for fault in [NetworkFault::Cut, NetworkFault::Reset, NetworkFault::Slow] {
            faults.push(Fault::Net(fault, link()));
        }
        for fault in [NetworkFault::Swallow, NetworkFault::SwallowReplies] {
            faults.push(Fault::Net(fault, link()));
        }
        faults.push(delayed_replies(link()));
    }
    for kind in [Kind::Ingest, Kind::Api] {
        for fault in [NetworkFault::Reset, NetworkFault::Slow, NetworkFault::Swallow] {
            faults.push(Fault::Net(fault, Link::Client(kind)));
        }
    }
    let step = |rng: &mut SeededRng| match rng.below(2) {
        0 => 60 + rng.below(7_200) as i64,
        _ => -60 - rng.below(7_200) as i64,
    };
    faults.extend([
        Fault::Net(NetworkFault::Cut, Link::Client(rng.client_facing_kind())),
        // The request takes effect, but its response is lost.
        Fault::Net(NetworkFault::SwallowReplies, Link::Client(Kind::Ingest)),
        delayed_replies(Link::Client(rng.client_facing_kind())),
        Fault::KillServer(Server::Kafka),
        Fault::KillServer(Server::Cassandra),
        Fault::KillRedis,
        Fault::TerminateServer(Server::Kafka),
        Fault::TerminateServer(Server::Cassandra),
        Fault::TerminateRedis,
        Fault::Redis(RedisFault::ReadOnly),
        Fault::Redis(RedisFault::OutOfMemory),
        Fault::Kill((rng.kind(), rng.below(SERVICES_PER_KIND))),
        Fault::Terminate((rng.kind(), rng.below(SERVICES_PER_KIND))),
        Fault::Clock(Kind::Processor, step(rng)),
        Fault::Clock(rng.client_facing_kind(), step(rng)),
    ]);
    faults
}

/// Delays replies. Replies of the store are delayed beyond its request timeout.
fn delayed_replies(link: Link) -> Fault {
    let delay = match link {
        Link::Kafka | Link::Client(_) => Duration::from_millis(1_200),
        Link::Cassandra(_) => STORE_TIMEOUT + Duration::from_millis(500),
        Link::Redis(_) => Duration::from_millis(400),
    };
    Fault::Net(NetworkFault::Late(delay), link)
}

/// A deterministic random number generator.
pub struct SeededRng(u64);

impl SeededRng {
    /// Creates a generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// A number below `bound`. 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        (mix(self.0) % bound.max(1) as u64) as usize
    }

    fn kind(&mut self) -> Kind {
        [Kind::Ingest, Kind::Processor, Kind::Api][self.below(3)]
    }

    /// A kind of service that clients send requests to.
    fn client_facing_kind(&mut self) -> Kind {
        [Kind::Ingest, Kind::Api][self.below(2)]
    }

    /// Puts items into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::SESSION_TIMEOUT;
    use super::*;

    /// The names of all faults.
    const FAULT_NAMES: [&str; 28] = [
        "client_cut",
        "client_half_open",
        "client_late",
        "client_lost_replies",
        "client_reset",
        "client_slow",
        "clock",
        "cut",
        "half_open",
        "kill",
        "kill_cassandra",
        "kill_kafka",
        "kill_redis",
        "late",
        "lost_replies",
        "pause",
        "redis_flush",
        "redis_full",
        "redis_read_only",
        "reset",
        "roll",
        "slow",
        "stall",
        "storm",
        "term",
        "term_cassandra",
        "term_kafka",
        "term_redis",
    ];

    #[test]
    fn a_plan_is_determined_by_its_seed() {
        for seed in 0..50 {
            assert_eq!(Plan::from_seed(seed, Extent::Full), Plan::from_seed(seed, Extent::Full));
            assert_ne!(
                Plan::from_seed(seed, Extent::Full),
                Plan::from_seed(seed + 1, Extent::Full)
            );
        }
    }

    #[test]
    fn every_seed_injects_all_faults_of_its_extent() {
        let mut rng = SeededRng::new(0);
        let in_smoke = smoke_faults(&mut rng, SHORT_STORM).len();
        let in_full = all_faults(&mut rng).len();
        for seed in 0..200 {
            for (extent, expected) in [(Extent::Smoke, in_smoke), (Extent::Full, in_full)] {
                let counts = Plan::from_seed(seed, extent).counts();
                assert_eq!(counts.values().sum::<u32>() as usize, expected);
            }
            let counts = Plan::from_seed(seed, Extent::Full).counts();
            assert_eq!(counts.into_keys().collect::<Vec<_>>(), FAULT_NAMES);
        }
    }

    #[test]
    fn overlapping_is_symmetric_and_never_prolongs_a_stall() {
        let mut overlapping = 0;
        for seed in 0..200 {
            for step in Plan::from_seed(seed, Extent::Full).steps {
                overlapping += usize::from(step.faults.len() > 1);
                for (index, fault) in step.faults.iter().enumerate() {
                    for other in &step.faults[index + 1..] {
                        assert!(fault.may_overlap(*other) && other.may_overlap(*fault));
                    }
                }
                let stalls = step.faults.iter().any(|fault| matches!(fault, Fault::Stall(_)));
                assert!(!stalls || step.hold < SESSION_TIMEOUT);
            }
        }
        assert!(overlapping > 200, "too few faults overlap");
    }
}
