//! Points to basis points by largest remainder (Hare's quota): integers only, and always exactly 10,000.

use schemas::{Allocation, BASIS_POINTS_PER_PERSON};

/// Why points cannot be apportioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoShares {
    /// There is nothing to divide by.
    #[error("gives no points at all")]
    NoPoints,
    /// A number of categories that no budget has.
    #[error("is about {0} categories, where a budget has 2 to 64")]
    Categories(usize),
}

/// Shares in proportion to points. Each category gets its share rounded down; what is left of the whole goes, one
/// basis point each, to those that lost most by the rounding, and among equals to the first. The points stand in
/// ascending order of category id, so that ties fall by id.
///
/// # Errors
/// When there are no points, or not as many categories as a budget has.
pub fn apportion(points: &[u32]) -> Result<Allocation, NoShares> {
    let whole: u64 = points.iter().copied().map(u64::from).sum();
    if whole == 0 {
        return Err(NoShares::NoPoints);
    }
    // 10,000 times 32 bits fit 64 bits.
    let scaled = |points: &u32| u64::from(*points) * BASIS_POINTS_PER_PERSON;
    // At most 10,000, as `points` is at most `whole`.
    let mut shares: Vec<u32> =
        points.iter().map(|points| (scaled(points) / whole) as u32).collect();
    let remainders: Vec<u64> = points.iter().map(|points| scaled(points) % whole).collect();

    let mut by_loss: Vec<usize> = (0..points.len()).collect();
    // The sort is stable: equals stay in the order of their ids.
    by_loss.sort_by_key(|place| std::cmp::Reverse(remainders.get(*place).copied()));
    // The remainders are each below `whole` and together a multiple of it: fewer units than categories are left.
    let left = remainders.iter().sum::<u64>() / whole;
    for place in by_loss.into_iter().take(left as usize) {
        if let Some(share) = shares.get_mut(place) {
            *share += 1;
        }
    }
    // Their sum is right by construction.
    Allocation::new(&shares).map_err(|_| NoShares::Categories(points.len()))
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
    fn a_third_each_gives_the_odd_basis_point_to_the_first() {
        assert_eq!(shares(&[1, 1, 1]), [3334, 3333, 3333]);
        assert_eq!(shares(&[0, 1, 1, 1]), [0, 3334, 3333, 3333]);
    }

    #[test]
    fn the_odd_basis_point_goes_to_whoever_lost_most_by_rounding() {
        // 1,428.57; 2,857.14; 5,714.29
        assert_eq!(shares(&[1, 2, 4]), [1429, 2857, 5714]);
    }

    #[test]
    fn no_points_and_impossible_numbers_of_categories_are_refused() {
        assert_eq!(apportion(&[0, 0]), Err(NoShares::NoPoints));
        assert_eq!(apportion(&[]), Err(NoShares::NoPoints));
        assert_eq!(apportion(&[1]), Err(NoShares::Categories(1)));
        assert_eq!(apportion(&[1; 65]), Err(NoShares::Categories(65)));
    }

    fn points() -> impl Strategy<Value = Vec<u32>> {
        let each = prop_oneof![Just(0), 0..20_u32, Just(u32::MAX), any::<u32>()];
        prop::collection::vec(each, 2..=64)
            .prop_filter("has points", |points| points.iter().any(|points| *points > 0))
    }

    proptest! {
        #[test]
        fn the_sum_is_always_the_whole_and_no_share_is_a_unit_off(points in points()) {
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
        fn more_points_never_get_less_and_equals_get_at_most_one_more_by_id(points in points()) {
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
