//! The catalog of budget definitions, and the rules for changing them, as pure functions.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use schemas::{Budget, BudgetId, ClosingFence, ClosingState, PersonSecret, StoredBudget};

/// Decides a change of a definition: `Ok(Some)` is written, `Ok(None)` leaves it unchanged.
pub type Change<'a> =
    dyn Fn(Option<&Budget>) -> Result<Option<Budget>, ChangeRefused> + Send + Sync + 'a;

/// Decides whether the current definition is deleted.
pub type Deletion<'a> = dyn Fn(Option<&Budget>) -> Result<(), ChangeRefused> + Send + Sync + 'a;

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// The first submission has frozen categories and identity rule; the budget cannot be deleted either.
    #[error("categories, identity rule and publish step are frozen by the first submission")]
    Frozen,
    /// The budget does not exist.
    #[error("there is no such budget")]
    Unknown,
    /// This release does not understand the whole definition: a change would drop the rest, for all releases.
    #[error(
        "a newer release wrote the budget's definition: this release does not understand all of it, and leaves it unchanged"
    )]
    NotUnderstood,
    /// The budget is closed: a budget with its id that was defined anew would be closed in the log.
    #[error("the budget is closed, and can only be deleted once it is reopened")]
    Closed,
    /// The budget is not closed: its persons still need their keys.
    #[error("the budget is not closed")]
    NotClosed,
    /// The keys of the budget's persons are derived from the deployment's secret alone, which other budgets need.
    #[error(
        "an earlier release created the budget, without a secret of its own: its persons' keys are derived from the \
         deployment's secret, which other budgets need"
    )]
    NoOwnSecret,
    /// The budget's persons are forgotten: it could not tell whether a person has submitted already.
    #[error("the budget's persons are forgotten: it can be neither reopened nor deleted")]
    Forgotten,
    /// A condition of the request on the current definition does not hold.
    #[error("the current definition is not the one that the change was made for")]
    PreconditionFailed,
}

/// Creates or replaces a definition. Ignores revision, `frozen` and `closing` of `wanted`; its person secret becomes
/// that of a new budget, and is ignored for an existing one.
///
/// A closed budget is reopened if it is to close later than before, or not at all.
///
/// # Errors
/// When it would change frozen fields, or reopen a budget whose persons are forgotten.
pub fn define(current: Option<&Budget>, wanted: &Budget) -> Result<Option<Budget>, ChangeRefused> {
    let Some(current) = current else {
        return Ok(Some(Budget { revision: 1, frozen: false, closing: None, ..wanted.clone() }));
    };
    if current.frozen && !current.keeps_frozen_rules(wanted) {
        return Err(ChangeRefused::Frozen);
    }
    let Budget { revision, frozen, closing, .. } = *current;
    let person_secret = current.person_secret.clone();
    let unchanged = Budget { revision, frozen, closing, person_secret, ..wanted.clone() };
    if unchanged == *current {
        return Ok(None);
    }
    let revision = current.revision + 1;
    let closes_later = match (current.closes_at, wanted.closes_at) {
        (Some(before), Some(after)) => before < after,
        (before, after) => before.is_some() && after.is_none(),
    };
    if closes_later && current.person_secret.forgotten_at().is_some() {
        return Err(ChangeRefused::Forgotten);
    }
    let closing = closing.map(|fence| match fence.state {
        ClosingState::Closed if closes_later => {
            ClosingFence { revision, state: ClosingState::Reopening }
        }
        ClosingState::Closed | ClosingState::Reopening | ClosingState::Reopened => fence,
    });
    Ok(Some(Budget { revision, closing, ..unchanged }))
}

/// Closes a budget whose closing time has passed, if it still is the one of `due`.
///
/// # Errors
/// Never.
pub fn close(current: Option<&Budget>, due: &Budget) -> Result<Option<Budget>, ChangeRefused> {
    Ok(current
        .filter(|current| !current.is_fenced() && current.closes_at == due.closes_at)
        .map(|current| with_closing_state(current, ClosingState::Closed)))
}

