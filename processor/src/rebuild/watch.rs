//! How far a rebuild has come, by what the partitions' owners say. Pure.

use schemas::{Generation, PartitionReport, Position};

/// Who has said nothing for so long says nothing any more.
const SILENCE_MS: u64 = 30_000;

/// Who is no more records behind catches up in a moment.
const NEAR: u64 = 100_000;

/// Where a rebuild stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Some partition is behind its goal, or not compared there yet.
    UnderWay,
    /// All are there, and compared. What differs, a line each.
    Done(Vec<String>),
}

/// One look at a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Records that are folded, of those that it has to come to.
    pub done: u64,
    /// Records that it has to come to.
    pub of: u64,
    /// Where it stands.
    pub stage: Stage,
    /// Why partitions do not come on, a line each.
    pub troubles: Vec<String>,
}

/// Looks at the reports of every partition, where each has to come at least to its goal, and to be compared with the
/// generation that answers, there or later.
pub fn look(
    goals: &[Position],
    reports: &[Option<PartitionReport>],
    answering: Generation,
    now_ms: u64,
) -> Look {
    let (mut done, mut under_way) = (0, false);
    let (mut troubles, mut differences) = (Vec::new(), Vec::new());
    for (partition, goal) in goals.iter().enumerate() {
        let report = reports.get(partition).and_then(Option::as_ref);
        troubles.extend(trouble(report, now_ms).map(|why| format!("partition {partition}: {why}")));
        let Some(report) = report else {
            under_way = true;
            continue;
        };
        done += report.position.min(*goal).0;
        match &report.compared {
            // Nobody who could be shown before must be missed afterwards: everyone's row is there, too.
            Some(compared)
                if compared.with == answering
                    && compared.position >= *goal
                    && report.rows >= *goal =>
            {
                differences.extend(compared.differences.iter().cloned());
            }
            _ => under_way = true,
        }
    }
    let stage = if under_way { Stage::UnderWay } else { Stage::Done(differences) };
    Look { done, of: goals.iter().map(|goal| goal.0).sum(), stage, troubles }
}

/// Why a partition does not come on, if it does not.
pub(crate) fn trouble(report: Option<&PartitionReport>, now_ms: u64) -> Option<String> {
    let Some(report) = report else { return Some("nobody has begun with it".to_owned()) };
    let silent = report.at_ms.saturating_add(SILENCE_MS) < now_ms;
    report.trouble.clone().or_else(|| silent.then(|| "nobody is at it".to_owned()))
}

/// Why a generation that is folded beside the one that answers could not take its place at once, a line each.
pub fn not_ready(reports: &[Option<PartitionReport>], now_ms: u64) -> Vec<String> {
    let why = |report: Option<&PartitionReport>| {
        trouble(report, now_ms).or_else(|| {
            let behind =
                report.map_or(0, |it| it.high.0.saturating_sub(it.position.min(it.rows).0));
            (behind > NEAR).then(|| format!("it is {behind} records behind"))
        })
    };
    let partitions = reports.iter().enumerate();
    partitions
        .filter_map(|(partition, report)| {
            why(report.as_ref()).map(|why| format!("partition {partition}: {why}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use schemas::Compared;

    use super::*;

    const ANSWERING: Generation = Generation(1);
    const NOW_MS: u64 = 1_795_212_000_000;

    fn report(position: u64, compared: Option<(u32, u64, &[&str])>) -> Option<PartitionReport> {
        Some(PartitionReport {
            position: Position(position),
            rows: Position(position),
            high: Position(position),
            compared: compared.map(|(with, at, differences)| Compared {
                with: Generation(with),
                position: Position(at),
                differences: differences.iter().map(|line| (*line).to_owned()).collect(),
            }),
            trouble: None,
            at_ms: NOW_MS,
        })
    }

    #[test]
    fn it_is_done_only_when_every_partition_is_compared_at_its_goal_with_the_one_that_answers() {
        let goals = [Position(10), Position(0), Position(20)];
        let stage = |last: Option<PartitionReport>| {
            let others = [report(11, Some((1, 11, &[]))), report(0, Some((1, 0, &[])))];
            let [one, two] = others;
            look(&goals, &[one, two, last], ANSWERING, NOW_MS).stage
        };
        let done = stage(report(25, Some((1, 22, &["x", "y"]))));
        assert_eq!(done, Stage::Done(vec!["x".into(), "y".into()]));
        assert_eq!(stage(report(25, Some((1, 19, &[])))), Stage::UnderWay);
        assert_eq!(stage(report(25, Some((3, 22, &[])))), Stage::UnderWay);
        assert_eq!(stage(report(25, None)), Stage::UnderWay);
        let rows_behind =
            report(25, Some((1, 22, &[]))).map(|it| PartitionReport { rows: Position(19), ..it });
        assert_eq!(stage(rows_behind), Stage::UnderWay);
        assert_eq!(stage(None), Stage::UnderWay);
    }

    #[test]
    fn what_is_done_is_counted_up_to_the_goals() {
        let goals = [Position(10), Position(20)];
        let looked = look(&goals, &[report(15, None), report(5, None)], ANSWERING, NOW_MS);
        assert_eq!((looked.done, looked.of), (15, 30));
    }

    #[test]
    fn whoever_says_why_or_says_nothing_any_more_is_in_trouble() {
        let goals = [Position(10); 4];
        let (mut stuck, mut silent) = (report(5, None), report(5, None));
        if let (Some(stuck), Some(silent)) = (&mut stuck, &mut silent) {
            stuck.trouble = Some("it halted".to_owned());
            silent.at_ms -= SILENCE_MS + 1;
        }
        let looked = look(&goals, &[report(5, None), stuck, silent], ANSWERING, NOW_MS);
        let troubles = [
            "partition 1: it halted",
            "partition 2: nobody is at it",
            "partition 3: nobody has begun with it",
        ];
        assert_eq!(looked.troubles, troubles);
    }
}
