//! The generations that are folded beside the one that answers: the one that is being built, and the one before, to
//! which there is a way back. Each partition that the log's group assigns to this process is folded here in every one
//! of them, by an owner like any other, which is fed by a reader of its own and tells nobody its totals.
//!
//! | file | what it has |
//! |---|---|
//! | `follow` | one partition of one generation: folded to where the answering one is, and compared there |
//! | `compare` | what differs |
//! | `letters` | what is put away of the records that cannot be taken |

mod compare;
mod follow;
mod letters;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use runtime::metrics::{Metrics, MetricsError};
use schemas::{PartitionId, Roster, Term};
use storage::log::{DeadLetters, LogReader};
use storage::store::{PartitionRef, Store};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::metrics::ProcessorMetrics;
use crate::partition::Limits;
use follow::{Follower, follow};

const FOLD_AT_ONCE: usize = 2;
const WRITE_AT_ONCE: usize = 1;

/// What the owners here work with.
pub(crate) struct BesideParts {
    /// Whence they are fed.
    pub log: Arc<dyn LogReader>,
    /// Where totals and rows go.
    pub store: Arc<dyn Store>,
    /// Where records go that cannot be folded.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// The owners' pace.
    pub limits: Limits,
    /// A name that no other process ever has.
    pub owner: String,
    /// Where it is told who is in trouble.
    pub metrics: ProcessorMetrics,
    /// Whose turn it is.
    pub turns: Turns,
}

/// What few partitions do at once: more would slow down those that answer, by the store's work most of all.
pub(crate) struct Turns {
    /// To fold what was missed.
    pub to_fold: Arc<Semaphore>,
    /// To write a slice of people's rows.
    pub to_write: Arc<Semaphore>,
}

impl Turns {
    /// Nobody has one.
    pub fn new() -> Self {
        let (to_fold, to_write) = (Semaphore::new(FOLD_AT_ONCE), Semaphore::new(WRITE_AT_ONCE));
        Self { to_fold: Arc::new(to_fold), to_write: Arc::new(to_write) }
    }
}

/// The owners of this process beside those of the generation that answers.
pub(crate) struct Beside {
    parts: Arc<BesideParts>,
    /// Of partitions in more than one generation: not shown, as the gauges have one place for each partition.
    metrics: ProcessorMetrics,
    followers: BTreeMap<PartitionRef, Following>,
}

struct Following {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Beside {
    /// Nobody is folded yet.
    ///
    /// # Errors
    /// When the metrics clash.
    pub fn new(parts: BesideParts) -> Result<Self, MetricsError> {
        let metrics = ProcessorMetrics::new(&Metrics::new("beside"))?;
        Ok(Self { parts: Arc::new(parts), metrics, followers: BTreeMap::new() })
    }

    /// Folds what is assigned, in every generation of the roster but the one that this process folds for the group (which
    /// is another than the one that answers for a moment after a flip), until told to stop.
    pub async fn run(
        mut self,
        mut assigned: watch::Receiver<BTreeSet<PartitionId>>,
        mut term: watch::Receiver<Term>,
        mut roster: watch::Receiver<Roster>,
        stop: CancellationToken,
    ) {
        loop {
            let wanted = {
                let (assigned, term) = (assigned.borrow_and_update(), term.borrow_and_update());
                wanted(&roster.borrow_and_update(), *term, &assigned)
            };
            self.let_go_of_all_but(&wanted).await;
            self.take_up(wanted, &roster);
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = assigned.changed() => {}
                Ok(()) = roster.changed() => {}
                Ok(()) = term.changed() => {}
            }
        }
        self.let_go_of_all_but(&BTreeSet::new()).await;
    }

    fn take_up(&mut self, wanted: BTreeSet<PartitionRef>, roster: &watch::Receiver<Roster>) {
        for id in wanted {
            self.followers.entry(id).or_insert_with(|| {
                let stop = CancellationToken::new();
                let follower = Follower {
                    id,
                    parts: Arc::clone(&self.parts),
                    metrics: self.metrics.partition(id.partition),
                    roster: roster.clone(),
                };
                let task = tokio::spawn(follow(follower, stop.clone()));
                Following { stop, task }
            });
        }
    }

    async fn let_go_of_all_but(&mut self, wanted: &BTreeSet<PartitionRef>) {
        let gone: Vec<_> = self.followers.extract_if(.., |id, _| !wanted.contains(id)).collect();
        for (_, follower) in &gone {
            follower.stop.cancel();
        }
        for (id, follower) in gone {
            if follower.task.await.is_err() {
                tracing::error!(partition = %id.partition, generation = %id.generation, "its follower failed");
            }
        }
    }
}

/// Everything that is assigned, in all generations of the same log but the one that is folded for the group.
fn wanted(roster: &Roster, here: Term, assigned: &BTreeSet<PartitionId>) -> BTreeSet<PartitionRef> {
    let current = &roster.current;
    std::iter::once(current)
        .chain(roster.beside())
        .filter(|record| record.generation != here.generation)
        .filter(|record| (&record.topic, record.partitions) == (&current.topic, current.partitions))
        .flat_map(|record| {
            let generation = record.generation;
            assigned.iter().map(move |partition| PartitionRef { generation, partition: *partition })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use schemas::{Generation, GenerationRecord, PartitionCount};

    use super::*;

    #[test]
    fn after_a_flip_what_is_still_folded_for_the_group_is_left_alone_and_the_new_one_is_folded_on()
    {
        let mut roster = Roster::first("submissions", PartitionCount::new(4).unwrap());
        let old = roster.current.clone();
        roster.current = GenerationRecord { generation: Generation(2), ..old.clone() };
        (roster.term, roster.previous) = (2, Some(old));
        let assigned = BTreeSet::from([PartitionId(1), PartitionId(3)]);
        let generations = |here: Term| -> Vec<u32> {
            wanted(&roster, here, &assigned).iter().map(|id| id.generation.0).collect()
        };
        assert_eq!(generations(Term::FIRST), [2, 2]);
        assert_eq!(generations(roster.term()), [1, 1]);
    }
}
