//! What one person adds to a budget's totals, and replacing it. A subtraction is checked: totals that wrapped around
//! could pass every later check of their sums.

use schemas::BudgetTotals;

use super::shares::Shares;

/// What one person adds to the totals: the shares of someone who counts, or 1 to the number of those who are annulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contribution<'s> {
    counted: &'s Shares,
    annulled: u64,
}

impl<'s> Contribution<'s> {
    /// Returns what a person with these shares adds. Someone who has withdrawn adds nothing, annulled or not.
    pub fn of(shares: &'s Shares, annulled: bool) -> Self {
        if annulled {
            Self { counted: &Shares::NONE, annulled: shares.counts().into() }
        } else {
            Self { counted: shares, annulled: 0 }
        }
    }
}

/// The sums over people in a budget's totals.
pub(super) trait ShareSums {
    /// Adds a person.
    fn add(&mut self, person: Contribution<'_>);

    /// Replaces what a person adds. Returns `false`, with the sums partly changed, when they do not contain the old
    /// contribution.
    #[must_use]
    fn replace(&mut self, old: Contribution<'_>, new: Contribution<'_>) -> bool;
}

impl ShareSums for BudgetTotals {
    fn add(&mut self, person: Contribution<'_>) {
        self.annulled += person.annulled;
        if !person.counted.counts() {
            return;
        }
        self.people += 1;
        for (category, share) in self.categories.iter_mut().zip(person.counted.iter()) {
            category.add_share(share);
        }
    }

    fn replace(&mut self, old: Contribution<'_>, new: Contribution<'_>) -> bool {
        let Some(others) = self.annulled.checked_sub(old.annulled) else { return false };
        self.annulled = others;
        let replaced = match (old.counted.counts(), new.counted.counts()) {
            (false, _) => {
                self.add(new);
                return true;
            }
            (true, false) => subtract(self, old.counted),
            (true, true) => exchange(self, old.counted, new.counted),
        };
        self.annulled += new.annulled;
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
