//! What a page shows of a budget's history: a line for each category.

use jiff::Timestamp;

/// Maximum points of a line.
pub const MAX_POINTS: usize = 200;

/// The averages over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The points, oldest first, at most [`MAX_POINTS`].
    points: Vec<HistoryPoint>,
}

/// People and averages at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPoint {
    /// The time: what was accepted before it is counted.
    pub at: Timestamp,
    /// The number of people.
    pub people: u64,
    /// The average share of each category, in ten-thousandths of a percent.
    pub averages: Vec<u64>,
}

impl History {
    /// Creates a history of points in order. Of too many, it keeps the last and evenly distributed ones before it.
    pub fn new(points: Vec<HistoryPoint>) -> Self {
        let every = points.len().div_ceil(MAX_POINTS).max(1);
        let from_end = points.len().saturating_sub(1) % every;
        Self { points: points.into_iter().skip(from_end).step_by(every).collect() }
    }

    /// Returns the points, oldest first.
    pub fn points(&self) -> &[HistoryPoint] {
        &self.points
    }

    /// Returns the first and the last point; `None` without two of them, which make no line.
    pub fn ends(&self) -> Option<(&HistoryPoint, &HistoryPoint)> {
        match self.points.as_slice() {
            [first, .., last] => Some((first, last)),
            _ => None,
        }
    }

    /// Returns the last point of each day in UTC, newest first.
    pub fn days(&self) -> Vec<&HistoryPoint> {
        const DAY_SECONDS: i64 = 86_400;
        // A point at midnight counts the day before it.
        let day = |point: &HistoryPoint| (point.at.as_second() - 1).div_euclid(DAY_SECONDS);
        let mut days: Vec<&HistoryPoint> = self.points.iter().rev().collect();
        days.dedup_by_key(|point| day(point));
        days
    }

    /// Returns the largest average of any category.
    pub fn largest_average(&self) -> u64 {
        let averages = self.points.iter().flat_map(|point| &point.averages);
        averages.copied().max().unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn history(points: usize, seconds: i64) -> History {
        let point = |number: usize| HistoryPoint {
            at: Timestamp::from_second(number as i64 * seconds).unwrap(),
            people: number as u64,
            averages: vec![number as u64],
        };
        History::new((0..points).map(point).collect())
    }

    #[test]
    fn of_too_many_points_the_last_one_and_evenly_distributed_ones_are_kept() {
        for count in [1, 2, 199, 200, 201, 399, 400, 1_000] {
            let history = history(count, 60);
            let people: Vec<u64> = history.points().iter().map(|point| point.people).collect();
            assert!(people.len() <= MAX_POINTS && 2 * people.len() >= count.min(MAX_POINTS));
            assert_eq!(people.last(), Some(&(count as u64 - 1)));
            let steps: Vec<u64> = people.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(steps.windows(2).all(|pair| pair[0] == pair[1]), "{count}: {steps:?}");
        }
        assert_eq!(history(0, 60).ends(), None);
        assert_eq!(history(1, 60).ends(), None);
    }

    #[test]
    fn the_last_point_of_each_day_stands_for_the_day() {
        // Every six hours, from a midnight on.
        let history = history(10, 6 * 3_600);
        let days: Vec<u64> = history.days().iter().map(|point| point.people).collect();
        assert_eq!(days, [9, 8, 4, 0]);
    }
}
