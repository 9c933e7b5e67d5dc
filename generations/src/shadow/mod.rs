//! Shadow generations: folded by this process without serving reads.
//!
//! Shadow generations are the one being built and the previous one, which is kept for rollback.
//! Every partition that the consumer group assigns to this process is folded in each of them, by
//! an owner like any other, but with its own log reader and without publishing to the cache.
//!
//! | file | owns |
//! |---|---|
//! | `partition` | one partition of one shadow generation: folding and comparing |
//! | `owner` | its running owner and the records fed to it |
//! | `report` | its reports in the store |
//! | `active` | the same partition in the active generation |
//! | `compare` | differences between the two |
//! | `error` | why a shadow partition stops |
//! | `dead_letters` | which dead letters a shadow partition appends |

mod active;
mod compare;
mod dead_letters;
mod error;
mod owner;
mod partition;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::coordinator::{ActiveGeneration, ShadowOwners};
use engine::metrics::EngineMetrics;
use engine::partition::PartitionLimits;
use runtime::metrics::{Metrics, MetricsError};
use schemas::{GenerationRecord, GenerationRegistry, LogNumber, LogRef, PartitionId};
use storage::log::{DeadLetterWriter, LogReader, LogReaderOpener, ReadError};
use storage::store::{PartitionRef, Store};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::metrics::GenerationMetrics;
use partition::ShadowPartition;

const MAX_CONCURRENT_CATCH_UPS: usize = 3;
const MAX_CONCURRENT_ROW_WRITES: usize = 1;

/// Dependencies of [`ShadowGenerations`].
pub struct ShadowDeps {
    /// Readers of the logs that generations derive from.
    pub readers: LogReaderPool,
    /// The store of totals and person rows.
    pub store: Arc<dyn Store>,
    /// Writer of the dead letters of rejected records.
    pub dead_letters: Arc<dyn DeadLetterWriter>,
    /// Pace and limits of the partitions.
    pub limits: PartitionLimits,
    /// Owner name, unique to this process.
    pub owner: String,
    /// The owners of this process, whose people the coordinator takes after a switch.
    pub owners: Arc<ShadowOwners>,
    /// Metrics of generations.
    pub metrics: GenerationMetrics,
    /// Permits for expensive work.
    pub permits: ShadowPermits,
}

/// Permits that bound the load which shadow partitions put on the store.
pub struct ShadowPermits {
    /// Permits to fold a large lag.
    pub fold: Arc<Semaphore>,
    /// Permits to commit, shared with the active generation.
    pub commit: Arc<Semaphore>,
    /// Permits to write a slice of person rows.
    pub write_rows: Arc<Semaphore>,
}

impl ShadowPermits {
    /// Creates the permits of one process, whose owners commit under `commit`.
    pub fn new(commit: Arc<Semaphore>) -> Self {
        Self {
            commit,
            fold: Arc::new(Semaphore::new(MAX_CONCURRENT_CATCH_UPS)),
            write_rows: Arc::new(Semaphore::new(MAX_CONCURRENT_ROW_WRITES)),
        }
    }
}

/// Log readers, each opened once and shared.
pub struct LogReaderPool {
    opener: Arc<dyn LogReaderOpener>,
    opened: Mutex<BTreeMap<LogNumber, Arc<dyn LogReader>>>,
}

impl LogReaderPool {
    /// Creates a pool without open readers.
    pub fn new(opener: Arc<dyn LogReaderOpener>) -> Self {
        Self { opener, opened: Mutex::default() }
    }

    /// Returns the reader of a log and opens it on first use.
    async fn get(&self, log: &LogRef) -> Result<Arc<dyn LogReader>, ReadError> {
        let mut opened = self.opened.lock().await;
        if let Some(reader) = opened.get(&log.number) {
            return Ok(Arc::clone(reader));
        }
        let reader = self.opener.open(log).await;
        let reader = reader.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        opened.insert(log.number, Arc::clone(&reader));
        Ok(reader)
    }
}

/// The shadow partitions of this process.
pub struct ShadowGenerations {
    deps: Arc<ShadowDeps>,
    /// Unexported engine metrics: the exported gauges hold one value per partition, that of the
    /// active generation.
    unexported_metrics: EngineMetrics,
    running: BTreeMap<PartitionRef, RunningPartition>,
}

struct RunningPartition {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl ShadowGenerations {
    /// Creates the manager; no partition is folded yet.
    ///
    /// # Errors
    /// When a metric cannot be registered.
    pub fn new(deps: ShadowDeps) -> Result<Self, MetricsError> {
        let unexported_metrics = EngineMetrics::new(&Metrics::new("shadow"))?;
        Ok(Self { deps: Arc::new(deps), unexported_metrics, running: BTreeMap::new() })
    }

