//! Shares for property tests.

use proptest::prelude::*;

/// Any allocation over 2 to 64 categories.
pub fn allocation() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..=10_000_u32, 1..64).prop_map(|mut cuts| {
        cuts.sort_unstable();
        let mut shares = Vec::new();
        let mut last = 0;
        for cut in cuts {
            shares.push(cut - last);
            last = cut;
        }
        shares.push(10_000 - last);
        shares
    })
}
