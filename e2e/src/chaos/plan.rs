//! What will be done to whom, and when: a function of the seed alone.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::fault::{Fault, Kind, Link, RedisFault, STALL, STORE_TIMEOUT};
use super::proxy::Trouble;
use crate::own_servers::Server;
use crate::record::mix;

/// Of each kind of service so many run.
pub const EACH: usize = 2;
/// Two join; one of them is killed, the other leaves.
const SHORT_STORM: u32 = 3;
/// Whatever a storm does, it does twice.
const LONG_STORM: u32 = 8;

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All faults of services and a few of everything else, within a minute.
    Smoke,
    /// Everything.
    Full,
}

/// What is there at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The faults, in the order in which they begin and end.
    pub faults: Vec<Fault>,
    /// How long they stay.
    pub hold: Duration,
    /// How many submissions must be acknowledged before the next step.
    pub acknowledged_after: u64,
}

/// Everything that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One after the other.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The plan of a seed. Each fault of the extent is in it; the seed says on whom, in which order, and with what.
    pub fn of(seed: u64, extent: Extent) -> Self {
        let mut dice = Dice::of(seed);
        let mut left = match extent {
            Extent::Smoke => some(&mut dice, SHORT_STORM),
            Extent::Full => everything(&mut dice),
        };
        dice.shuffle(&mut left);
        let mut steps = Vec::new();
        while let Some(first) = left.pop() {
            let mut faults = vec![first];
            // Alone as often as in company.
            let company = [0, 0, 1, 2][dice.below(4)];
            for _ in 0..company {
                let fits = |fault: &Fault| faults.iter().all(|there| there.mixes_with(*fault));
                if let Some(place) = left.iter().position(fits) {
                    faults.push(left.remove(place));
                }
            }
            let stall = faults.iter().any(|fault| matches!(fault, Fault::Stall(_)));
            let longest = faults.iter().map(|fault| fault.hold()).max().unwrap_or_default();
            steps.push(Step {
                hold: if stall { STALL } else { longest },
                acknowledged_after: 10 + dice.below(60) as u64,
                faults,
            });
        }
        Self { steps }
    }

    /// How often each fault is in it.
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

/// All faults of services and a few of everything else.
fn some(dice: &mut Dice, storm: u32) -> Vec<Fault> {
    vec![
        Fault::Kill((Kind::Processor, dice.below(EACH))),
        Fault::Kill((Kind::Ingest, dice.below(EACH))),
        Fault::Kill((Kind::Api, dice.below(EACH))),
        Fault::Terminate((dice.kind(), dice.below(EACH))),
        Fault::Roll,
        Fault::Pause(dice.below(EACH)),
        Fault::Stall((dice.kind(), dice.below(EACH))),
        Fault::Storm(storm),
        late(Link::Cassandra(Kind::Processor)),
        Fault::Net(Trouble::Cut, Link::Kafka),
        Fault::Net(Trouble::Reset, Link::Redis(dice.kind())),
        Fault::Net(Trouble::Reset, Link::Client(dice.asked())),
        Fault::Redis(RedisFault::Flush),
    ]
}

