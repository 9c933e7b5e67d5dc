//! The ownership of every assigned partition, under one lock, as readiness, metrics and the log show it. The states and
//! their transitions are in the `ownership` module; the coordinator decides what to do about a state.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
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
    /// The position of the last gap found in a log. Kept beyond a revocation: the group may assign the partition again.
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
        self.table.lock().ownership.entry(partition).or_insert(Ownership::Assigned);
    }

    /// Enters the owner of a claimed partition.
    pub fn claim(&self, partition: PartitionId, owner: OwnerHandle) {
        self.metrics.partition(partition).set_owned();
        self.transition(partition, |_| Ownership::Claimed { owner });
    }

    /// Marks a partition as halted: only an operator can help. Other partitions continue.
    pub fn halt(&self, partition: PartitionId, reason: &HaltReason) {
        tracing::error!(%partition, %reason, "partition halted");
        self.metrics.partition(partition).set_halted();
        self.transition(partition, |ownership| ownership.halt(reason.to_string()));
    }

    /// Marks a partition as not claimed, to be claimed again after `retry_in`. Other partitions continue. Returns
    /// `false` if it has halted.
    pub fn set_unclaimed(
        &self,
        partition: PartitionId,
        reason: String,
        retry_in: Duration,
    ) -> bool {
        let retry_in_ms = retry_in.as_millis() as u64;
        tracing::warn!(%partition, reason, retry_in_ms, "partition not claimed, retrying");
        let is_halted = self.transition(partition, |ownership| ownership.unclaim(reason));
        if !is_halted {
            self.metrics.partition(partition).set_unclaimed();
        }
        !is_halted
    }

    /// Whether a log that ends before its totals may still recover.
    pub fn log_may_recover(&self, partition: PartitionId, now: Instant) -> bool {
        self.table.lock().short_logs.may_recover(partition, now)
    }

    /// Records that a partition's log reaches its totals.
    pub fn log_recovered(&self, partition: PartitionId) {
        self.table.lock().short_logs.recovered(partition);
    }

    /// Records a gap in a partition's log, and returns whether it was not found here the last time.
    pub fn is_first_gap(&self, partition: PartitionId, at: Position) -> bool {
        self.table.lock().log_gaps.insert(partition, at) != Some(at)
    }

    /// Ends a partition's assignment.
    pub fn remove(&self, partition: PartitionId) {
        self.metrics.forget(partition);
        let mut table = self.table.lock();
        table.ownership.remove(&partition);
        self.update_readiness(&table);
    }

    /// Reads from a partition's owner, if it has one.
    pub fn with_owner<T>(
        &self,
        partition: PartitionId,
        read: impl FnOnce(&OwnerHandle) -> T,
    ) -> Option<T> {
        self.table.lock().ownership.get(&partition).and_then(Ownership::owner).map(read)
    }

    /// The committed position of every partition that has an owner here.
    pub fn committed(&self) -> Vec<(PartitionId, Position)> {
        let table = self.table.lock();
        let owned =
            table.ownership.iter().filter_map(|(id, ownership)| Some((*id, ownership.owner()?)));
        owned.map(|(partition, owner)| (partition, owner.progress.committed())).collect()
    }

    /// Returns whether the partition is halted now.
    fn transition(
        &self,
        partition: PartitionId,
        next: impl FnOnce(PartitionOwnership) -> PartitionOwnership,
    ) -> bool {
        let mut table = self.table.lock();
        let before = table.ownership.remove(&partition).unwrap_or(Ownership::Assigned);
        let after = next(before);
        let is_halted = after.is_halted();
        table.ownership.insert(partition, after);
        self.update_readiness(&table);
        is_halted
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
}
