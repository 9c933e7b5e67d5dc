//! Averages and medians of a category, in integers.

use crate::DISTRIBUTION_BINS;

/// Computes an average share in ten-thousandths of a percent, rounded half up; 0 without people.
pub fn average_ten_thousandths(total_basis_points: u64, people: u64) -> u64 {
    match u128::from(people) {
        0 => 0,
        // total / people / 100 percent in units of a ten-thousandth is total × 100 / people.
        people => {
            let average = (u128::from(total_basis_points) * 200 + people) / (people * 2);
            u64::try_from(average).unwrap_or(u64::MAX)
        }
    }
}

/// Computes the median of the people's whole percents, in tenths of a percent; 0 without people.
///
/// With an even number of people, the mean of the two middle values.
pub fn median_tenths(people_by_percent: &[u64; DISTRIBUTION_BINS]) -> u64 {
    let people: u128 = people_by_percent.iter().copied().map(u128::from).sum();
    match people {
        0 => 0,
        _ => {
            let lower = percent_of_person(people_by_percent, (people - 1) / 2);
            let upper = percent_of_person(people_by_percent, people / 2);
            (lower + upper) * 5
        }
    }
}

/// Returns the percent at an index, counted from 0, of the people sorted by percent.
fn percent_of_person(people_by_percent: &[u64; DISTRIBUTION_BINS], index: u128) -> u64 {
    let mut counted = 0;
    for (percent, people) in (0..).zip(people_by_percent) {
        counted += u128::from(*people);
        if counted > index {
            return percent;
        }
    }
    0
}
