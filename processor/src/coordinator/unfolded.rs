//! The partitions that are assigned to this process and that it does not fold, and why: what readiness, the metrics and
//! the log say of them. What is to be done about it is not decided here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runtime::health::Check;
use schemas::PartitionId;

use crate::metrics::ProcessorMetrics;
use crate::partition::HaltReason;

pub(super) struct Unfolded {
    reasons: Mutex<BTreeMap<PartitionId, Why>>,
    check: Check,
    metrics: ProcessorMetrics,
}

/// Why a partition is not folded.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("halted: {0}")]
    Halted(String),
    #[error("not claimed yet: {0}")]
    Unclaimed(String),
}

impl Unfolded {
    /// None yet: ready.
    pub fn new(check: Check, metrics: ProcessorMetrics) -> Self {
        check.set_ready();
        Self { reasons: Mutex::default(), check, metrics }
    }

    /// Going on could make wrong totals: only an operator can help.
    pub fn halted(&self, partition: PartitionId, reason: &HaltReason) {
        tracing::error!(%partition, %reason, "the partition is halted; the others go on");
        self.metrics.partition(partition).set_halted();
        self.change(|reasons| reasons.insert(partition, Why::Halted(reason.to_string())));
    }

    /// It could not be claimed, which is tried again at the next join.
    pub fn unclaimed(&self, partition: PartitionId, reason: String) {
        tracing::warn!(%partition, reason, "the partition is not claimed; the others go on");
        self.metrics.partition(partition).set_unclaimed();
        self.change(|reasons| reasons.insert(partition, Why::Unclaimed(reason)));
    }

    /// It is folded, or somebody else's.
    pub fn clear(&self, partition: PartitionId) {
        self.change(|reasons| reasons.remove(&partition));
    }

    /// Whether joining again would help any of them.
    pub fn any_unclaimed(&self) -> bool {
        self.lock().values().any(|why| matches!(why, Why::Unclaimed(_)))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<PartitionId, Why>) -> Option<Why>) {
        let mut reasons = self.lock();
        change(&mut reasons);
        if reasons.is_empty() {
            self.check.set_ready();
        } else {
            let all: Vec<_> =
                reasons.iter().map(|(id, why)| format!("partition {id}: {why}")).collect();
            self.check.set_unready(all.join("; "));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Why>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
