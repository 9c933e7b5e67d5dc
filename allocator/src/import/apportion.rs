//! Converts points to basis points by the largest remainder method (Hare quota).
//!
//! Integers only; the shares always add up to exactly 10,000.

use schemas::{Allocation, BASIS_POINTS_PER_PERSON};

/// Why points cannot be apportioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApportionError {
    /// All points are 0.
    #[error("gives no points at all")]
    NoPoints,
    /// No budget has this number of categories.
    #[error("has {0} categories, but a budget has 2 to 64")]
    Categories(usize),
}

/// Computes shares in proportion to points.
///
/// Each share is rounded down. The basis points that remain go, one each, to the categories with the largest
/// remainders, ties to the first. The points are in ascending order of category id, so that ties are broken by id.
///
/// # Errors
/// When all points are 0, or no budget has this number of categories.
pub fn apportion(points: &[u32]) -> Result<Allocation, ApportionError> {
    let whole: u64 = points.iter().copied().map(u64::from).sum();
    if whole == 0 {
        return Err(ApportionError::NoPoints);
    }
    // 10,000 times a 32-bit number fits into 64 bits.
    let scaled = |points: &u32| u64::from(*points) * BASIS_POINTS_PER_PERSON;
    // At most 10,000, as `points` is at most `whole`.
    let mut shares: Vec<u32> =
        points.iter().map(|points| (scaled(points) / whole) as u32).collect();
    let remainders: Vec<u64> = points.iter().map(|points| scaled(points) % whole).collect();

    let mut by_remainder: Vec<usize> = (0..points.len()).collect();
    // The sort is stable: ties stay in the order of their ids.
    by_remainder.sort_by_key(|index| std::cmp::Reverse(remainders.get(*index).copied()));
    // Each remainder is below `whole` and their sum is a multiple of it, so `left` is less than the category count.
    let left = remainders.iter().sum::<u64>() / whole;
    for index in by_remainder.into_iter().take(left as usize) {
        if let Some(share) = shares.get_mut(index) {
            *share += 1;
        }
    }
    // The sum is 10,000 by construction.
    Allocation::new(&shares).map_err(|_| ApportionError::Categories(points.len()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(points: &[u32]) -> Vec<u16> {
        apportion(points).unwrap().basis_points().to_vec()
    }

    #[test]
    fn equal_thirds_give_the_remaining_basis_point_to_the_first() {
        assert_eq!(shares(&[1, 1, 1]), [3334, 3333, 3333]);
        assert_eq!(shares(&[0, 1, 1, 1]), [0, 3334, 3333, 3333]);
    }

    #[test]
    fn the_remaining_basis_point_goes_to_the_largest_remainder() {
        // 1,428.57; 2,857.14; 5,714.29
        assert_eq!(shares(&[1, 2, 4]), [1429, 2857, 5714]);
    }

    #[test]
    fn zero_points_and_impossible_category_counts_are_rejected() {
        assert_eq!(apportion(&[0, 0]), Err(ApportionError::NoPoints));
        assert_eq!(apportion(&[]), Err(ApportionError::NoPoints));
        assert_eq!(apportion(&[1]), Err(ApportionError::Categories(1)));
        assert_eq!(apportion(&[1; 65]), Err(ApportionError::Categories(65)));
    }

    fn points() -> impl Strategy<Value = Vec<u32>> {
        let each = prop_oneof![Just(0), 0..20_u32, Just(u32::MAX), any::<u32>()];
        prop::collection::vec(each, 2..=64)
            .prop_filter("has points", |points| points.iter().any(|points| *points > 0))
    }

    proptest! {
        #[test]
        fn shares_add_up_to_10000_and_each_is_less_than_one_basis_point_off(points in points()) {
            let shares = shares(&points);
            prop_assert_eq!(shares.iter().copied().map(u64::from).sum::<u64>(), 10_000);
            let whole: u128 = points.iter().copied().map(u128::from).sum();
            for (share, points) in shares.iter().zip(&points) {
                let exact = u128::from(*points) * 10_000;
                prop_assert!((u128::from(*share) * whole).abs_diff(exact) < whole);
                prop_assert!(*points > 0 || *share == 0);
            }
        }

        #[test]
        fn shares_are_monotonic_and_ties_differ_by_at_most_one_in_id_order(points in points()) {
            let shares = shares(&points);
            for (a, b) in (0..points.len()).flat_map(|a| (a + 1..points.len()).map(move |b| (a, b))) {
                match points[a].cmp(&points[b]) {
                    std::cmp::Ordering::Less => prop_assert!(shares[a] <= shares[b]),
                    std::cmp::Ordering::Greater => prop_assert!(shares[a] >= shares[b]),
                    std::cmp::Ordering::Equal => {
                        prop_assert!(shares[a] == shares[b] || shares[a] == shares[b] + 1);
                    }
                }
            }
        }
    }
}
