//! The laws of the arithmetic.

use proptest::prelude::*;

use super::*;

fn sum(values: &[u32]) -> u32 {
    values.iter().sum()
}

/// Values and a subset of their indices.
fn values_and_some() -> impl Strategy<Value = (Vec<u32>, Vec<usize>)> {
    (1..=64_usize).prop_flat_map(|count| {
        let values = prop::collection::vec(prop_oneof![Just(0), 0..=300_u32, 0..=WHOLE], count);
        (values, prop::sample::subsequence((0..count).collect::<Vec<_>>(), 0..=count))
    })
}

proptest! {
    #[test]
    fn sharing_makes_100_percent_and_moves_only_what_it_shares_over((values, over) in values_and_some()) {
        let shared = share(&values, &over);
        if left(&values) <= 0 || over.is_empty() {
            prop_assert_eq!(&shared, &values);
        } else {
            prop_assert_eq!(sum(&shared), WHOLE);
            let gains: Vec<u32> = over.iter().map(|index| shared[*index] - values[*index]).collect();
            let (least, most) = (gains.iter().min().unwrap(), gains.iter().max().unwrap());
            prop_assert!(most - least <= 1);
            prop_assert!(gains.is_sorted_by(|before, after| before >= after));
        }
        for index in (0..values.len()).filter(|index| !over.contains(index)) {
            prop_assert_eq!(shared[index], values[index]);
        }
    }

    #[test]
    fn scaling_makes_100_percent_keeps_the_fixed_and_is_off_by_less_than_a_basis_point(
        (values, fixed) in values_and_some()
    ) {
        let fixed_sum: u32 = fixed.iter().map(|index| values[*index]).sum();
        let Ok(scaled) = scale(&values, &fixed) else {
            prop_assert!(fixed_sum > WHOLE);
            return Ok(());
        };
        prop_assert!(fixed_sum <= WHOLE);
        if fixed.len() < values.len() {
            prop_assert_eq!(sum(&scaled), WHOLE);
        }
        let weight = u64::from(sum(&values) - fixed_sum);
        for (index, (before, after)) in values.iter().zip(&scaled).enumerate() {
            if fixed.contains(&index) {
                prop_assert_eq!(before, after);
            } else if weight > 0 {
                let exact = u64::from(*before) * u64::from(WHOLE - fixed_sum);
                prop_assert!((u64::from(*after) * weight).abs_diff(exact) < weight);
                prop_assert!(*before > 0 || *after == 0);
            }
        }
    }

    #[test]
    fn scaling_an_exact_allocation_changes_nothing((values, fixed) in values_and_some()) {
        if let Ok(scaled) = scale(&values, &fixed)
            && let Ok(again) = scale(&scaled, &fixed)
        {
            prop_assert_eq!(scaled, again);
        }
    }
}

#[test]
fn the_rest_goes_to_the_first_and_missing_basis_points_to_the_largest_remainders() {
    assert_eq!(share(&[0, 0, 0, 9_999], &[0, 1, 2]), [1, 0, 0, 9_999]);
    assert_eq!(share(&[0, 0, 0], &[0, 1, 2]), [3_334, 3_333, 3_333]);
    assert_eq!(scale(&[1, 1, 1], &[]), Ok(vec![3_334, 3_333, 3_333]));
    assert_eq!(scale(&[4_000, 4_000, 4_000, 0], &[3]), Ok(vec![3_334, 3_333, 3_333, 0]));
    assert_eq!(scale(&[0, 0, 5_000], &[2]), Ok(vec![2_500, 2_500, 5_000]));
    assert_eq!(scale(&[6_000, 5_000], &[0, 1]), Err(FixedOverWhole));
}
