//! Progress and outcome of a repartition.

use std::time::Duration;

use schemas::{GenerationRecord, LogRef, PartitionReport, Position};

use super::copy::CopyCounts;
use crate::rebuild::stall_reasons;

/// The outcome of a completed repartition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepartitionOutcome {
    /// The generation that is active now.
    pub record: GenerationRecord,
    /// The log that was active before.
    pub before: LogRef,
    /// Statistics of the cutover. `None` if only its result was observed.
    pub cutover: Option<CutoverStats>,
    /// Whether the active log was announced; otherwise the processors announce it.
    pub announced: bool,
}

/// Statistics of a cutover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutoverStats {
    /// Records that were copied.
    pub records: u64,
    /// Records that were not copied because the fold rejects them.
    pub left_out: u64,
    /// How long the old log was sealed before the new one was announced.
    pub sealed: Duration,
}

/// The stage of a repartition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepartitionStage {
    /// Records are copied; submissions continue.
    Copying,
    /// The old log is sealed; submissions wait.
    Sealed,
}

/// Progress of a repartition at one point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepartitionProgress {
    /// The stage.
    pub stage: RepartitionStage,
    /// Records copied plus records folded.
    pub done: u64,
    /// Twice the records of the old log: each is copied and folded.
    pub total: u64,
    /// Why partitions make no progress, one per line.
    pub stall_reasons: Vec<String>,
}

impl RepartitionProgress {
    /// Computes the progress of a copy from the old log's ends and the new log's reports.
    pub(super) fn measure(
        ends: &[Position],
        counts: &CopyCounts,
        reports: &[Option<PartitionReport>],
        now_ms: u64,
    ) -> Self {
        let sum = |positions: &[Position]| positions.iter().map(|position| position.0).sum::<u64>();
        let copied = sum(&counts.positions());
        let folded: u64 = counts
            .ends()
            .iter()
            .zip(reports)
            .map(|(end, report)| {
                report
                    .as_ref()
                    .map_or(0, |report| report.position.min(report.rows_position).min(*end).0)
            })
            .sum();
        // Records that are left out do not have to be folded.
        let folded = folded + counts.left_out();
        Self {
            stage: RepartitionStage::Copying,
            done: copied + folded,
            total: 2 * sum(ends),
            stall_reasons: stall_reasons(reports.iter().map(Option::as_ref), now_ms),
        }
    }
}
