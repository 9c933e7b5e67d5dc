//! One budget in one partition: how a record that belongs to it changes its totals and people.
//!
//! Which budget a record belongs to, and whether its person belongs to the partition, is the parent module's.

use schemas::{
    AnnulmentAction, BudgetId, BudgetTotals, CategoryTotals, Marker, Offset, PeopleDigest,
    PersonKey, RecordKind, RecordView, SubmissionFingerprint,
};

use super::history::{HistoryBuffer, HistoryFloor};
use super::outcome::{DeadLetterReason, FoldMode, FoldOutcome, InconsistentState};
use super::people::{PersonEntry, PersonSlot, PersonState, PersonStates};
use super::shares::Shares;
use super::sums::{Contribution, ShareSums};

/// One budget in one partition.
#[derive(Debug)]
pub(super) struct BudgetState {
    pub id: BudgetId,
    pub totals: BudgetTotals,
    pub people: PersonStates,
    pub changed: bool,
    pub history: HistoryBuffer,
}

impl BudgetState {
    /// Creates the state of a budget without records.
    pub fn empty(id: BudgetId) -> Self {
        let nobody = Some(PeopleDigest::NOBODY);
        let totals = BudgetTotals {
            people_digest: nobody,
            content_digest: nobody,
            ..BudgetTotals::default()
        };
        Self::new(id, totals)
    }

    /// Creates the state that committed totals describe, without people.
    pub fn new(id: BudgetId, totals: BudgetTotals) -> Self {
        let people = PersonStates::new(totals.categories.len());
        Self { id, totals, people, changed: false, history: HistoryBuffer::default() }
    }

    /// Folds a record of the budget into its state.
    pub fn fold(
        &mut self,
        view: RecordView<'_>,
        offset: Offset,
        mode: FoldMode,
        history_floor: &HistoryFloor,
    ) -> Result<FoldOutcome, InconsistentState> {
        match view.kind {
            RecordKind::Submission => self.fold_submission(view, offset, mode, history_floor),
            RecordKind::Annulment(action) => {
                self.fold_annulment(view, action, offset, mode, history_floor)
            }
            RecordKind::Marker(marker) => {
                self.fold_marker(marker, offset, mode);
                Ok(FoldOutcome::Applied)
            }
        }
    }

    fn fold_marker(&mut self, marker: Marker, offset: Offset, mode: FoldMode) {
        // A replay has the state of the totals, which knows all markers that the totals contain.
        if mode == FoldMode::Live && self.totals.closing.fold(marker, offset) {
            self.totals.position = offset.next();
            self.changed = true;
            if self.totals.closing.is_closed() {
                self.totals.show_all();
            }
        }
    }

    fn fold_submission(
        &mut self,
        view: RecordView<'_>,
        offset: Offset,
        mode: FoldMode,
        history_floor: &HistoryFloor,
    ) -> Result<FoldOutcome, InconsistentState> {
        if self.totals.closing.is_late(offset) {
            return Ok(FoldOutcome::Late);
        }
        let categories = view.basis_points.len();
        if categories > 0 && !self.fits_categories(categories) {
            let expected = self.people.categories();
            return Ok(FoldOutcome::DeadLetter(DeadLetterReason::Categories {
                expected,
                found: categories,
            }));
        }
        if mode == FoldMode::Live {
            // Before the record changes the totals.
            self.history.complete(&self.totals, view.accepted_at_ms, history_floor);
        }
        let is_first = self.totals.categories.is_empty();
        if categories > 0 {
            self.fix_categories(categories);
        }
        let outcome = self.fold_person(view, offset, mode, is_first)?;
        self.move_forward(offset, view.accepted_at_ms, mode);
        Ok(outcome)
    }

    /// Annuls or restores a person, also behind a close marker: fraud is found after the closing.
    fn fold_annulment(
        &mut self,
        view: RecordView<'_>,
        action: AnnulmentAction,
        offset: Offset,
        mode: FoldMode,
        history_floor: &HistoryFloor,
    ) -> Result<FoldOutcome, InconsistentState> {
        if mode == FoldMode::Live {
            self.history.complete(&self.totals, view.accepted_at_ms, history_floor);
        }
        let annulled = action == AnnulmentAction::Annul;
        if let Some(mut slot) = self.people.find_mut(&view.person)
            && slot.offset() < offset
            && slot.is_annulled() != annulled
        {
            let (shares, former) = (slot.shares(), slot.offset());
            slot.set_annulled(annulled, offset);
            if mode == FoldMode::Live {
                self.replace_row(&view.person, Some(former), offset);
                self.set_annulled(&view.person, annulled);
                let [old, new] = [!annulled, annulled].map(|it| Contribution::of(&shares, it));
                self.replace(&view, offset, old, new, false)?;
                if self.totals.closing.is_closed() {
                    self.totals.show_all();
                }
            }
        }
        self.move_forward(offset, view.accepted_at_ms, mode);
        Ok(FoldOutcome::Applied)
    }

    fn move_forward(&mut self, offset: Offset, accepted_at_ms: u64, mode: FoldMode) {
        if mode == FoldMode::Live {
            self.totals.position = offset.next();
            self.totals.updated_at_ms = self.totals.updated_at_ms.max(accepted_at_ms);
            self.changed = true;
        }
    }

    /// Returns an upper bound of the stored size.
    pub fn stored_bytes(&self) -> usize {
        const ROW_BYTES: usize = 256;
        const CLOSING_BYTES: usize = 10;
        ROW_BYTES
            + categories_bytes(self.totals.categories.len(), self.totals.people)
            + self.totals.closing.changes().len() * CLOSING_BYTES
            + self.pending_bytes()
    }

