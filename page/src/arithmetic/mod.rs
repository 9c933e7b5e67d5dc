//! The arithmetic of an allocation: integers in basis points, never floats.
//!
//! The page's script has the same functions; `tests/vectors` holds both to the same results. Neither function moves a
//! value that it was not asked to move.

use schemas::BASIS_POINTS_PER_PERSON;

/// 100 % in basis points.
pub const WHOLE: u32 = BASIS_POINTS_PER_PERSON as u32;

/// The kept values exceed 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the values that are kept make more than 100 %")]
pub struct FixedOverWhole;

/// Returns what is left to give: negative if the values exceed 100 %.
pub fn left(values: &[u32]) -> i64 {
    i64::from(WHOLE) - values.iter().copied().map(i64::from).sum::<i64>()
}

/// Shares what is left equally over the categories of `over`, in the budget's order.
///
/// Each gets the same number of basis points; the first ones get one more until nothing is left. Without anything left,
/// or without such categories, the values stay.
pub fn share(values: &[u32], over: &[usize]) -> Vec<u32> {
    let mut shared = values.to_vec();
    let count = u32::try_from(over.len()).unwrap_or(u32::MAX);
    let Some(left) = u32::try_from(left(values)).ok().filter(|_| count > 0) else {
        return shared;
    };
    let (each, more) = (left / count, left % count);
    for (rank, index) in (0..).zip(over) {
        if let Some(value) = shared.get_mut(*index) {
            *value += each + u32::from(rank < more);
        }
    }
    shared
}

/// Scales the categories that are not `fixed` so that all values make exactly 100 %.
///
/// Largest remainder: each value is rounded down, and the missing basis points go to the largest remainders, ties to
/// the earlier category. A 0 stays 0, unless all of them are 0: then the rest is shared equally.
///
/// # Errors
/// When the fixed values exceed 100 %.
pub fn scale(values: &[u32], fixed: &[usize]) -> Result<Vec<u32>, FixedOverWhole> {
    let free: Vec<usize> = (0..values.len()).filter(|index| !fixed.contains(index)).collect();
    let value = |index: usize| values.get(index).copied().map_or(0, u64::from);
    let fixed_sum: u64 = fixed.iter().map(|index| value(*index)).sum();
    let target = u64::from(WHOLE).checked_sub(fixed_sum).ok_or(FixedOverWhole)?;
    let weight: u64 = free.iter().map(|index| value(*index)).sum();
    if weight == 0 {
        return Ok(share(values, &free));
    }
    let mut scaled = values.to_vec();
    let mut missing = target;
    // (remainder, index) of each free category.
    let mut remainders = Vec::with_capacity(free.len());
    for index in free {
        let product = value(index) * target;
        let quotient = product / weight;
        missing -= quotient;
        remainders.push((product % weight, index));
        if let Some(slot) = scaled.get_mut(index) {
            // At most the target, 10,000.
            *slot = u32::try_from(quotient).unwrap_or(WHOLE);
        }
    }
    remainders.sort_by(|(left, first), (right, second)| right.cmp(left).then(first.cmp(second)));
    // Fewer basis points are missing than there are remainders above 0.
    for ((_, index), _) in remainders.iter().zip(0..missing) {
        if let Some(slot) = scaled.get_mut(*index) {
            *slot += 1;
        }
    }
    Ok(scaled)
}

#[cfg(test)]
mod tests;