    /// Folds the assigned partitions in every shadow generation until `stop` is cancelled.
    ///
    /// `adopted` is the generation that this process folds for the consumer group. For a moment
    /// after a switch it is not the active generation of the registry.
    pub async fn run(
        mut self,
        mut assigned: watch::Receiver<BTreeSet<PartitionId>>,
        mut adopted: watch::Receiver<ActiveGeneration>,
        mut registry: watch::Receiver<GenerationRegistry>,
        stop: CancellationToken,
    ) {
        loop {
            let wanted = {
                let (assigned, adopted) =
                    (assigned.borrow_and_update(), adopted.borrow_and_update());
                shadow_partitions(&registry.borrow_and_update(), &adopted, &assigned)
            };
            self.stop_all_except(&wanted).await;
            self.start_missing(wanted, &registry);
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = assigned.changed() => {}
                Ok(()) = registry.changed() => {}
                Ok(()) = adopted.changed() => {}
            }
        }
        self.stop_all_except(&BTreeMap::new()).await;
    }

    fn start_missing(
        &mut self,
        wanted: BTreeMap<PartitionRef, LogRef>,
        registry: &watch::Receiver<GenerationRegistry>,
    ) {
        for (id, log) in wanted {
            self.running.entry(id).or_insert_with(|| {
                let stop = CancellationToken::new();
                let partition = ShadowPartition {
                    id,
                    log,
                    deps: Arc::clone(&self.deps),
                    metrics: self.unexported_metrics.partition(id.partition),
                    registry: registry.clone(),
                };
                let task = tokio::spawn(partition.run(stop.clone()));
                RunningPartition { stop, task }
            });
        }
    }

    async fn stop_all_except(&mut self, wanted: &BTreeMap<PartitionRef, LogRef>) {
        let stopping: Vec<_> =
            self.running.extract_if(.., |id, _| !wanted.contains_key(id)).collect();
        for (_, partition) in &stopping {
            partition.stop.cancel();
        }
        for (id, partition) in stopping {
            if partition.task.await.is_err() {
                tracing::error!(
                    partition = %id.partition,
                    generation = %id.generation,
                    "shadow partition panicked",
                );
            }
        }
    }
}

/// Returns the partitions to fold: the assigned ones, in all generations but the adopted one.
///
/// A partition of a generation on another log is folded by the owner of the assigned partition
/// with the same number, modulo the partition count of the adopted log.
fn shadow_partitions(
    registry: &GenerationRegistry,
    adopted: &ActiveGeneration,
    assigned: &BTreeSet<PartitionId>,
) -> BTreeMap<PartitionRef, LogRef> {
    std::iter::once(&registry.active)
        .chain(registry.shadows())
        .filter(|record| record.generation != adopted.term.generation)
        // An active generation on another log is about to be folded for the group, possibly by
        // another process already.
        .filter(|record| record.log == adopted.log || *record != &registry.active)
        .flat_map(|GenerationRecord { generation, log, .. }| {
            let modulus = adopted.log.partitions.get();
            let own = log
                .partitions
                .partitions()
                .filter(move |partition| assigned.contains(&PartitionId(partition.0 % modulus)));
            own.map(move |partition| {
                (PartitionRef { generation: *generation, partition }, log.clone())
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use schemas::{Generation, PartitionCount, Term};

    use super::*;

    fn registry() -> GenerationRegistry {
        GenerationRegistry::first(LogRef::first("submissions", PartitionCount::new(4).unwrap()))
    }

    fn active(registry: &GenerationRegistry) -> ActiveGeneration {
        ActiveGeneration { term: registry.term(), log: registry.active.log.clone() }
    }

    #[test]
    fn after_a_switch_the_adopted_generation_is_skipped_and_the_other_one_is_folded() {
        let mut registry = registry();
        let before = active(&registry);
        let old = registry.active.clone();
        registry.active = GenerationRecord { generation: Generation(2), ..old.clone() };
        (registry.term, registry.previous) = (2, Some(old));
        let assigned = BTreeSet::from([PartitionId(1), PartitionId(3)]);
        let generations = |adopted: &ActiveGeneration| -> Vec<u32> {
            shadow_partitions(&registry, adopted, &assigned)
                .keys()
                .map(|id| id.generation.0)
                .collect()
        };
        assert_eq!(generations(&before), [2, 2]);
        assert_eq!(generations(&active(&registry)), [1, 1]);
    }

    #[test]
    fn partitions_of_a_new_log_follow_the_assigned_ones_until_the_log_is_active() {
        let mut registry = registry();
        let before = active(&registry);
        let log = LogRef {
            number: LogNumber(2),
            topic: "submissions-2".into(),
            partitions: PartitionCount::new(7).unwrap(),
        };
        let on_new_log = GenerationRecord::new(Generation(2), log);
        registry.previous = Some(on_new_log.clone());
        let partitions = |assigned: &[u32]| -> Vec<u32> {
            let assigned = assigned.iter().copied().map(PartitionId).collect();
            shadow_partitions(&registry, &before, &assigned)
                .keys()
                .map(|id| id.partition.0)
                .collect()
        };
        assert_eq!(partitions(&[0, 2]), [0, 2, 4, 6]);
        assert_eq!(partitions(&[1, 3]), [1, 3, 5]);
        (registry.previous, registry.active, registry.term) = (None, on_new_log, 2);
        let all = registry.active.log.partitions.partitions().collect();
        assert!(shadow_partitions(&registry, &before, &all).is_empty());
        assert_eq!(
            active(&registry).term,
            Term { number: 2, generation: Generation(2), log: LogNumber(2) }
        );
    }
}
