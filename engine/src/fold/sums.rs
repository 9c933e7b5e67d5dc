//! Adding one person's shares to a budget's totals and subtracting them. A subtraction is checked: totals that wrapped
//! around could pass every later check of their sums.

use schemas::BudgetTotals;

use super::shares::Shares;

/// The sums over people's shares in a budget's totals.
pub(super) trait ShareSums {
    /// Adds a person's shares; none if the person has withdrawn.
    fn add(&mut self, shares: &Shares);

    /// Replaces a person's old shares by the new ones. Returns `false`, with the sums partly changed, when they do not
    /// contain the old ones.
    #[must_use]
    fn replace(&mut self, old: &Shares, new: &Shares) -> bool;
}

impl ShareSums for BudgetTotals {
    fn add(&mut self, shares: &Shares) {
        if !shares.counts() {
            return;
        }
        self.people += 1;
        for (category, share) in self.categories.iter_mut().zip(shares.iter()) {
            category.add_share(share);
        }
    }

    fn replace(&mut self, old: &Shares, new: &Shares) -> bool {
        let replaced = match (old.counts(), new.counts()) {
            (false, _) => {
                self.add(new);
                Some(())
            }
            (true, false) => subtract(self, old),
            (true, true) => exchange(self, old, new),
        };
        replaced.is_some()
    }
}

fn subtract(totals: &mut BudgetTotals, shares: &Shares) -> Option<()> {
    totals.people = totals.people.checked_sub(1)?;
    for (category, share) in totals.categories.iter_mut().zip(shares.iter()) {
        category.basis_points = category.basis_points.checked_sub(u64::from(share))?;
        decrement(&mut category.people_by_percent[percent(share)])?;
    }
    Some(())
}

fn exchange(totals: &mut BudgetTotals, old: &Shares, new: &Shares) -> Option<()> {
    for ((category, old), new) in totals.categories.iter_mut().zip(old.iter()).zip(new.iter()) {
        let others = category.basis_points.checked_sub(u64::from(old))?;
        category.basis_points = others + u64::from(new);
        decrement(&mut category.people_by_percent[percent(old)])?;
        category.people_by_percent[percent(new)] += 1;
    }
    Some(())
}

fn decrement(people: &mut u64) -> Option<()> {
    *people = people.checked_sub(1)?;
    Some(())
}

/// Returns a share in whole percent: its index in the distribution.
fn percent(basis_points: u16) -> usize {
    usize::from(basis_points / 100)
}
