//! Progress and readiness of a generation, computed from its partitions' reports. Pure.

use schemas::{Generation, PartitionReport, Position};

/// Age at which a report is stale and its partition counts as stalled.
const REPORT_TIMEOUT_MS: u64 = 30_000;

/// Lag up to which a generation catches up within seconds.
const MAX_READY_LAG_RECORDS: u64 = 100_000;

/// The stage of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RebuildStage {
    /// Some partition has not reached its target, or is not compared there yet.
    InProgress,
    /// Every partition is compared at its target: the differences, one per line.
    Compared(Vec<String>),
}

/// Progress of a rebuild at one point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildProgress {
    /// Records folded so far, up to the targets.
    pub done: u64,
    /// Records up to the targets.
    pub total: u64,
    /// The stage.
    pub stage: RebuildStage,
    /// Why partitions make no progress, one per line.
    pub stall_reasons: Vec<String>,
}

/// Computes the progress from the partitions' reports.
///
/// Every partition has to reach its target and be compared with the active generation there or
/// later.
pub fn measure(
    targets: &[Position],
    reports: &[Option<PartitionReport>],
    active: Generation,
    now_ms: u64,
) -> RebuildProgress {
    let (mut done, mut in_progress) = (0, false);
    let mut differences = Vec::new();
    let reports: Vec<_> =
        (0..targets.len()).map(|partition| reports.get(partition)?.as_ref()).collect();
    for (target, report) in targets.iter().zip(&reports) {
        let Some(report) = report else {
            in_progress = true;
            continue;
        };
        done += report.position.min(*target).0;
        match &report.comparison {
            // Person rows have to be written too: a person readable before the switch must stay
            // readable after it.
            Some(comparison)
                if comparison.with == active
                    && comparison.position >= *target
                    && report.rows_position >= *target =>
            {
                differences.extend(comparison.differences.iter().cloned());
            }
            _ => in_progress = true,
        }
    }
    let stage =
        if in_progress { RebuildStage::InProgress } else { RebuildStage::Compared(differences) };
    let total = targets.iter().map(|target| target.0).sum();
    RebuildProgress { done, total, stage, stall_reasons: stall_reasons(reports, now_ms) }
}

/// Returns why partitions of a shadow generation make no progress, one reason per line.
pub fn stall_reasons<'r>(
    reports: impl IntoIterator<Item = Option<&'r PartitionReport>>,
    now_ms: u64,
) -> Vec<String> {
    by_partition(reports, |report| stall_reason(report, now_ms))
}

/// Returns why a shadow partition makes no progress. `None` if it does.
fn stall_reason(report: Option<&PartitionReport>, now_ms: u64) -> Option<String> {
    let Some(report) = report else { return Some("no processor has claimed it yet".to_owned()) };
    let timed_out = report.reported_at_ms.saturating_add(REPORT_TIMEOUT_MS) < now_ms;
    let timed_out = || timed_out.then(|| "no processor reports progress any more".to_owned());
    report.stall_reason.clone().or_else(timed_out)
}

/// Returns why a shadow generation cannot become active right away, one reason per line.
pub fn reasons_not_ready(reports: &[Option<PartitionReport>], now_ms: u64) -> Vec<String> {
    let reason = |report: Option<&PartitionReport>| {
        stall_reason(report, now_ms).or_else(|| {
            let lag = report.map_or(0, |report| {
                report.log_end.0.saturating_sub(report.position.min(report.rows_position).0)
            });
            (lag > MAX_READY_LAG_RECORDS).then(|| format!("it is {lag} records behind"))
        })
    };
    by_partition(reports.iter().map(Option::as_ref), reason)
}

/// Lists the reasons that partitions have, each with its partition.
fn by_partition<'r>(
    reports: impl IntoIterator<Item = Option<&'r PartitionReport>>,
    reason: impl Fn(Option<&PartitionReport>) -> Option<String>,
) -> Vec<String> {
    let partitions = reports.into_iter().enumerate();
    partitions
        .filter_map(|(partition, report)| {
            Some(format!("partition {partition}: {}", reason(report)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use schemas::TotalsComparison;

    use super::*;

    const ACTIVE: Generation = Generation(1);
    const NOW_MS: u64 = 1_795_212_000_000;

    fn report(position: u64, compared: Option<(u32, u64, &[&str])>) -> Option<PartitionReport> {
        Some(PartitionReport {
            position: Position(position),
            rows_position: Position(position),
            log_end: Position(position),
            comparison: compared.map(|(with, at, differences)| TotalsComparison {
                with: Generation(with),
                position: Position(at),
                differences: differences.iter().map(|line| (*line).to_owned()).collect(),
            }),
            stall_reason: None,
            reported_at_ms: NOW_MS,
        })
    }

    #[test]
    fn compared_only_when_every_partition_is_compared_with_the_active_generation_at_its_target() {
        let targets = [Position(10), Position(0), Position(20)];
        let stage = |last: Option<PartitionReport>| {
            let others = [report(11, Some((1, 11, &[]))), report(0, Some((1, 0, &[])))];
            let [one, two] = others;
            measure(&targets, &[one, two, last], ACTIVE, NOW_MS).stage
        };
        let compared = stage(report(25, Some((1, 22, &["x", "y"]))));
        assert_eq!(compared, RebuildStage::Compared(vec!["x".into(), "y".into()]));
        assert_eq!(stage(report(25, Some((1, 19, &[])))), RebuildStage::InProgress);
        assert_eq!(stage(report(25, Some((3, 22, &[])))), RebuildStage::InProgress);
        assert_eq!(stage(report(25, None)), RebuildStage::InProgress);
        let rows_behind = report(25, Some((1, 22, &[])))
            .map(|report| PartitionReport { rows_position: Position(19), ..report });
        assert_eq!(stage(rows_behind), RebuildStage::InProgress);
        assert_eq!(stage(None), RebuildStage::InProgress);
    }

    #[test]
    fn records_are_counted_up_to_the_targets() {
        let targets = [Position(10), Position(20)];
        let progress = measure(&targets, &[report(15, None), report(5, None)], ACTIVE, NOW_MS);
        assert_eq!((progress.done, progress.total), (15, 30));
    }

    #[test]
    fn a_partition_stalls_when_it_says_why_or_its_report_is_old_or_missing() {
        let targets = [Position(10); 4];
        let (mut stuck, mut silent) = (report(5, None), report(5, None));
        if let (Some(stuck), Some(silent)) = (&mut stuck, &mut silent) {
            stuck.stall_reason = Some("it halted".to_owned());
            silent.reported_at_ms -= REPORT_TIMEOUT_MS + 1;
        }
        let progress = measure(&targets, &[report(5, None), stuck, silent], ACTIVE, NOW_MS);
        let reasons = [
            "partition 1: it halted",
            "partition 2: no processor reports progress any more",
            "partition 3: no processor has claimed it yet",
        ];
        assert_eq!(progress.stall_reasons, reasons);
    }
}
