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
            Extent::Smoke => smoke(&mut dice),
            Extent::Full => full(&mut dice),
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

fn smoke(dice: &mut Dice) -> Vec<Fault> {
    let late = Trouble::Late(STORE_TIMEOUT + Duration::from_millis(500));
    vec![
        Fault::Kill((Kind::Processor, dice.below(EACH))),
        Fault::Kill((Kind::Ingest, dice.below(EACH))),
        Fault::Kill((Kind::Api, dice.below(EACH))),
        Fault::Terminate((dice.kind(), dice.below(EACH))),
        Fault::Roll,
        Fault::Pause(dice.below(EACH)),
        Fault::Stall((dice.kind(), dice.below(EACH))),
        Fault::Storm(3),
        Fault::Net(late, Link::Cassandra(Kind::Processor)),
        Fault::Net(Trouble::Cut, Link::Kafka),
        Fault::Net(Trouble::Reset, Link::Redis(dice.kind())),
        Fault::Redis(RedisFault::Flush),
    ]
}

fn full(dice: &mut Dice) -> Vec<Fault> {
    let mut faults = smoke(dice);
    let late = |link| match link {
        Link::Kafka => Trouble::Late(Duration::from_millis(1_200)),
        Link::Cassandra(_) => Trouble::Late(STORE_TIMEOUT + Duration::from_millis(500)),
        Link::Redis(_) => Trouble::Late(Duration::from_millis(400)),
    };
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
        let link = link();
        faults.push(Fault::Net(late(link), link));
    }
    let step = |dice: &mut Dice| match dice.below(2) {
        0 => 60 + dice.below(7_200) as i64,
        _ => -60 - dice.below(7_200) as i64,
    };
    faults.extend([
        Fault::KillServer(Server::Kafka),
        Fault::KillServer(Server::Cassandra),
        Fault::Redis(RedisFault::Restart),
        Fault::Redis(RedisFault::ReadOnly),
        Fault::Redis(RedisFault::OutOfMemory),
        Fault::Kill((dice.kind(), dice.below(EACH))),
        Fault::Terminate((dice.kind(), dice.below(EACH))),
        Fault::Clock(Kind::Processor, step(dice)),
        Fault::Clock([Kind::Ingest, Kind::Api][dice.below(2)], step(dice)),
    ]);
    faults
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

    #[test]
    fn a_seed_always_gives_the_same_plan_and_another_seed_another() {
        for seed in 0..50 {
            assert_eq!(Plan::of(seed, Extent::Full), Plan::of(seed, Extent::Full));
            assert_ne!(Plan::of(seed, Extent::Full), Plan::of(seed + 1, Extent::Full));
        }
    }

    #[test]
    fn every_seed_does_everything_of_its_extent() {
        let (mut smoke_dice, mut full_dice) = (Dice::of(0), Dice::of(0));
        let (in_smoke, in_full) = (smoke(&mut smoke_dice).len(), full(&mut full_dice).len());
        for seed in 0..200 {
            for (extent, expected) in [(Extent::Smoke, in_smoke), (Extent::Full, in_full)] {
                let counts = Plan::of(seed, extent).counts();
                assert_eq!(counts.values().sum::<u32>() as usize, expected);
            }
            let kinds = Plan::of(seed, Extent::Full).counts().len();
            assert_eq!(kinds, 19, "a kind of fault is missing");
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
