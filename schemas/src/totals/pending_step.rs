//! What readers are shown of a budget in a partition while fewer people than its publish step have changed.
//!
//! The exact totals move with every record, and so does their position. What is shown stays until the shares of enough
//! people have changed since it was shown: then it becomes the exact totals. The fold decides that by the records
//! alone. So it is committed with the totals, and the same for every reader and after a rebuild.

use super::{BudgetTotals, CategoryTotals, is_consistent, is_possible};
use crate::{PersonKey, PublishStep};

/// Totals as they were shown last, and the people whose shares have changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingStep {
    /// Number of people shown.
    pub(super) people: u64,
    /// Acceptance time of the newest record shown, in milliseconds since 1970.
    pub(super) updated_at_ms: u64,
    /// Shown totals of each category; empty before the first allocation.
    pub(super) categories: Vec<CategoryTotals>,
    /// Fingerprints of the people who have changed, in the order of their first change. At least one, and fewer than
    /// the publish step.
    pub(super) changed_people: Vec<u64>,
    /// Number of annulled people shown.
    pub(super) annulled: u64,
}

impl PendingStep {
    /// Fingerprints of the people whose changes are pending.
    pub fn changed_fingerprints(&self) -> &[u64] {
        &self.changed_people
    }

    /// Number of categories shown; 0 before the first allocation was shown.
    pub fn categories(&self) -> usize {
        self.categories.len()
    }

    /// Number of people shown.
    pub fn people(&self) -> u64 {
        self.people
    }

    /// Number of annulled people shown.
    pub fn annulled(&self) -> u64 {
        self.annulled
    }

    /// Checks the invariants of what is shown next to exact totals of `categories`, and that fewer people than the step
    /// are pending, each once.
    fn is_consistent(&self, step: PublishStep, categories: usize) -> bool {
        let pending = self.changed_people.len();
        let mut people = self.changed_people.clone();
        people.sort_unstable();
        people.dedup();
        people.len() == pending
            && (1..usize::from(step.get())).contains(&pending)
            && [0, categories].contains(&self.categories.len())
            && is_consistent(self.people, &self.categories)
            && is_possible(self.annulled)
    }
}

impl BudgetTotals {
    /// Starts the pending step, or extends it by one changed person, for a record with this publish step. Call it before
    /// the change is applied to the totals. `is_first`: it is the budget's first allocation, so nothing was shown before.
    ///
    /// The largest step of all records holds: a record of a release that stamps none must not show what others hold
    /// back.
    pub fn hold_back(&mut self, person: &PersonKey, step: PublishStep, is_first: bool) {
        self.publish_step = self.publish_step.max(step);
        let pending = self.pending.get_or_insert_with(|| {
            Box::new(PendingStep {
                people: self.people,
                updated_at_ms: self.updated_at_ms,
                categories: if is_first { Vec::new() } else { self.categories.clone() },
                changed_people: Vec::new(),
                annulled: self.annulled,
            })
        });
        let person = person.fingerprint();
        if !pending.changed_people.contains(&person) {
            pending.changed_people.push(person);
        }
    }

    /// Shows the exact totals if enough people have changed. Call it once the change is in the totals.
    pub fn show_if_step_is_complete(&mut self) {
        let step = usize::from(self.publish_step.get());
        if self.pending.as_ref().is_some_and(|pending| pending.changed_people.len() >= step) {
            self.pending = None;
        }
    }

    /// Shows the exact totals, as a budget's closing does.
    pub fn show_all(&mut self) {
        self.pending = None;
    }

    /// Returns what readers are shown: exact position and state of closing, and the people and sums that were shown
    /// last. The digests of people are not shown: they move with each person.
    #[must_use]
    pub fn into_shown(mut self) -> Self {
        (self.people_digest, self.content_digest) = (None, None);
        if let Some(pending) = self.pending.take() {
            (self.people, self.annulled) = (pending.people, pending.annulled);
            self.updated_at_ms = pending.updated_at_ms;
            self.categories = pending.categories;
        }
        self
    }

