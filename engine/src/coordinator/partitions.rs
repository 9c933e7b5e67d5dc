//! The ownership of every assigned partition, under one lock, as readiness, metrics and the log show it. The states and
//! their transitions are in the `ownership` module; the coordinator decides what to do about a state.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runtime::health::Check;
use schemas::{PartitionId, Position};
use tokio::time::Instant;

use super::log_recovery::ShortLogs;
use super::owner_handle::OwnerHandle;
use super::ownership::Ownership;
use crate::metrics::EngineMetrics;
use crate::partition::HaltReason;

type PartitionOwnership = Ownership<OwnerHandle>;

/// The partitions that the group has assigned to this process.
pub(super) struct Partitions {
    table: Mutex<Table>,
    check: Check,
    metrics: EngineMetrics,
}

#[derive(Default)]
struct Table {
    ownership: BTreeMap<PartitionId, PartitionOwnership>,
    short_logs: ShortLogs,
    /// The position of the last gap found in a log. Kept beyond a revocation: rejoining the group is part of reading it
    /// again.
    log_gaps: BTreeMap<PartitionId, Position>,
}

impl Partitions {
    /// Creates an empty table, with which the process is ready.
    pub fn new(check: Check, metrics: EngineMetrics) -> Self {
        check.set_ready();
        Self { table: Mutex::default(), check, metrics }
    }

    /// Begins a partition's assignment: its claim is in progress.
    pub fn assign(&self, partition: PartitionId) {
        self.lock().ownership.entry(partition).or_insert(Ownership::Assigned);
    }

    /// Starts the owner of a claimed partition.
    pub fn claim(&self, partition: PartitionId, start_owner: impl FnOnce() -> OwnerHandle) {
        self.metrics.partition(partition).set_owned();
        // Under the lock: an owner that halts at once waits until its partition is in the table.
        self.transition(partition, |_| Ownership::Claimed { owner: start_owner() });
    }

    /// Marks a partition as halted: only an operator can help. Other partitions continue.
    pub fn halt(&self, partition: PartitionId, reason: &HaltReason) {
        tracing::error!(%partition, %reason, "partition halted");
        self.metrics.partition(partition).set_halted();
        self.transition(partition, |ownership| ownership.halt(reason.to_string()));
    }

    /// Marks a partition as not claimed, to be claimed again after a rejoin. Other partitions continue.
    pub fn set_unclaimed(&self, partition: PartitionId, reason: String) {
        tracing::warn!(%partition, reason, "partition not claimed");
        self.metrics.partition(partition).set_unclaimed();
        self.transition(partition, |_| Ownership::Unclaimed { reason });
    }

    /// Marks a partition as waiting for its log to recover. Returns `false` and changes nothing if the time to recover
    /// is over.
    pub fn try_recover(&self, partition: PartitionId, reason: String, now: Instant) -> bool {
        if !self.lock().short_logs.may_recover(partition, now) {
            return false;
        }
        tracing::warn!(%partition, reason, "partition not claimed, its log may still recover");
        self.metrics.partition(partition).set_unclaimed();
        self.transition(partition, |_| Ownership::Recovering { reason });
        true
    }

    /// Records that a partition's log reaches its totals.
    pub fn log_recovered(&self, partition: PartitionId) {
        self.lock().short_logs.recovered(partition);
    }

    /// Records a gap in a partition's log, and returns whether it was not found here the last time.
    pub fn is_first_gap(&self, partition: PartitionId, at: Position) -> bool {
        self.lock().log_gaps.insert(partition, at) != Some(at)
    }

    /// Takes a partition's owner out of the table, to be released.
    pub fn detach_owner(&self, partition: PartitionId) -> Option<OwnerHandle> {
        let mut table = self.lock();
        let (ownership, owner) = table.ownership.remove(&partition)?.detach_owner();
        table.ownership.insert(partition, ownership);
        owner
    }

    /// Ends a partition's assignment.
    pub fn remove(&self, partition: PartitionId) {
        self.metrics.forget(partition);
        let mut table = self.lock();
        table.ownership.remove(&partition);
        self.update_readiness(&table);
    }

    /// Whether rejoining the group would claim any partition.
    pub fn any_claimed_by_rejoining(&self) -> bool {
        self.lock().ownership.values().any(Ownership::is_claimed_by_rejoining)
    }

    /// Whether any partition has an owner here.
    pub fn any_owned(&self) -> bool {
        self.lock().ownership.values().any(|ownership| ownership.owner().is_some())
    }

    /// Reads from a partition's owner, if it has one.
    pub fn with_owner<T>(
        &self,
        partition: PartitionId,
        read: impl FnOnce(&OwnerHandle) -> T,
    ) -> Option<T> {
        self.lock().ownership.get(&partition).and_then(Ownership::owner).map(read)
    }

    /// The committed position of every partition that has an owner here.
    pub fn committed(&self) -> Vec<(PartitionId, Position)> {
        let table = self.lock();
        let owned =
            table.ownership.iter().filter_map(|(id, ownership)| Some((*id, ownership.owner()?)));
        owned.map(|(partition, owner)| (partition, owner.progress.committed())).collect()
    }

    fn transition(
        &self,
        partition: PartitionId,
        next: impl FnOnce(PartitionOwnership) -> PartitionOwnership,
    ) {
        let mut table = self.lock();
        let before = table.ownership.remove(&partition).unwrap_or(Ownership::Assigned);
        table.ownership.insert(partition, next(before));
        self.update_readiness(&table);
    }

    fn update_readiness(&self, table: &Table) {
        let reasons: Vec<_> = table
            .ownership
            .iter()
            .filter_map(|(id, ownership)| {
                Some(format!("partition {id}: {}", ownership.unready_reason()?))
            })
            .collect();
        if reasons.is_empty() {
            self.check.set_ready();
        } else {
            self.check.set_unready(reasons.join("; "));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
