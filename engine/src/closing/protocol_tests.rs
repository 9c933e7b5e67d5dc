//! The protocol of closing as a model: `ingest`, owners and administrators take their steps in any order, each as late
//! and as often as a schedule says. No step knows a clock: whoever's clock says that a budget is due may close it.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use schemas::{Budget, Closing, ClosingFence, ClosingState, Marker, Offset, default_budgets};
use storage::control::{close, complete_reopening, define};

const PARTITIONS: usize = 3;
const ACTORS: usize = 4;

/// One step of the schedule; the numbers choose a partition and an actor.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A submission is appended; the actor has seen a definition that may be outdated.
    Append { actor: usize, partition: usize, outdated: usize },
    /// The actor's append is confirmed, or not, and answered.
    Confirm { actor: usize },
    /// A clock says that the budget is due.
    Close,
    /// An owner, of any time, reads the fence.
    ReadFence { actor: usize },
    /// The owner appends the marker that follows from what it has read, maybe long ago.
    AppendMarker { actor: usize, partition: usize },
    /// A process sees that every partition has its reopen marker.
    CompleteReopening,
    /// An administrator moves the closing time into the future.
    Reopen,
}

fn steps() -> impl Strategy<Value = Step> {
    let (actors, partitions) = (0..ACTORS, 0..PARTITIONS);
    prop_oneof![
        4 => (actors.clone(), partitions.clone(), 0..3_usize)
            .prop_map(|(actor, partition, outdated)| Step::Append { actor, partition, outdated }),
        4 => actors.clone().prop_map(|actor| Step::Confirm { actor }),
        1 => Just(Step::Close),
        3 => actors.clone().prop_map(|actor| Step::ReadFence { actor }),
        5 => (actors, partitions)
            .prop_map(|(actor, partition)| Step::AppendMarker { actor, partition }),
        2 => Just(Step::CompleteReopening),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Log {
    end: u64,
    closing: Closing,
}

impl Log {
    fn append(&mut self) -> Offset {
        self.end += 1;
        Offset(self.end - 1)
    }
}

struct World {
    /// All definitions, the newest last: what a read of the control topic's end returns.
    definitions: Vec<Budget>,
    logs: [Log; PARTITIONS],
    /// Appended submissions that are not answered: partition, offset, and the fence before the append.
    pending: [Option<(usize, Offset, Option<ClosingFence>)>; ACTORS],
    /// Markers that owners are about to append.
    read: [Option<Marker>; ACTORS],
    accepted: Vec<(usize, Offset)>,
    /// Acceptances at the time when the totals were final, with the number of reopenings before.
    final_at: Option<usize>,
}

impl World {
    fn new() -> Self {
        let budget = default_budgets().unwrap().remove(0);
        let closes_at = Some("2027-01-01T00:00:00Z".parse().unwrap());
        Self {
            definitions: vec![Budget { closes_at, revision: 1, ..budget }],
            logs: Default::default(),
            pending: [None; ACTORS],
            read: [None; ACTORS],
            accepted: Vec::new(),
            final_at: None,
        }
    }

    fn current(&self) -> &Budget {
        self.definitions.last().unwrap()
    }

    fn take(&mut self, step: Step) {
        let current = self.current().clone();
        let mut next = None;
        match step {
            Step::Append { actor, partition, outdated } => {
                let seen = self.definitions.iter().rev().nth(outdated).unwrap_or(&current);
                if !seen.is_fenced() {
                    let before = seen.closing;
                    let offset = self.logs[partition].append();
                    self.pending[actor] = Some((partition, offset, before));
                }
            }
            Step::Confirm { actor } => {
                if let Some((partition, offset, before)) = self.pending[actor].take()
                    && current.closing == before
                {
                    self.accepted.push((partition, offset));
                }
            }
            Step::Close => next = close(Some(&current), &current).unwrap(),
            Step::ReadFence { actor } => {
                self.read[actor] = current.closing.and_then(ClosingFence::marker);
            }
            Step::AppendMarker { actor, partition } => {
                if let Some(marker) = self.read[actor] {
                    let offset = self.logs[partition].append();
                    self.logs[partition].closing.fold(marker, offset);
                }
            }
            Step::CompleteReopening => {
                if let Some(fence) = current.closing
                    && fence.state == ClosingState::Reopening
                    && self.logs.iter().all(|log| log.closing.revision() >= fence.revision)
                {
                    next = complete_reopening(Some(&current), fence).unwrap();
                }
            }
            Step::Reopen => {
                let later = current.closes_at.unwrap() + jiff::SignedDuration::from_hours(1);
                let wanted = Budget { closes_at: Some(later), ..current.clone() };
                next = define(Some(&current), &wanted).unwrap();
                self.final_at = None;
            }
        }
        self.definitions.extend(next);
        let is_final = self.logs.iter().all(|log| log.closing.is_closed());
        let is_closed = self.current().closing.is_some_and(|it| it.state == ClosingState::Closed);
        if is_final && is_closed {
            self.final_at.get_or_insert(self.accepted.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_accepted_counts_and_nothing_is_accepted_once_the_result_is_final(
        schedule in prop::collection::vec(steps(), 0..120),
    ) {
        let mut world = World::new();
        for step in schedule {
            world.take(step);
            if let Some(accepted) = world.final_at {
                prop_assert_eq!(world.accepted.len(), accepted, "accepted after the result was final");
            }
        }
        for (partition, offset) in world.accepted {
            let closing = &world.logs[partition].closing;
            prop_assert!(!closing.is_late(offset), "accepted and late: {} in {:?}", offset, closing);
        }
    }
}
