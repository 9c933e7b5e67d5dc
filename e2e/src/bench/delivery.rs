//! Computes how late submissions were shown, from what the watchers were shown. No I/O.

use std::time::{Duration, Instant};

/// The number of people that a watcher was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// When.
    pub at: Instant,
    /// Number of people.
    pub people: u64,
}

/// Submissions of a new person each, at a fixed rate.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// When the first one is due.
    pub start: Instant,
    /// Submissions per second.
    pub rate: f64,
    /// Number of submissions.
    pub count: u64,
    /// People before the first one.
    pub people_before: u64,
}

impl Schedule {
    fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// Adds how late a watcher was shown each submission.
    ///
    /// A number of people shows as many of the first submissions. The log may have another order, by less than a
    /// submission takes.
    pub fn add_latencies(&self, shown: &[Shown], latencies: &mut Latencies) {
        let mut next = 0;
        for Shown { at, people } in shown {
            let count = people.saturating_sub(self.people_before).min(self.count);
            for number in next..count {
                latencies.add(at.saturating_duration_since(self.due(number)));
            }
            next = next.max(count);
        }
    }
}

/// Counts latencies by the millisecond: hundreds of millions fit into memory.
#[derive(Debug, Default)]
pub struct Latencies {
    by_ms: Vec<u64>,
    count: u64,
}

impl Latencies {
    fn add(&mut self, latency: Duration) {
        let ms = latency.as_millis() as usize;
        if self.by_ms.len() <= ms {
            self.by_ms.resize(ms + 1, 0);
        }
        self.by_ms[ms] += 1;
        self.count += 1;
    }

    /// Number of latencies.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The percentile in milliseconds, rounded down.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        let rank = (self.count as f64 * percent / 100.0).ceil() as u64;
        let mut below = 0;
        for (ms, count) in self.by_ms.iter().enumerate() {
            below += count;
            if below >= rank && below > 0 {
                return ms as f64;
            }
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_A_SECOND: f64 = 10.0;

    fn schedule(start: Instant) -> Schedule {
        Schedule { start, rate: TEN_A_SECOND, count: 10, people_before: 5 }
    }

    fn after(start: Instant, ms: u64, people: u64) -> Shown {
        Shown { at: start + Duration::from_millis(ms), people }
    }

    #[test]
    fn each_submission_is_late_by_the_first_answer_that_shows_it() {
        let start = Instant::now();
        // The submissions are due at 0, 100, …, 900 ms.
        let shown = [after(start, 0, 5), after(start, 250, 7), after(start, 1_250, 15)];
        let mut latencies = Latencies::default();
        schedule(start).add_latencies(&shown, &mut latencies);
        let mut expected = vec![250, 150];
        expected.extend((2..10).map(|number| 1_250 - number * 100));
        let mut all: Vec<usize> = Vec::new();
        for (ms, count) in latencies.by_ms.iter().enumerate() {
            all.extend(std::iter::repeat_n(ms, *count as usize));
        }
        expected.sort_unstable();
        assert_eq!(all, expected);
    }

    #[test]
    fn people_who_were_there_before_or_come_from_elsewhere_are_no_submissions_of_the_schedule() {
        let start = Instant::now();
        let mut latencies = Latencies::default();
        schedule(start).add_latencies(&[after(start, 0, 3), after(start, 900, 99)], &mut latencies);
        assert_eq!(latencies.count(), 10);
    }

    #[test]
    fn an_answer_before_its_submission_was_due_is_not_late() {
        let start = Instant::now();
        let mut latencies = Latencies::default();
        schedule(start).add_latencies(&[after(start, 0, 15)], &mut latencies);
        assert_eq!((latencies.count(), latencies.percentile_ms(100.0)), (10, 0.0));
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_latencies() {
        let mut latencies = Latencies::default();
        assert!(latencies.percentile_ms(99.0).is_nan());
        (1..=100).for_each(|ms| latencies.add(Duration::from_millis(ms)));
        for (percent, ms) in [(1.0, 1.0), (50.0, 50.0), (99.0, 99.0), (100.0, 100.0)] {
            assert_eq!(latencies.percentile_ms(percent), ms);
        }
    }
}