/// Opens a budget again whose reopen markers, those of `reopening`, are in every partition.
///
/// # Errors
/// Never.
pub fn complete_reopening(
    current: Option<&Budget>,
    reopening: ClosingFence,
) -> Result<Option<Budget>, ChangeRefused> {
    Ok(current
        .filter(|current| {
            current.closing == Some(reopening) && reopening.state == ClosingState::Reopening
        })
        .map(|current| with_closing_state(current, ClosingState::Reopened)))
}

fn with_closing_state(current: &Budget, state: ClosingState) -> Budget {
    let revision = current.revision + 1;
    Budget { revision, closing: Some(ClosingFence { revision, state }), ..current.clone() }
}

/// Returns the fence behind which the budget's persons can be forgotten; `None` if they are already.
///
/// # Errors
/// When the budget does not exist, has no secret of its own, or is not closed.
pub fn forgettable(current: Option<&Budget>) -> Result<Option<ClosingFence>, ChangeRefused> {
    let current = current.ok_or(ChangeRefused::Unknown)?;
    match current.person_secret {
        PersonSecret::Forgotten { .. } => return Ok(None),
        PersonSecret::Deployment => return Err(ChangeRefused::NoOwnSecret),
        PersonSecret::Salted(_) => {}
    }
    let closed = current.closing.filter(|fence| fence.state == ClosingState::Closed);
    closed.map(Some).ok_or(ChangeRefused::NotClosed)
}

/// Forgets the persons of a budget that is closed by `fence` still. For ever: no change brings the salt back.
///
/// # Errors
/// As [`forgettable`]; also when the budget was reopened since.
pub fn forget(
    current: Option<&Budget>,
    fence: ClosingFence,
    at: Timestamp,
) -> Result<Option<Budget>, ChangeRefused> {
    match (forgettable(current)?, current) {
        (Some(found), Some(current)) if found == fence => Ok(Some(Budget {
            revision: current.revision + 1,
            person_secret: PersonSecret::Forgotten { at },
            ..current.clone()
        })),
        (Some(_), _) => Err(ChangeRefused::NotClosed),
        (None, _) => Ok(None),
    }
}

/// Creates a definition if there is none, such as a default budget.
///
/// # Errors
/// Never.
pub fn define_if_absent(
    current: Option<&Budget>,
    wanted: &Budget,
) -> Result<Option<Budget>, ChangeRefused> {
    if current.is_some() { Ok(None) } else { define(None, wanted) }
}

/// Freezes a definition at its first submission.
///
/// # Errors
/// When the budget does not exist.
pub fn freeze(current: Option<&Budget>) -> Result<Option<Budget>, ChangeRefused> {
    let current = current.ok_or(ChangeRefused::Unknown)?;
    if current.frozen {
        return Ok(None);
    }
    Ok(Some(Budget { revision: current.revision + 1, frozen: true, ..current.clone() }))
}

/// Freezes a definition at its first submission, if it still is the one that the submission was checked against.
///
/// Any other definition is left unchanged: the submission may be invalid for it, and a refused submission freezes
/// nothing.
///
/// # Errors
/// When the budget does not exist.
pub fn freeze_checked(
    current: Option<&Budget>,
    checked: &Budget,
) -> Result<Option<Budget>, ChangeRefused> {
    if current.is_some_and(|current| current != checked) { Ok(None) } else { freeze(current) }
}

/// Deletes a budget without people: its first submission would have frozen it.
///
/// # Errors
/// When the budget does not exist, is frozen or closed, or its persons are forgotten.
pub fn delete(current: Option<&Budget>) -> Result<(), ChangeRefused> {
    match current {
        None => Err(ChangeRefused::Unknown),
        Some(budget) if budget.person_secret.forgotten_at().is_some() => {
            Err(ChangeRefused::Forgotten)
        }
        Some(budget) if budget.is_fenced() => Err(ChangeRefused::Closed),
        Some(Budget { frozen: true, .. }) => Err(ChangeRefused::Frozen),
        Some(_) => Ok(()),
    }
}