fn everything(dice: &mut Dice) -> Vec<Fault> {
    let mut faults = some(dice, LONG_STORM);
    for server in 0..3 {
        let mut link = || match server {
            0 => Link::Kafka,
            1 => Link::Cassandra([Kind::Processor, Kind::Processor, Kind::Api][dice.below(3)]),
            _ => Link::Redis(dice.kind()),
        };
        for trouble in [Trouble::Cut, Trouble::Reset, Trouble::Slow] {
            faults.push(Fault::Net(trouble, link()));
        }
        for trouble in [Trouble::Swallow, Trouble::SwallowReplies] {
            faults.push(Fault::Net(trouble, link()));
        }
        faults.push(late(link()));
    }
    for kind in [Kind::Ingest, Kind::Api] {
        for trouble in [Trouble::Reset, Trouble::Slow, Trouble::Swallow] {
            faults.push(Fault::Net(trouble, Link::Client(kind)));
        }
    }
    let step = |dice: &mut Dice| match dice.below(2) {
        0 => 60 + dice.below(7_200) as i64,
        _ => -60 - dice.below(7_200) as i64,
    };
    faults.extend([
        Fault::Net(Trouble::Cut, Link::Client(dice.asked())),
        // What was asked for is done, and nobody hears of it.
        Fault::Net(Trouble::SwallowReplies, Link::Client(Kind::Ingest)),
        late(Link::Client(dice.asked())),
        Fault::KillServer(Server::Kafka),
        Fault::KillServer(Server::Cassandra),
        Fault::KillRedis,
        Fault::TerminateServer(Server::Kafka),
        Fault::TerminateServer(Server::Cassandra),
        Fault::TerminateRedis,
        Fault::Redis(RedisFault::ReadOnly),
        Fault::Redis(RedisFault::OutOfMemory),
        Fault::Kill((dice.kind(), dice.below(EACH))),
        Fault::Terminate((dice.kind(), dice.below(EACH))),
        Fault::Clock(Kind::Processor, step(dice)),
        Fault::Clock(dice.asked(), step(dice)),
    ]);
    faults
}

/// Replies that come late; from the store later than a request may take.
fn late(link: Link) -> Fault {
    let delay = match link {
        Link::Kafka | Link::Client(_) => Duration::from_millis(1_200),
        Link::Cassandra(_) => STORE_TIMEOUT + Duration::from_millis(500),
        Link::Redis(_) => Duration::from_millis(400),
    };
    Fault::Net(Trouble::Late(delay), link)
}

/// Chance that is the same for the same seed.
pub struct Dice(u64);

impl Dice {
    /// The dice of a seed.
    pub fn of(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// A number below `bound`, or 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        (mix(self.0) % bound.max(1) as u64) as usize
    }

    fn kind(&mut self) -> Kind {
        [Kind::Ingest, Kind::Processor, Kind::Api][self.below(3)]
    }

    /// A kind that clients ask for something.
    fn asked(&mut self) -> Kind {
        [Kind::Ingest, Kind::Api][self.below(2)]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::SESSION;
    use super::*;

    /// What a fault can be called.
    const KINDS: [&str; 28] = [
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
    fn a_seed_always_gives_the_same_plan_and_another_seed_another() {
        for seed in 0..50 {
            assert_eq!(Plan::of(seed, Extent::Full), Plan::of(seed, Extent::Full));
            assert_ne!(Plan::of(seed, Extent::Full), Plan::of(seed + 1, Extent::Full));
        }
    }

    #[test]
    fn every_seed_does_everything_of_its_extent() {
        let mut dice = Dice::of(0);
        let in_smoke = some(&mut dice, SHORT_STORM).len();
        let in_full = everything(&mut dice).len();
        for seed in 0..200 {
            for (extent, expected) in [(Extent::Smoke, in_smoke), (Extent::Full, in_full)] {
                let counts = Plan::of(seed, extent).counts();
                assert_eq!(counts.values().sum::<u32>() as usize, expected);
            }
            let counts = Plan::of(seed, Extent::Full).counts();
            assert_eq!(counts.into_keys().collect::<Vec<_>>(), KINDS);
        }
    }

    #[test]
    fn what_is_mixed_is_so_both_ways_and_a_stall_is_never_made_longer() {
        let mut mixed = 0;
        for seed in 0..200 {
            for step in Plan::of(seed, Extent::Full).steps {
                mixed += usize::from(step.faults.len() > 1);
                for (place, fault) in step.faults.iter().enumerate() {
                    for other in &step.faults[place + 1..] {
                        assert!(fault.mixes_with(*other) && other.mixes_with(*fault));
                    }
                }
                let stalls = step.faults.iter().any(|fault| matches!(fault, Fault::Stall(_)));
                assert!(!stalls || step.hold < SESSION);
            }
        }
        assert!(mixed > 200, "hardly anything is mixed");
    }
}
