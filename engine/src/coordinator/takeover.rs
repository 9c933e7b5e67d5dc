//! Taking over one assigned partition: claims it, checks its log, and starts its owner. Each step's outcome becomes the
//! partition's ownership state.

use std::sync::Arc;
use std::time::Duration;

use schemas::{PartitionId, Position};
use storage::log::{LogBounds, StartPosition};
use storage::store::StoredPartition;
use tokio::time::Instant;

use super::owner_handle::OwnerHandle;
use super::{Coordinator, Shared};
use crate::partition::{
    ClaimError, HaltReason, Partition, PartitionDeps, PartitionProgress, ResumePoint, check_log,
    claim,
};

/// Delay before the group is rejoined for a partition whose log may recover. The other partitions are folded meanwhile.
const RECOVERY_REJOIN_DELAY: Duration = Duration::from_secs(1);

impl Coordinator {
    /// Claims an assigned partition, checks its log and starts its owner.
    pub(super) async fn take_over(
        &self,
        partition: PartitionId,
        bounds: LogBounds,
    ) -> StartPosition {
        let Shared { deps, partitions, rejoin_timer, .. } = self.shared.as_ref();
        partitions.assign(partition);
        let claimed_at = Instant::now();
        let Some(stored) = self.try_claim(partition).await else { return StartPosition::Paused };
        let position = stored.checkpoint.position;
        if bounds.high >= position {
            partitions.log_recovered(partition);
        } else {
            let reason =
                format!("the log ends at {}, before the totals at {position}", bounds.high);
            if partitions.try_recover(partition, reason, Instant::now()) {
                rejoin_timer.schedule(RECOVERY_REJOIN_DELAY, Instant::now());
                return StartPosition::Paused;
            }
        }
        let resume = match check_log(&stored.checkpoint, &deps.identity, bounds) {
            Ok(resume) => resume,
            Err(reason) => {
                partitions.halt(partition, &reason);
                return StartPosition::Paused;
            }
        };
        tracing::info!(
            %partition,
            epoch = stored.epoch.0,
            position = %stored.checkpoint.position,
            rows_position = %stored.checkpoint.rows_position,
            log_end = %bounds.high,
            "partition claimed",
        );
        self.start_owner(partition, stored, resume, bounds.high, claimed_at);
        StartPosition::At(resume.from)
    }

    async fn try_claim(&self, partition: PartitionId) -> Option<StoredPartition> {
        let Shared { deps, partitions, rejoin_timer, .. } = self.shared.as_ref();
        let claiming = claim(deps.store.as_ref(), self.shared.id(partition), &deps.owner);
        match tokio::time::timeout(deps.claim_timeout, claiming).await {
            Ok(Ok(stored)) => return Some(stored),
            Ok(Err(ClaimError::Corrupt(reason))) => {
                partitions.halt(partition, &HaltReason::Store(reason));
            }
            Ok(Err(lost @ ClaimError::LostClaimRace)) => {
                partitions.set_unclaimed(partition, lost.to_string());
                // Only the group can decide which of the two processes gets the partition.
                rejoin_timer.schedule(Duration::ZERO, Instant::now());
            }
            Err(_) => {
                let timeout_ms = deps.claim_timeout.as_millis();
                let reason = format!("the store did not respond in {timeout_ms} ms");
                partitions.set_unclaimed(partition, reason);
            }
        }
        None
    }

    fn start_owner(
        &self,
        partition: PartitionId,
        stored: StoredPartition,
        resume: ResumePoint,
        high: Position,
        claimed_at: Instant,
    ) {
        let deps = &self.shared.deps;
        let progress = Arc::new(PartitionProgress::default());
        progress.set_high(high);
        let owner = Partition::new(
            self.shared.id(partition),
            stored,
            resume,
            claimed_at,
            PartitionDeps {
                store: Arc::clone(&deps.store),
                dead_letters: Arc::clone(&deps.dead_letters),
                publisher: Some(Arc::clone(&deps.publisher)),
                commit_permits: Arc::clone(&deps.commit_permits),
                row_write_permits: None,
                identity: deps.identity.clone(),
                log: self.shared.active.borrow().log.clone(),
                limits: deps.limits,
                metrics: deps.metrics.partition(partition),
                progress: Arc::clone(&progress),
            },
        );
        self.shared.partitions.claim(partition, || {
            OwnerHandle::start(&self.shared, &self.handle, partition, owner, progress)
        });
    }
}
