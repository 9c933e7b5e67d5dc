//! The generations that are folded beside the one that answers: the one that is being built, and the one before, to
//! which there is a way back. Each partition that the log's group assigns to this process is folded here in every one
//! of them, by an owner like any other, which is fed by a reader of its own and tells nobody its totals.
//!
//! | file | what it has |
//! |---|---|
//! | `follow` | one partition of one generation: folded to where the answering one is, and compared there |
//! | `answering` | the same partition in the answering one |
//! | `compare` | what differs |
//! | `letters` | what is put away of the records that cannot be taken |

mod answering;
mod compare;
mod follow;
mod letters;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use runtime::metrics::{Metrics, MetricsError};
use schemas::{GenerationRecord, LogNumber, LogRef, PartitionId, Roster};
use storage::log::{DeadLetters, LogReader, LogReaders, ReadError};
use storage::store::{PartitionRef, Store};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::coordinator::Here;
use crate::metrics::ProcessorMetrics;
use crate::partition::Limits;
use follow::{Follower, follow};

const FOLD_AT_ONCE: usize = 3;
const WRITE_AT_ONCE: usize = 1;

/// What the owners here work with.
pub(crate) struct BesideParts {
    /// Whence they are fed.
    pub readers: Readers,
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

/// Readers of the logs, each opened once.
pub(crate) struct Readers {
    logs: Arc<dyn LogReaders>,
    opened: Mutex<BTreeMap<LogNumber, Arc<dyn LogReader>>>,
}

impl Readers {
    /// None is opened yet.
    pub fn new(logs: Arc<dyn LogReaders>) -> Self {
        Self { logs, opened: Mutex::default() }
    }

    async fn of(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, ReadError> {
        let mut opened = self.opened.lock().await;
        if let Some(reader) = opened.get(&log.number) {
            return Ok(Arc::clone(reader));
        }
        let reader = self.logs.open(log).await;
        let reader = reader.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        opened.insert(log.number, Arc::clone(&reader));
        Ok(reader)
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
        mut here: watch::Receiver<Here>,
        mut roster: watch::Receiver<Roster>,
        stop: CancellationToken,
    ) {
        loop {
            let wanted = {
                let (assigned, here) = (assigned.borrow_and_update(), here.borrow_and_update());
                wanted(&roster.borrow_and_update(), &here, &assigned)
            };
            self.let_go_of_all_but(&wanted).await;
            self.take_up(wanted, &roster);
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = assigned.changed() => {}
                Ok(()) = roster.changed() => {}
                Ok(()) = here.changed() => {}
            }
        }
        self.let_go_of_all_but(&BTreeMap::new()).await;
    }

    fn take_up(
        &mut self,
        wanted: BTreeMap<PartitionRef, LogRef>,
        roster: &watch::Receiver<Roster>,
    ) {
        for (id, log) in wanted {
            self.followers.entry(id).or_insert_with(|| {
                let stop = CancellationToken::new();
                let follower = Follower {
                    id,
                    log,
                    parts: Arc::clone(&self.parts),
                    metrics: self.metrics.partition(id.partition),
                    roster: roster.clone(),
                };
                let task = tokio::spawn(follow(follower, stop.clone()));
                Following { stop, task }
            });
        }
    }

    async fn let_go_of_all_but(&mut self, wanted: &BTreeMap<PartitionRef, LogRef>) {
        let gone: Vec<_> =
            self.followers.extract_if(.., |id, _| !wanted.contains_key(id)).collect();
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

/// Everything that is assigned, in all generations but the one that is folded for the group. Of another log, each
/// partition goes with one of those that the group gives away.
fn wanted(
    roster: &Roster,
    here: &Here,
    assigned: &BTreeSet<PartitionId>,
) -> BTreeMap<PartitionRef, LogRef> {
    std::iter::once(&roster.current)
        .chain(roster.beside())
        .filter(|record| record.generation != here.term.generation)
        // One that answers, of another log, is about to be folded for the group, maybe already by another process.
        .filter(|record| record.log == here.log || *record != &roster.current)
        .flat_map(|GenerationRecord { generation, log }| {
            let goes_with = here.log.partitions.get();
            let partitions = log.partitions.partitions();
            let ours =
                partitions.filter(move |it| assigned.contains(&PartitionId(it.0 % goes_with)));
            ours.map(move |partition| {
                (PartitionRef { generation: *generation, partition }, log.clone())
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use schemas::{Generation, PartitionCount, Term};

    use super::*;

    fn roster() -> Roster {
        Roster::first(LogRef::first("submissions", PartitionCount::new(4).unwrap()))
    }

    fn here(roster: &Roster) -> Here {
        Here { term: roster.term(), log: roster.current.log.clone() }
    }

    #[test]
    fn after_a_flip_what_is_still_folded_for_the_group_is_left_alone_and_the_new_one_is_folded_on()
    {
        let mut roster = roster();
        let before = here(&roster);
        let old = roster.current.clone();
        roster.current = GenerationRecord { generation: Generation(2), ..old.clone() };
        (roster.term, roster.previous) = (2, Some(old));
        let assigned = BTreeSet::from([PartitionId(1), PartitionId(3)]);
        let generations = |here: &Here| -> Vec<u32> {
            wanted(&roster, here, &assigned).keys().map(|id| id.generation.0).collect()
        };
        assert_eq!(generations(&before), [2, 2]);
        assert_eq!(generations(&here(&roster)), [1, 1]);
    }

    #[test]
    fn every_partition_of_another_log_goes_with_one_that_the_group_gives_away_until_it_answers() {
        let mut roster = roster();
        let before = here(&roster);
        let log = LogRef {
            number: LogNumber(2),
            topic: "submissions-2".into(),
            partitions: PartitionCount::new(7).unwrap(),
        };
        let moved = GenerationRecord { generation: Generation(2), log };
        roster.previous = Some(moved.clone());
        let partitions = |assigned: &[u32]| -> Vec<u32> {
            let assigned = assigned.iter().copied().map(PartitionId).collect();
            wanted(&roster, &before, &assigned).keys().map(|id| id.partition.0).collect()
        };
        assert_eq!(partitions(&[0, 2]), [0, 2, 4, 6]);
        assert_eq!(partitions(&[1, 3]), [1, 3, 5]);
        (roster.previous, roster.current, roster.term) = (None, moved, 2);
        let all = roster.current.log.partitions.partitions().collect();
        assert!(wanted(&roster, &before, &all).is_empty());
        assert_eq!(
            here(&roster).term,
            Term { number: 2, generation: Generation(2), log: LogNumber(2) }
        );
    }
}