/// The definitions of all budgets at one point of the history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    budgets: BTreeMap<BudgetId, Arc<Budget>>,
    /// Definitions of which this release does not understand everything. Those without a budget are unreadable.
    not_understood: BTreeMap<BudgetId, NotUnderstood>,
    /// Deleted budgets with the revision of their deletion.
    deleted: BTreeMap<BudgetId, u64>,
}

/// What keeps this release from changing a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NotUnderstood {
    revision: u64,
    reason: Arc<str>,
}

impl Catalog {
    /// Returns the definition of a budget, as far as this release understands it; `None` if it is unreadable.
    pub fn get(&self, id: &str) -> Option<&Arc<Budget>> {
        self.budgets.get(id)
    }

    /// All readable definitions, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Budget>> {
        self.budgets.values()
    }

    /// Ids of budgets whose definition is unreadable. They exist, and nothing is known about them.
    pub fn unreadable(&self) -> impl Iterator<Item = &BudgetId> {
        self.not_understood.keys().filter(|id| !self.budgets.contains_key(*id))
    }

    /// Whether the budget exists and its definition is unreadable.
    pub fn is_unreadable(&self, id: &str) -> bool {
        self.not_understood.contains_key(id) && !self.budgets.contains_key(id)
    }

    /// Whether no budget was ever defined, as far as the history shows: deleted and unreadable ones count.
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty() && self.not_understood.is_empty() && self.deleted.is_empty()
    }

    /// Whether the budget was deleted, and not defined anew since.
    pub fn is_deleted(&self, id: &str) -> bool {
        self.deleted.contains_key(id)
    }

    /// Returns the definition that a change may replace; `None` if the budget does not exist.
    ///
    /// # Errors
    /// When this release does not understand the whole definition.
    pub fn changeable(&self, id: &str) -> Result<Option<&Arc<Budget>>, ChangeRefused> {
        if self.not_understood.contains_key(id) {
            return Err(ChangeRefused::NotUnderstood);
        }
        Ok(self.budgets.get(id))
    }

    /// Returns a copy with one definition added or replaced.
    pub fn with(&self, budget: Arc<Budget>) -> Self {
        let mut next = self.clone();
        next.not_understood.remove(&budget.id);
        next.deleted.remove(&budget.id);
        next.budgets.insert(budget.id.clone(), budget);
        next
    }

    /// Returns a copy without a budget, which was deleted at `revision`.
    pub fn without(&self, id: &BudgetId, revision: u64) -> Self {
        let mut next = self.clone();
        next.not_understood.remove(id);
        next.budgets.remove(id);
        next.deleted.insert(id.clone(), revision);
        next
    }

    /// Returns a decided definition with the revision under which it is stored: after a deletion, revisions continue.
    pub fn numbered(&self, decided: Budget) -> Budget {
        match self.deleted.get(&decided.id) {
            Some(deleted) => Budget { revision: deleted + decided.revision, ..decided },
            None => decided,
        }
    }

    /// Returns a copy with a definition as it was read from the history.
    pub fn with_stored(&self, id: &BudgetId, stored: StoredBudget) -> Self {
        let known = self.revision(id).unwrap_or_default();
        let (budget, revision, reason) = match stored {
            StoredBudget::Understood(budget) => return self.with(Arc::new(budget)),
            StoredBudget::PartlyUnderstood { budget, members } => {
                let revision = budget.revision;
                (Some(Arc::new(budget)), revision, format!("unknown: {}", members.join(", ")))
            }
            StoredBudget::Deleted { revision } => return self.without(id, revision),
            StoredBudget::Unreadable { revision, reason } => {
                (None, revision.unwrap_or(known), reason)
            }
        };
        let mut next = self.clone();
        next.deleted.remove(id);
        next.not_understood.insert(id.clone(), NotUnderstood { revision, reason: reason.into() });
        match budget {
            Some(budget) => next.budgets.insert(id.clone(), budget),
            None => next.budgets.remove(id),
        };
        next
    }

    /// Returns a copy with a definition as it was read from the history, unless the known one is newer.
    pub(super) fn with_newer(&self, id: &BudgetId, stored: &StoredBudget) -> Option<Self> {
        let revision = match stored {
            StoredBudget::Understood(budget) | StoredBudget::PartlyUnderstood { budget, .. } => {
                Some(budget.revision)
            }
            StoredBudget::Deleted { revision } => Some(*revision),
            StoredBudget::Unreadable { revision, .. } => *revision,
        };
        let is_newer = match (self.revision(id), revision) {
            // An unreadable definition may carry the previous definition's revision, so a readable one of the same
            // revision replaces it.
            (Some(known), Some(read)) if self.is_unreadable(id.as_str()) => known <= read,
            (Some(known), Some(read)) => known < read,
            (None, _) | (_, None) => true,
        };
        is_newer.then(|| self.with_stored(id, stored.clone()))
    }

    fn revision(&self, id: &BudgetId) -> Option<u64> {
        let readable = self.budgets.get(id).map(|budget| budget.revision);
        let unreadable = || Some(self.not_understood.get(id)?.revision);
        readable.or_else(unreadable).or_else(|| self.deleted.get(id).copied())
    }

    /// Logs the definitions of which this release does not understand everything.
    pub(super) fn log_not_understood(&self, id: &BudgetId) {
        let Some(NotUnderstood { revision, reason }) = self.not_understood.get(id) else { return };
        if self.is_unreadable(id.as_str()) {
            tracing::error!(budget = %id, revision, %reason, "budget definition is unreadable, the budget is not served");
        } else {
            tracing::warn!(budget = %id, revision, %reason, "budget definition is only partly understood, it is served but not changed");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn budget(revision: u64) -> Budget {
        let json =
            r#"{"id":"b","name":"B","categories":[{"id":"x","name":"X"},{"id":"y","name":"Y"}]}"#;
        Budget { revision, ..serde_json::from_str(json).unwrap() }
    }

    fn at(text: &str) -> Option<jiff::Timestamp> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_closed_budget_is_reopened_only_by_a_later_closing_time_or_none() {
        let open = Budget { closes_at: at("2027-01-02T00:00:00Z"), ..budget(4) };
        let closed = close(Some(&open), &open).unwrap().unwrap();
        let fence = ClosingFence { revision: 5, state: ClosingState::Closed };
        assert_eq!((closed.revision, closed.closing), (5, Some(fence)));
        assert_eq!(close(Some(&closed), &closed), Ok(None), "closed once");
        let moved = Budget { closes_at: at("2027-01-03T00:00:00Z"), ..open.clone() };
        assert_eq!(close(Some(&moved), &open), Ok(None), "its closing time has moved");
        assert_eq!(delete(Some(&closed)), Err(ChangeRefused::Closed));
        for (closes_at, reopens) in [
            (None, true),
            (at("2027-01-02T00:00:01Z"), true),
            (at("2027-01-02T00:00:00Z"), false),
            (at("2027-01-01T00:00:00Z"), false),
        ] {
            let wanted = Budget { closes_at, name: "another".into(), ..open.clone() };
            let next = define(Some(&closed), &wanted).unwrap().unwrap();
            let reopening = ClosingFence { revision: 6, state: ClosingState::Reopening };
            assert_eq!(next.closing, Some(if reopens { reopening } else { fence }));
            assert!(next.is_fenced());
            let opened = complete_reopening(Some(&next), reopening).unwrap();
            assert_eq!(opened.as_ref().is_some_and(|it| !it.is_fenced()), reopens);
            if let Some(opened) = opened {
                assert_eq!(complete_reopening(Some(&opened), reopening), Ok(None));
                // The next fence has a later revision than every marker before.
                let again = close(Some(&opened), &opened).unwrap().unwrap();
                assert!(again.closing.unwrap().revision > opened.closing.unwrap().revision);
            }
        }
    }

    fn salted(salt: u8) -> PersonSecret {
        PersonSecret::Salted(schemas::PersonSalt::from_bytes([salt; 32]))
    }

    #[test]
    fn a_budget_keeps_the_person_secret_with_which_it_was_created() {
        let wanted = |salt| Budget { person_secret: salted(salt), ..budget(0) };
        let created = define(None, &wanted(1)).unwrap().unwrap();
        assert_eq!(created.person_secret, salted(1));
        assert_eq!(define(Some(&created), &wanted(2)), Ok(None), "no change");
        let renamed = Budget { name: "another".into(), ..wanted(2) };
        let renamed = define(Some(&created), &renamed).unwrap().unwrap();
        assert_eq!((renamed.name.as_str(), renamed.person_secret), ("another", salted(1)));
        // One of an earlier release gets none: its people are counted under other keys.
        let earlier = Budget { person_secret: PersonSecret::Deployment, ..created };
        let renamed = Budget { name: "another".into(), ..wanted(2) };
        let renamed = define(Some(&earlier), &renamed).unwrap().unwrap();
        assert_eq!(renamed.person_secret, PersonSecret::Deployment);
    }

    #[test]
    fn only_a_closed_budget_is_forgotten_and_for_ever() {
        let now = "2027-02-01T00:00:00Z".parse().unwrap();
        let open = Budget {
            closes_at: at("2027-01-02T00:00:00Z"),
            person_secret: salted(1),
            frozen: true,
            ..budget(4)
        };
        let closed = close(Some(&open), &open).unwrap().unwrap();
        let fence = closed.closing.unwrap();
        assert_eq!(forgettable(Some(&closed)), Ok(Some(fence)));
        let later = Budget { closes_at: at("2027-01-03T00:00:00Z"), ..closed.clone() };
        let reopening = define(Some(&closed), &later).unwrap().unwrap();
        for not_closed in [&open, &reopening] {
            assert_eq!(forgettable(Some(not_closed)), Err(ChangeRefused::NotClosed));
            assert_eq!(forget(Some(not_closed), fence, now), Err(ChangeRefused::NotClosed));
        }
        // Reopened and closed again since its results were found final.
        let reopened = complete_reopening(Some(&reopening), reopening.closing.unwrap());
        let reopened = reopened.unwrap().unwrap();
        let again = close(Some(&reopened), &reopened).unwrap().unwrap();
        assert_eq!(forget(Some(&again), fence, now), Err(ChangeRefused::NotClosed));
        let earlier = Budget { person_secret: PersonSecret::Deployment, ..closed.clone() };
        assert_eq!(forget(Some(&earlier), fence, now), Err(ChangeRefused::NoOwnSecret));
        assert_eq!(forget(None, fence, now), Err(ChangeRefused::Unknown));

        let forgotten = forget(Some(&closed), fence, now).unwrap().unwrap();
        let person_secret = PersonSecret::Forgotten { at: now };
        let revision = closed.revision + 1;
        assert_eq!(forgotten, Budget { revision, person_secret, ..closed.clone() });
        assert_eq!(forget(Some(&forgotten), fence, now), Ok(None), "once");
        assert_eq!(delete(Some(&forgotten)), Err(ChangeRefused::Forgotten));
        for closes_at in [None, at("2027-01-03T00:00:00Z")] {
            let wanted = Budget { closes_at, person_secret: salted(2), ..closed.clone() };
            assert_eq!(define(Some(&forgotten), &wanted), Err(ChangeRefused::Forgotten));
        }
        let renamed = Budget { name: "another".into(), ..closed };
        let renamed = define(Some(&forgotten), &renamed).unwrap().unwrap();
        assert_eq!(renamed.person_secret.forgotten_at(), Some(now), "its name may still change");
        assert_eq!(close(Some(&renamed), &renamed), Ok(None));
    }

    fn id() -> BudgetId {
        BudgetId::parse("b").unwrap()
    }

    fn unreadable(revision: Option<u64>) -> StoredBudget {
        StoredBudget::Unreadable { revision, reason: "a test".to_owned() }
    }

    fn partly(revision: u64) -> StoredBudget {
        let members = vec!["/weights".to_owned()];
        StoredBudget::PartlyUnderstood { budget: budget(revision), members }
    }

    #[test]
    fn a_definition_is_frozen_only_as_the_one_that_the_submission_was_checked_against() {
        let (checked, changed) = (budget(1), budget(2));
        let frozen = freeze_checked(Some(&checked), &checked).unwrap().unwrap();
        assert_eq!(frozen, Budget { revision: 2, frozen: true, ..checked.clone() });
        for current in [changed, frozen] {
            assert_eq!(freeze_checked(Some(&current), &checked), Ok(None));
        }
        assert_eq!(freeze_checked(None, &checked), Err(ChangeRefused::Unknown));
    }

    #[test]
    fn a_definition_that_is_not_understood_is_served_but_not_changeable() {
        let catalog = Catalog::default().with(Arc::new(budget(1))).with_stored(&id(), partly(2));
        assert_eq!(catalog.get("b").unwrap().revision, 2);
        assert_eq!(catalog.changeable("b"), Err(ChangeRefused::NotUnderstood));
        let catalog = catalog.with_stored(&id(), unreadable(Some(3)));
        assert_eq!((catalog.get("b"), catalog.is_unreadable("b")), (None, true));
        assert_eq!(catalog.unreadable().collect::<Vec<_>>(), [&id()]);
        assert_eq!(catalog.changeable("b"), Err(ChangeRefused::NotUnderstood));
        let understood = catalog.with_stored(&id(), StoredBudget::Understood(budget(4)));
        assert_eq!(understood.changeable("b").unwrap().unwrap().revision, 4);
        assert_eq!(Catalog::default().changeable("b"), Ok(None));
    }

    #[test]
    fn a_deleted_budget_can_be_defined_anew_and_its_revisions_continue() {
        let deletion = |revision| {
            let stored = StoredBudget::parse(StoredBudget::deletion(&id(), revision).as_bytes());
            assert_eq!(stored, StoredBudget::Deleted { revision });
            stored
        };
        let catalog = Catalog::default().with(Arc::new(budget(5)));
        assert_eq!(catalog.with_newer(&id(), &deletion(5)), None);
        let deleted = catalog.with_newer(&id(), &deletion(6)).unwrap();
        assert_eq!((deleted.get("b"), deleted.is_deleted("b")), (None, true));
        assert_eq!((deleted.is_unreadable("b"), deleted.changeable("b")), (false, Ok(None)));
        // The deleted definition does not come back.
        assert_eq!(deleted.with_newer(&id(), &StoredBudget::Understood(budget(5))), None);
        let anew = deleted.numbered(define(None, &budget(0)).unwrap().unwrap());
        assert_eq!(anew.revision, 7);
        // Also for a process that has missed the deletion.
        for known in [&catalog, &deleted] {
            let defined = known.with_newer(&id(), &StoredBudget::Understood(anew.clone())).unwrap();
            assert_eq!((defined.get("b").unwrap().revision, defined.is_deleted("b")), (7, false));
        }
    }

    #[test]
    fn a_catalog_of_deleted_or_unreadable_budgets_is_not_empty() {
        let empty = Catalog::default();
        assert!(empty.is_empty());
        assert!(!empty.with(Arc::new(budget(1))).is_empty());
        assert!(!empty.with_stored(&id(), StoredBudget::Deleted { revision: 2 }).is_empty());
        assert!(!empty.with_stored(&id(), unreadable(None)).is_empty());
    }

    #[test]
    fn only_an_unfrozen_budget_is_deleted() {
        assert_eq!(delete(Some(&budget(1))), Ok(()));
        let frozen = Budget { frozen: true, ..budget(2) };
        assert_eq!(delete(Some(&frozen)), Err(ChangeRefused::Frozen));
        assert_eq!(delete(None), Err(ChangeRefused::Unknown));
    }

    #[test]
    fn an_older_definition_never_replaces_a_newer_one() {
        let catalog = Catalog::default().with(Arc::new(budget(5)));
        assert_eq!(catalog.with_newer(&id(), &partly(5)), None);
        assert_eq!(catalog.with_newer(&id(), &unreadable(Some(4))), None);
        assert!(catalog.with_newer(&id(), &partly(6)).is_some());
        // A definition whose revision is unreadable counts as newer, until the next readable one.
        let catalog = catalog.with_newer(&id(), &unreadable(None)).unwrap();
        let next = StoredBudget::Understood(budget(5));
        assert_eq!(catalog.with_newer(&id(), &next).unwrap().get("b").unwrap().revision, 5);
    }
}
