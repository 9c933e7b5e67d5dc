//! What a load on single partitions has seen while one of them was sick, and the judgement of it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::verdict::Verdict;
use crate::bench::report::percentile;

/// The partition that is sick.
pub const SICK: u32 = 7;
/// Limit of the 99th percentile of the freshness of a partition that is not sick.
const FRESHNESS_LIMIT: Duration = Duration::from_secs(1);

/// One submission.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When the request was sent.
    pub sent: Instant,
    /// Time from the request to its response.
    pub answered_after: Duration,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// Time from the acknowledgement to an aggregate with the submission, if there was one.
    pub visible_after: Option<Duration>,
}

/// The submissions of all partitions.
#[derive(Debug, Default)]
pub struct Samples {
    by_partition: BTreeMap<u32, Vec<Sample>>,
}

/// The figures of the partitions that are not sick.
#[derive(Debug, Default, PartialEq)]
pub struct Freshness {
    /// Number of submissions.
    samples: usize,
    /// Number of submissions that were refused or not shown.
    missing: usize,
    /// Freshness of all, in milliseconds.
    p50_ms: f64,
    /// The highest 99th percentile of one partition, in milliseconds.
    worst_p99_ms: f64,
    /// The partition with that percentile.
    worst: u32,
    /// The highest freshness of those that were shown, in milliseconds.
    max_ms: f64,
}

impl Samples {
    /// Adds samples of one partition.
    pub fn add(&mut self, partition: u32, samples: Vec<Sample>) {
        self.by_partition.entry(partition).or_default().extend(samples);
    }

    /// The submissions to the sick partition within a period.
    pub fn of_sick(&self, during: Range<Instant>) -> Vec<Sample> {
        let sick = self.by_partition.get(&SICK).into_iter().flatten().copied();
        sick.filter(|sample| during.contains(&sample.sent)).collect()
    }

    /// Judges the other partitions within a period: each is fresh. A submission that was refused or not shown counts as
    /// one that was never fresh, so there may be no more of them than the percentile leaves out.
    pub fn judge_others(&self, during: Range<Instant>, verdict: &mut Verdict) -> Freshness {
        let mut freshness = Freshness::default();
        let mut all = Vec::new();
        for (partition, samples) in &self.by_partition {
            if *partition == SICK {
                continue;
            }
            let sent = samples.iter().filter(|sample| during.contains(&sample.sent));
            let mut ms: Vec<f64> = sent.map(Sample::freshness_ms).collect();
            let p99_ms = percentile(&mut ms, 99.0);
            if p99_ms.is_nan() {
                verdict.wrong.push(format!("nothing was submitted to partition {partition}"));
            } else if p99_ms > freshness.worst_p99_ms {
                (freshness.worst_p99_ms, freshness.worst) = (p99_ms, *partition);
            }
            all.extend(ms);
        }
        let limit_ms = FRESHNESS_LIMIT.as_secs_f64() * 1_000.0;
        if freshness.worst_p99_ms >= limit_ms {
            verdict.wrong.push(format!(
                "the freshness of partition {} is {:.0} ms at p99, the limit is {limit_ms:.0} ms",
                freshness.worst, freshness.worst_p99_ms
            ));
        }
        freshness.samples = all.len();
        freshness.missing = all.iter().filter(|ms| ms.is_infinite()).count();
        freshness.p50_ms = percentile(&mut all, 50.0);
        freshness.max_ms = all.iter().copied().rfind(|ms| ms.is_finite()).unwrap_or_default();
        freshness
    }
}

impl Sample {
    /// Time from the acknowledgement to the first sight, infinite without either.
    fn freshness_ms(&self) -> f64 {
        self.visible_after.map_or(f64::INFINITY, |after| after.as_secs_f64() * 1_000.0)
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, missing, p50_ms, worst_p99_ms, worst, max_ms } = self;
        write!(
            f,
            "others={samples} missing={missing} fresh_p50_ms={p50_ms:.0} fresh_worst_p99_ms={worst_p99_ms:.0} \
             worst_partition={worst} fresh_max_ms={max_ms:.0}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(visible_after: impl Fn(u32, u64) -> Option<Duration>) -> (Samples, Range<Instant>) {
        let start = Instant::now();
        let mut samples = Samples::default();
        for partition in 0..12 {
            let of_partition = (0..200).map(|number| Sample {
                sent: start + Duration::from_millis(number),
                answered_after: Duration::from_millis(5),
                status: Some(202),
                visible_after: visible_after(partition, number),
            });
            samples.add(partition, of_partition.collect());
        }
        (samples, start..start + Duration::from_secs(1))
    }

    fn wrong(visible_after: impl Fn(u32, u64) -> Option<Duration>) -> usize {
        let mut verdict = Verdict::default();
        let (samples, during) = samples(visible_after);
        samples.judge_others(during, &mut verdict);
        verdict.wrong.len()
    }

    const FAST: Option<Duration> = Some(Duration::from_millis(20));

    #[test]
    fn one_late_partition_fails_and_the_sick_one_does_not() {
        assert_eq!(wrong(|_, _| FAST), 0);
        assert_eq!(wrong(|partition, _| if partition == SICK { None } else { FAST }), 0);
        let late = Some(Duration::from_secs(2));
        // Two of two hundred are beyond the percentile.
        assert_eq!(
            wrong(|partition, number| if (partition, number % 100) == (3, 0) {
                late
            } else {
                FAST
            }),
            0
        );
        assert_eq!(
            wrong(|partition, number| if partition == 3 && number < 3 { late } else { FAST }),
            1
        );
    }

    #[test]
    fn more_missing_submissions_than_the_percentile_leaves_out_and_a_partition_without_any_fail() {
        let missing = |first: u64| {
            move |partition, number| if partition == 0 && number < first { None } else { FAST }
        };
        assert_eq!((wrong(missing(2)), wrong(missing(3))), (0, 1));
        let (samples, during) = samples(|_, _| FAST);
        let mut verdict = Verdict::default();
        samples.judge_others(during.end..during.end + FRESHNESS_LIMIT, &mut verdict);
        assert_eq!(verdict.wrong.len(), 11);
    }
}
