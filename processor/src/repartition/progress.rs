//! What is seen of a repartition, and what it comes to.

use std::time::Duration;

use runtime::clock::now_ms;
use schemas::{GenerationRecord, LogRef, PartitionReport, Position};

use super::copy::Counts;
use crate::rebuild::trouble;

/// What a repartition came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repartitioned {
    /// The generation that answers now.
    pub record: GenerationRecord,
    /// The log that submissions went to before.
    pub before: LogRef,
    /// What the last step did; not known if it was only seen to be done.
    pub done: Option<Done>,
    /// Whether everyone was told where submissions go; else the processors tell it.
    pub told: bool,
}

/// What the last step of a repartition did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Records that were copied.
    pub records: u64,
    /// Records that the fold cannot take, and that were not.
    pub left_out: u64,
    /// How long submissions waited, or were refused.
    pub sealed: Duration,
}

/// What a repartition is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Submissions go on.
    Copying,
    /// Submissions wait.
    Sealed,
}

/// One look at a repartition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What it is at.
    pub stage: Stage,
    /// Records that are copied, and counted.
    pub done: u64,
    /// Records that there are, each to be copied and to be counted.
    pub of: u64,
    /// Why it does not come on, if it does not.
    pub troubles: Vec<String>,
}

impl Look {
    /// While submissions go on: the log ends there, and this was said of the partitions that are counted.
    pub(super) fn of(
        ends: &[Position],
        counts: &Counts,
        reports: &[Option<PartitionReport>],
    ) -> Self {
        let sum = |positions: &[Position]| positions.iter().map(|position| position.0).sum::<u64>();
        let copied = sum(&counts.positions());
        // What is left out is not to be counted.
        let counted: u64 = counts
            .ends()
            .iter()
            .zip(reports)
            .map(|(end, report)| {
                report.as_ref().map_or(0, |report| report.position.min(report.rows).min(*end).0)
            })
            .sum();
        let counted = counted + counts.left_out();
        let now_ms = now_ms();
        let trouble = |(partition, report): (usize, &Option<PartitionReport>)| {
            let why = trouble(report.as_ref(), now_ms)?;
            Some(format!("partition {partition}: {why}"))
        };
        let troubles = reports.iter().enumerate().filter_map(trouble).collect();
        Self { stage: Stage::Copying, done: copied + counted, of: 2 * sum(ends), troubles }
    }
}