    /// Returns the people and categories that readers are shown.
    pub(crate) fn shown(&self) -> (u64, &[CategoryTotals]) {
        match &self.pending {
            Some(pending) => (pending.people, &pending.categories),
            None => (self.people, &self.categories),
        }
    }

    pub(super) fn pending_is_consistent(&self) -> bool {
        let categories = self.categories.len();
        self.pending.as_ref().is_none_or(|it| it.is_consistent(self.publish_step, categories))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{HistoryTotals, Position};

    fn person(number: u8) -> PersonKey {
        PersonKey::from_bytes([number; PersonKey::BYTES])
    }

    fn step(number: u64) -> PublishStep {
        PublishStep::nearest(number)
    }

    /// Counts a person who gives everything to the first of two categories.
    fn count(totals: &mut BudgetTotals) {
        totals.people += 1;
        totals.updated_at_ms += 7;
        totals.position = Position(totals.position.0 + 1);
        totals.categories.resize_with(2, CategoryTotals::default);
        for (category, share) in totals.categories.iter_mut().zip([10_000, 0]) {
            category.add_share(share);
        }
    }

    /// Totals of `shown` people who are shown, and of as many who are pending.
    fn totals(shown: u8, pending: u8) -> BudgetTotals {
        let mut totals = BudgetTotals { publish_step: step(9), ..BudgetTotals::default() };
        (0..shown).for_each(|_| count(&mut totals));
        for number in 0..pending {
            let is_first = totals.people == 0;
            totals.hold_back(&person(number), step(9), is_first);
            count(&mut totals);
        }
        totals
    }

    fn stored(totals: &BudgetTotals) -> Option<BudgetTotals> {
        let sums: Vec<i64> = totals.categories.iter().map(|it| it.basis_points as i64).collect();
        let BudgetTotals { position, people, updated_at_ms, .. } = *totals;
        let column = totals.encode_distribution();
        BudgetTotals::from_columns(position, people, updated_at_ms, &sums, &column)
    }

    #[test]
    fn what_is_shown_stays_until_as_many_people_as_the_step_have_changed() {
        let mut totals = BudgetTotals::default();
        for (number, shown) in [(1, 0), (1, 0), (2, 0), (3, 4), (1, 4)] {
            totals.hold_back(&person(number), step(3), totals.people == 0);
            count(&mut totals);
            totals.show_if_step_is_complete();
            assert_eq!(totals.clone().into_shown().people, shown);
            assert_eq!(HistoryTotals::of(&totals).people, shown);
        }
        assert_eq!(totals.clone().into_shown().position, totals.position);
        totals.show_all();
        assert_eq!(totals.clone().into_shown(), totals);
    }

    #[test]
    fn a_record_without_a_step_does_not_show_what_others_hold_back() {
        let mut totals = totals(2, 3);
        totals.hold_back(&person(100), PublishStep::ONE, false);
        count(&mut totals);
        totals.show_if_step_is_complete();
        assert_eq!((totals.people, totals.into_shown().people), (6, 2));
    }

    #[test]
    fn pending_people_survive_their_column() {
        for (shown, pending) in [(0, 0), (0, 1), (3, 0), (3, 8)] {
            let totals = totals(shown, pending);
            assert!(totals.is_consistent());
            assert_eq!(stored(&totals), Some(totals));
        }
    }

    #[test]
    fn damaged_pending_people_are_noticed() {
        let damage: [fn(&mut PendingStep); 6] = [
            |pending| pending.people += 1,
            |pending| pending.categories[0].basis_points += 1,
            |pending| pending.categories.truncate(1),
            |pending| pending.changed_people.clear(),
            |pending| pending.changed_people.extend(0..9),
            |pending| pending.changed_people.push(pending.changed_people[0]),
        ];
        for damage in damage {
            let mut totals = totals(3, 2);
            damage(totals.pending.as_mut().unwrap());
            assert_eq!(stored(&totals), None, "{:?}", totals.pending);
        }
        let without_step = BudgetTotals { publish_step: PublishStep::ONE, ..totals(3, 2) };
        assert_eq!(stored(&without_step), None);
    }
}