    /// Returns an upper bound of the stored size of what is pending.
    pub fn pending_bytes(&self) -> usize {
        const HEAD_BYTES: usize = 64;
        self.totals.pending.as_ref().map_or(0, |pending| {
            HEAD_BYTES
                + categories_bytes(pending.categories(), pending.people())
                + size_of_val(pending.changed_fingerprints())
        })
    }

    /// Recounts the budget from people's current shares, without positions and times.
    pub fn recount(&self) -> BudgetTotals {
        let categories = vec![CategoryTotals::default(); self.people.categories()];
        let mut totals = BudgetTotals { categories, ..BudgetTotals::default() };
        let (mut rows, mut content) = (PeopleDigest::NOBODY, PeopleDigest::NOBODY);
        for PersonState { person, offset, annulled, shares, recent } in self.people.all() {
            totals.add(Contribution::of(&shares, annulled));
            rows.add(&person, offset);
            recent.iter().flatten().for_each(|id| content.add_submission(&person, *id));
            if annulled {
                content.add_annulled(&person);
            }
        }
        (totals.people_digest, totals.content_digest) = (Some(rows), Some(content));
        totals
    }

    /// Checks the number of categories, which the budget's first allocation fixes.
    fn fits_categories(&self, categories: usize) -> bool {
        [0, categories].contains(&self.people.categories())
    }

    /// Fixes the number of categories at the first allocation.
    fn fix_categories(&mut self, categories: usize) {
        if self.people.categories() == 0 {
            self.people.set_categories(categories);
            self.totals.categories = vec![CategoryTotals::default(); categories];
        }
    }

    fn fold_person(
        &mut self,
        view: RecordView<'_>,
        offset: Offset,
        mode: FoldMode,
        is_first: bool,
    ) -> Result<FoldOutcome, InconsistentState> {
        let new = Shares::from_basis_points(view.basis_points);
        if view.generated_id && !new.counts() && !self.people.contains(&view.person) {
            return Ok(FoldOutcome::Applied);
        }
        let (mut slot, former): (PersonSlot<'_>, _) = match self.people.find_or_insert(&view.person)
        {
            PersonEntry::New(slot) => (slot, None),
            PersonEntry::Existing(slot) if slot.offset() >= offset => {
                return Ok(FoldOutcome::Applied);
            }
            PersonEntry::Existing(slot) if slot.has_recent(view.submission) => {
                return Ok(FoldOutcome::Duplicate);
            }
            PersonEntry::Existing(slot) => {
                let former = slot.offset();
                (slot, Some(former))
            }
        };
        let (annulled, forgotten) = (slot.is_annulled(), slot.oldest_recent());
        let old = slot.replace(&new, offset, view.submission);
        if mode == FoldMode::Live {
            self.replace_row(&view.person, former, offset);
            self.replace_submission(&view.person, forgotten, view.submission);
            let [old, new] = [&old, &new].map(|shares| Contribution::of(shares, annulled));
            self.replace(&view, offset, old, new, is_first)?;
        }
        Ok(FoldOutcome::Applied)
    }

    /// Replaces a person's row in the digest, if the totals have one; `former` is the offset of the row before.
    fn replace_row(&mut self, person: &PersonKey, former: Option<Offset>, offset: Offset) {
        if let Some(digest) = &mut self.totals.people_digest {
            if let Some(former) = former {
                digest.remove(person, former);
            }
            digest.add(person, offset);
        }
    }

    /// Replaces a remembered submission id in the digest, if the totals have one.
    fn replace_submission(
        &mut self,
        person: &PersonKey,
        forgotten: Option<SubmissionFingerprint>,
        id: SubmissionFingerprint,
    ) {
        if let Some(digest) = &mut self.totals.content_digest {
            if let Some(forgotten) = forgotten {
                digest.remove_submission(person, forgotten);
            }
            digest.add_submission(person, id);
        }
    }

    /// Notes in the digest whether a person is annulled, who was not or was.
    fn set_annulled(&mut self, person: &PersonKey, annulled: bool) {
        if let Some(digest) = &mut self.totals.content_digest {
            if annulled {
                digest.add_annulled(person);
            } else {
                digest.remove_annulled(person);
            }
        }
    }

    /// Replaces what a person adds to the totals. `is_first` says that the record is the budget's first allocation.
    fn replace(
        &mut self,
        view: &RecordView<'_>,
        offset: Offset,
        old: Contribution<'_>,
        new: Contribution<'_>,
        is_first: bool,
    ) -> Result<(), InconsistentState> {
        let has_step = !self.totals.publish_step.max(view.publish_step).is_one();
        if has_step && old != new {
            self.totals.hold_back(&view.person, view.publish_step, is_first);
        }
        if !self.totals.replace(old, new) {
            let budget = self.id.clone();
            return Err(InconsistentState::SharesNotInTotals { budget, offset });
        }
        if has_step {
            self.totals.show_if_step_is_complete();
        }
        Ok(())
    }
}

/// An upper bound of the stored size of categories: a sum and 101 counts each, of which each count is a varint.
fn categories_bytes(categories: usize, people: u64) -> usize {
    const SUM_BYTES: usize = 12;
    let bits = u64::BITS - (people + 1).leading_zeros();
    let count_bytes = bits.div_ceil(7) as usize;
    categories * (SUM_BYTES + 101 * count_bytes)
}
