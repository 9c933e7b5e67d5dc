//! Realistic ballots from a seed: some people give all to one category, most give round numbers to a few, some split
//! to the hundredth of a percent.

use fastrand::Rng;

/// All of a person's budget, in basis points.
const WHOLE: u32 = 10_000;
/// Round shares are multiples of five percent.
const ROUND: u32 = 500;

/// Draws a ballot: one share for each category, in basis points, adding up to 10,000.
pub fn draw(rng: &mut Rng, categories: usize) -> Vec<u32> {
    match rng.u8(0..10) {
        0..3 => split(rng, categories, 1, WHOLE),
        3..8 => {
            let favourites = rng.usize(2..=5);
            split(rng, categories, favourites, ROUND)
        }
        _ => split(rng, categories, categories, 1),
    }
}

/// Splits the whole among some favourite categories, in multiples of `unit`.
fn split(rng: &mut Rng, categories: usize, favourites: usize, unit: u32) -> Vec<u32> {
    let mut shares = vec![0; categories];
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < favourites.min(categories) {
        let category = favourite(rng, categories);
        if !chosen.contains(&category) {
            chosen.push(category);
        }
    }
    let weights: Vec<u32> = chosen.iter().map(|_| rng.u32(1..=100)).collect();
    let (sum, mut left) = (weights.iter().sum::<u32>(), WHOLE);
    for (category, weight) in chosen.iter().zip(&weights) {
        let share = WHOLE / unit * weight / sum * unit;
        shares[*category] = share;
        left -= share;
    }
    // What rounding leaves goes to the first favourite.
    if let Some(first) = chosen.first() {
        shares[*first] += left;
    }
    shares
}

/// Draws a category. Some are more popular than others, whatever their order.
fn favourite(rng: &mut Rng, categories: usize) -> usize {
    let (one, other) = (rng.usize(0..categories), rng.usize(0..categories));
    // Spreads popularity over the order of the budget.
    let popularity = |category: usize| (category * 7 + 3) % categories;
    if popularity(one) >= popularity(other) { one } else { other }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ballot_adds_up_and_follows_from_its_seed(seed: u64, categories in 2..64_usize) {
            let ballot = draw(&mut fastrand::Rng::with_seed(seed), categories);
            prop_assert_eq!(ballot.len(), categories);
            prop_assert_eq!(ballot.iter().sum::<u32>(), WHOLE);
            prop_assert_eq!(draw(&mut fastrand::Rng::with_seed(seed), categories), ballot);
        }
    }
}
