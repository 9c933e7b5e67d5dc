//! What an annulment changes, or a restoration: numbers of people, and the results before and after.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::CategoryTotals;

/// What an annulment, or a restoration, changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnulmentEffect {
    /// People selected.
    pub selected: u64,
    /// Of these, people of whom the store knows no submission to the budget.
    pub unknown: u64,
    /// Of these, people who are annulled already; for a restoration, people who are not annulled.
    pub unchanged: u64,
    /// Of these, people without an allocation that counts: they have withdrawn it.
    pub without_ballot: u64,
    /// Of these, people who counted and count no more; for a restoration, people who count again.
    pub changed: u64,
    /// The results without the change.
    pub before: ResultsSummary,
    /// The results with the change.
    pub after: ResultsSummary,
}

impl fmt::Display for AnnulmentEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { selected, unknown, unchanged, without_ballot, changed, before, after } = self;
        write!(
            f,
            "{selected} people: {changed} change the results, {without_ballot} have no allocation, {unchanged} are so \
             already, {unknown} are unknown; {} people before, {} after",
            before.people, after.people
        )
    }
}

/// The results of a budget in short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultsSummary {
    /// Number of people.
    pub people: u64,
    /// Average of each category in hundredths of a percent, in the budget's order; empty without people.
    pub averages: Vec<u64>,
}

impl ResultsSummary {
    /// Summarizes the number of people and the sum of each category in basis points.
    pub fn of(people: u64, basis_points: &[u64]) -> Self {
        // A basis point is a hundredth of a percent. Rounded half up, as all averages are.
        let average = |sum: &u64| {
            let (sum, people) = (u128::from(*sum), u128::from(people));
            (sum * 2 + people).checked_div(people * 2)
        };
        let averages = basis_points.iter().filter_map(average);
        let averages = averages.map(|average| u64::try_from(average).unwrap_or(u64::MAX));
        Self { people, averages: averages.collect() }
    }

    /// Returns the sum of each category in basis points.
    pub fn sums(categories: &[CategoryTotals]) -> Vec<u64> {
        categories.iter().map(|category| category.basis_points).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_hundredths_of_a_percent_rounded_half_up_and_absent_without_people() {
        let summary = ResultsSummary::of(3, &[10_000, 20_000, 0]);
        assert_eq!(summary, ResultsSummary { people: 3, averages: vec![3_333, 6_667, 0] });
        assert_eq!(ResultsSummary::of(2, &[1, 19_999]).averages, [1, 10_000]);
        assert_eq!(ResultsSummary::of(0, &[0, 0]), ResultsSummary::default());
        assert_eq!(ResultsSummary::of(1, &[u64::MAX]).averages, [u64::MAX]);
    }
}
