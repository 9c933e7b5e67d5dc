//! Reports of a shadow partition in the store, read by rebuilds and repartitions.

use runtime::clock::now_ms;
use schemas::{PartitionReport, TotalsComparison};
use storage::log::LogBounds;

use super::error::ShadowError;
use super::owner::{Feed, REPORT_INTERVAL_MS};
use super::partition::ShadowPartition;

impl ShadowPartition {
    /// Writes a report if it differs from the last one, or the interval has elapsed.
    pub(super) async fn report(
        &self,
        feed: &mut Feed,
        bounds: LogBounds,
        comparison: Option<TotalsComparison>,
    ) -> Result<(), ShadowError> {
        let report = PartitionReport {
            position: feed.progress.committed(),
            rows_position: feed.rows_position,
            log_end: bounds.high,
            comparison,
            stall_reason: None,
            reported_at_ms: now_ms(),
        };
        let is_due = feed.last_report.as_ref().is_none_or(|last| {
            report.reported_at_ms >= last.reported_at_ms + REPORT_INTERVAL_MS
                || report
                    != PartitionReport { reported_at_ms: report.reported_at_ms, ..last.clone() }
        });
        if is_due {
            self.deps.store.write_report(self.id, &report).await?;
            feed.last_report = Some(report);
        }
        Ok(())
    }

    /// Writes a report of why the partition stopped.
    pub(super) async fn report_error(&self, error: &ShadowError) {
        let stored = self.deps.store.read_partition(self.id).await.ok().flatten();
        let (position, rows_position) = stored.map_or_else(Default::default, |stored| {
            (stored.checkpoint.position, stored.checkpoint.rows_position)
        });
        let report = PartitionReport {
            position,
            rows_position,
            log_end: position,
            comparison: None,
            stall_reason: Some(error.to_string()),
            reported_at_ms: now_ms(),
        };
        if let Err(error) = self.deps.store.write_report(self.id, &report).await {
            tracing::debug!(%error, "failed to write the shadow partition's report");
        }
    }
}
