//! The contract of `BudgetDefinitions`, `SecretRecord`, `CodeRevocations` and `AnnulmentRegisters`.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use schemas::{
    AnnulmentChange, AnnulmentEntry, AnnulmentId, AnnulmentReason, AnnulmentState, Budget,
    BudgetId, ClosingState, CodeValidity, PersonSalt, PersonSaltState, PersonSecret,
    SelectionSummary, SerialSet, StoredAnnulments,
};
use storage::control::{
    AnnulmentRegisters, BudgetDefinitions, ChangeRefused, CodeRevocations, ControlTopicError,
    SecretRecord, close, complete_reopening, define, define_if_absent, delete, forget, freeze,
    record_secret, wait_for_other_secret,
};
use storage::open_error::OpenError;

use super::build::{budget, category, new_budget_id};
use super::wait::until;

/// The views of a control topic that are tested here.
pub trait Control: BudgetDefinitions + SecretRecord + CodeRevocations + AnnulmentRegisters {}

impl<C: BudgetDefinitions + SecretRecord + CodeRevocations + AnnulmentRegisters> Control for C {}

pub struct Fixture {
    pub ours: Arc<dyn Control>,
    /// Changes the same definitions through a second handle.
    pub rival: Arc<dyn Control>,
    /// Follows the changes of `ours`. The embedded control topic has one process, which follows itself.
    pub follower: Arc<dyn Control>,
    /// Dropped with the fixture: a folder, topics.
    pub _kept: Box<dyn Any + Send + Sync>,
}

macro_rules! definitions_contract {
    ($fixture:expr) => {
        crate::contract::properties! { definitions, $fixture;
            a_new_definition_is_in_the_catalog_at_once,
            a_change_reaches_a_follower_within_a_second,
            subscribers_are_woken_by_a_change,
            an_equal_definition_is_not_a_change,
            a_frozen_definition_keeps_its_categories_but_names_may_change,
            an_unknown_budget_cannot_be_frozen,
            a_default_budget_does_not_replace_an_existing_one,
            concurrent_changes_are_not_lost,
            every_decision_is_made_on_what_others_have_written,
            one_of_concurrent_freezes_writes,
            categories_never_change_after_an_acknowledged_freeze,
            a_deleted_budget_is_gone_and_can_be_defined_anew,
            a_frozen_budget_is_not_deleted,
            a_deletion_and_a_freeze_exclude_each_other,
            the_first_of_concurrent_secrets_is_recorded_and_others_are_refused,
            a_recorded_secret_reaches_a_follower,
            revoked_codes_reach_everyone_within_a_second_and_stay_revoked,
            concurrent_revocations_are_not_lost,
            changed_annulments_reach_everyone_within_a_second,
            concurrent_annulments_are_not_lost,
            what_anyone_has_seen_is_in_every_later_confirmation,
            a_forgotten_budget_is_forgotten_by_everyone_and_stays_so,
        }
    };
}
pub(crate) use definitions_contract;

const LOADING: Duration = Duration::from_secs(30);
const ONE_SECOND: Duration = Duration::from_secs(1);

impl Fixture {
    async fn loaded(&self) {
        for definitions in [&self.ours, &self.rival, &self.follower] {
            until("definitions are loaded", LOADING, async || definitions.is_loaded()).await;
        }
    }
}

async fn put(
    definitions: &dyn BudgetDefinitions,
    wanted: &Budget,
) -> Result<Budget, ControlTopicError> {
    let changed = definitions.change(&wanted.id, &|current| define(current, wanted)).await;
    changed.map(|budget| Budget::clone(&budget))
}

async fn put_frozen(definitions: &dyn BudgetDefinitions, id: &BudgetId) -> Budget {
    put(definitions, &budget(id)).await.unwrap();
    Budget::clone(&*definitions.change(id, &freeze).await.unwrap())
}

fn current(definitions: &dyn BudgetDefinitions, id: &BudgetId) -> Option<Budget> {
    definitions.catalog().get(id.as_str()).map(|budget| Budget::clone(budget))
}

pub async fn a_new_definition_is_in_the_catalog_at_once(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    assert_eq!(current(&*fixture.ours, &id), None);
    let returned = put(&*fixture.ours, &budget(&id)).await.unwrap();
    assert_eq!(returned, Budget { revision: 1, frozen: false, ..budget(&id) });
    assert_eq!(current(&*fixture.ours, &id), Some(returned));
}

pub async fn a_change_reaches_a_follower_within_a_second(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    let returned = put(&*fixture.ours, &budget(&id)).await.unwrap();
    let reached = async || current(&*fixture.follower, &id).as_ref() == Some(&returned);
    until("the follower knows the definition", ONE_SECOND, reached).await;
}

pub async fn subscribers_are_woken_by_a_change(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    let mut changes = fixture.follower.changes();
    changes.mark_unchanged();
    put(&*fixture.ours, &budget(&id)).await.unwrap();
    while current(&*fixture.follower, &id).is_none() {
        let woken = tokio::time::timeout(LOADING, changes.changed()).await;
        woken.expect("no subscriber was woken").unwrap();
    }
}

pub async fn an_equal_definition_is_not_a_change(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    put(&*fixture.ours, &budget(&id)).await.unwrap();
    assert_eq!(put(&*fixture.rival, &budget(&id)).await.unwrap().revision, 1);
    let renamed = Budget { name: "Another name".into(), ..budget(&id) };
    assert_eq!(put(&*fixture.ours, &renamed).await.unwrap().revision, 2);
}

pub async fn a_frozen_definition_keeps_its_categories_but_names_may_change(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    let frozen = put_frozen(&*fixture.ours, &id).await;
    assert!(frozen.frozen);

    let other = Budget { categories: vec![category("a"), category("b")], ..budget(&id) };
    let refused = put(&*fixture.rival, &other).await;
    assert_eq!(refused, Err(ControlTopicError::Refused(ChangeRefused::Frozen)));
    assert_eq!(current(&*fixture.ours, &id), Some(frozen));

    let mut renamed = Budget { name: "Another name".into(), ..budget(&id) };
    renamed.presentation.language = Some("en".into());
    renamed.presentation.translations.insert("de".into(), schemas::Translation::default());
    let returned = put(&*fixture.ours, &renamed).await.unwrap();
    assert_eq!((returned.frozen, returned.name.as_str()), (true, "Another name"));
    assert_eq!(returned.presentation, renamed.presentation);
    let follows = async || current(&*fixture.follower, &id).as_ref() == Some(&returned);
    until("the follower has the presentation", LOADING, follows).await;
}

pub async fn an_unknown_budget_cannot_be_frozen(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    let refused = fixture.ours.change(&id, &freeze).await;
    assert_eq!(refused, Err(ControlTopicError::Refused(ChangeRefused::Unknown)));
    assert_eq!(current(&*fixture.ours, &id), None);
}

pub async fn a_default_budget_does_not_replace_an_existing_one(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    let there = put(&*fixture.rival, &Budget { name: "There first".into(), ..budget(&id) }).await;
    let default = budget(&id);
    let kept = fixture.ours.change(&id, &|current| define_if_absent(current, &default)).await;
    assert_eq!(Budget::clone(&*kept.unwrap()), there.unwrap());
}

pub async fn concurrent_changes_are_not_lost(fixture: &Fixture) {
    const CHANGES: u64 = 5;
    fixture.loaded().await;
    let id = new_budget_id();
    put(&*fixture.ours, &budget(&id)).await.unwrap();
    let count_up = async |definitions: &dyn BudgetDefinitions| {
        for _ in 0..CHANGES {
            let one_more = |current: Option<&Budget>| {
                let current = current.ok_or(ChangeRefused::Unknown)?;
                let minimum_people = current.minimum_people + 1;
                define(Some(current), &Budget { minimum_people, ..current.clone() })
            };
            definitions.change(&id, &one_more).await.unwrap();
        }
    };
    tokio::join!(count_up(&*fixture.ours), count_up(&*fixture.rival));
    let last = read_definition(&*fixture.ours, &id).await;
    assert_eq!((last.minimum_people, last.revision), (1 + 2 * CHANGES, 1 + 2 * CHANGES));
}

pub async fn every_decision_is_made_on_what_others_have_written(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    let first = budget(&id);
    let changed = Budget { minimum_people: 7, ..first.clone() };
    put(&*fixture.ours, &first).await.unwrap();
    put(&*fixture.rival, &changed).await.unwrap();
    // No change to a process that knows its own definition only.
    let back = put(&*fixture.ours, &first).await.unwrap();
    assert_eq!((back.minimum_people, back.revision), (first.minimum_people, 3));
    fixture.rival.change(&id, &freeze).await.unwrap();
    let refused = fixture.ours.delete(&id, &delete).await;
    assert_eq!(refused, Err(ControlTopicError::Refused(ChangeRefused::Frozen)));
}

/// Reads the definition, linearizably.
async fn read_definition(definitions: &dyn BudgetDefinitions, id: &BudgetId) -> Budget {
    Budget::clone(&*definitions.change(id, &|_| Ok(None)).await.unwrap())
}

pub async fn one_of_concurrent_freezes_writes(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    put(&*fixture.ours, &budget(&id)).await.unwrap();
    let (ours, rivals) =
        tokio::join!(fixture.ours.change(&id, &freeze), fixture.rival.change(&id, &freeze));
    let expected = Budget { revision: 2, frozen: true, ..budget(&id) };
    assert_eq!(*ours.unwrap(), expected);
    assert_eq!(*rivals.unwrap(), expected);
}

pub async fn categories_never_change_after_an_acknowledged_freeze(fixture: &Fixture) {
    fixture.loaded().await;
    for _ in 0..5 {
        let id = new_budget_id();
        put(&*fixture.ours, &budget(&id)).await.unwrap();
        let other = Budget { categories: vec![category("a"), category("b")], ..budget(&id) };
        let (frozen, changed) =
            tokio::join!(fixture.ours.change(&id, &freeze), put(&*fixture.rival, &other));
        let frozen = frozen.unwrap();
        assert!(frozen.frozen);
        let last = read_definition(&*fixture.rival, &id).await;
        assert_eq!(last, *frozen);
        match changed {
            Ok(_) => assert_eq!(last.categories, other.categories),
            Err(refused) => {
                assert_eq!(refused, ControlTopicError::Refused(ChangeRefused::Frozen));
                assert_eq!(last.categories, budget(&id).categories);
            }
        }
    }
}

pub async fn a_deleted_budget_is_gone_and_can_be_defined_anew(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    put(&*fixture.ours, &budget(&id)).await.unwrap();
    fixture.ours.delete(&id, &delete).await.unwrap();
    assert_eq!(current(&*fixture.ours, &id), None);
    let catalog = fixture.ours.catalog();
    assert!(catalog.is_deleted(id.as_str()) && !catalog.is_unreadable(id.as_str()));
    let gone = async || fixture.follower.catalog().is_deleted(id.as_str());
    until("the follower knows the deletion", ONE_SECOND, gone).await;
    let unknown = Err(ControlTopicError::Refused(ChangeRefused::Unknown));
    assert_eq!(fixture.rival.delete(&id, &delete).await, unknown);
    // Later than the deletion, also for a process that has missed it.
    let anew = put(&*fixture.rival, &budget(&id)).await.unwrap();
    assert_eq!((anew.revision, anew.frozen), (3, false));
    let back = async || current(&*fixture.follower, &id).as_ref() == Some(&anew);
    // The embedded control topic reads the changes of another process at its next own change.
    assert_eq!(read_definition(&*fixture.ours, &id).await, anew);
    until("the follower knows the new definition", ONE_SECOND, back).await;
}

pub async fn a_frozen_budget_is_not_deleted(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    let frozen = put_frozen(&*fixture.ours, &id).await;
    let refused = fixture.rival.delete(&id, &delete).await;
    assert_eq!(refused, Err(ControlTopicError::Refused(ChangeRefused::Frozen)));
    assert_eq!(read_definition(&*fixture.ours, &id).await, frozen);
}

pub async fn a_deletion_and_a_freeze_exclude_each_other(fixture: &Fixture) {
    fixture.loaded().await;
    for _ in 0..3 {
        let id = new_budget_id();
        put(&*fixture.ours, &budget(&id)).await.unwrap();
        let (deleted, frozen) =
            tokio::join!(fixture.ours.delete(&id, &delete), fixture.rival.change(&id, &freeze));
        match (deleted, frozen) {
            (Ok(()), Err(refused)) => assert_eq!(refused, ChangeRefused::Unknown.into()),
            (Err(refused), Ok(frozen)) => {
                assert_eq!(refused, ChangeRefused::Frozen.into());
                assert_eq!(read_definition(&*fixture.ours, &id).await, *frozen);
            }
            other => panic!("{other:?}"),
        }
    }
}

pub async fn a_forgotten_budget_is_forgotten_by_everyone_and_stays_so(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    let salt = PersonSalt::from_bytes([7; PersonSalt::BYTES]);
    let person_salt = PersonSaltState::Salted(salt);
    let closes_at = Some("2027-01-02T00:00:00Z".parse().unwrap());
    let wanted = Budget { closes_at, person_salt: person_salt.clone(), ..budget(&id) };
    put(&*fixture.ours, &wanted).await.unwrap();
    let everyone = [&fixture.ours, &fixture.rival, &fixture.follower];
    for control in everyone {
        let known =
            async || current(&**control, &id).is_some_and(|found| found.person_salt == person_salt);
        until("everyone knows the salt", ONE_SECOND, known).await;
    }
    let closed = fixture.ours.change(&id, &|current| close(current, &wanted)).await.unwrap();
    let (fence, at) = (closed.closing.unwrap(), "2027-02-01T00:00:00Z".parse().unwrap());
    fixture.rival.change(&id, &|current| forget(current, fence, at)).await.unwrap();
    fixture.rival.erase_former_definitions(&id).await.unwrap();
    for control in everyone {
        let forgotten = async || {
            let found = current(&**control, &id);
            found.is_some_and(|found| found.person_salt.forgotten_at() == Some(at))
        };
        until("everyone has forgotten the persons", ONE_SECOND, forgotten).await;
    }
    let reopened = put(&*fixture.ours, &Budget { closes_at: None, ..wanted }).await;
    assert_eq!(reopened, Err(ControlTopicError::Refused(ChangeRefused::Forgotten)));
    let confirmed = read_definition(&*fixture.ours, &id).await;
    assert_eq!(confirmed.person_salt.forgotten_at(), Some(at));
    // Other changes go on, and erase nothing of other budgets.
    put(&*fixture.ours, &budget(&new_budget_id())).await.unwrap();
}

fn person_secret(secret: &str) -> PersonSecret {
    PersonSecret::new(secret.repeat(32).as_bytes()).unwrap()
}

pub async fn the_first_of_concurrent_secrets_is_recorded_and_others_are_refused(fixture: &Fixture) {
    fixture.loaded().await;
    let (one, two) = (person_secret("1"), person_secret("2"));
    let (first, second) =
        tokio::join!(record_secret(&*fixture.ours, &one), record_secret(&*fixture.rival, &two));
    let (recorded, other) = if first.is_ok() { (one, two) } else { (two, one) };
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    for control in [&fixture.ours, &fixture.rival] {
        // Whichever handle has read the topic.
        for _ in 0..2 {
            record_secret(&**control, &recorded).await.unwrap();
            let refused = record_secret(&**control, &other).await;
            assert!(matches!(refused, Err(OpenError::Secret(_))), "{refused:?}");
        }
    }
}

pub async fn a_recorded_secret_reaches_a_follower(fixture: &Fixture) {
    fixture.loaded().await;
    let (same, other) = (person_secret("1"), person_secret("2"));
    let noticed = wait_for_other_secret(&*fixture.follower, &other);
    let recorded = async {
        record_secret(&*fixture.ours, &same).await.unwrap();
        // Nobody is stopped by a secret that is the recorded one.
        let own = wait_for_other_secret(&*fixture.follower, &same);
        tokio::time::timeout(ONE_SECOND, own).await.unwrap_err();
    };
    let (noticed, ()) =
        tokio::time::timeout(LOADING, async { tokio::join!(noticed, recorded) }).await.unwrap();
    assert!(!noticed.is_transient(), "{noticed}");
}

fn serials(text: &str) -> SerialSet {
    text.parse().unwrap()
}

fn validity(control: &dyn Control, id: &BudgetId, serial: u32) -> CodeValidity {
    control.subscribe_revoked().borrow().validity(id, serial)
}

pub async fn revoked_codes_reach_everyone_within_a_second_and_stay_revoked(fixture: &Fixture) {
    fixture.loaded().await;
    let (id, other) = (new_budget_id(), new_budget_id());
    let everyone = [&fixture.ours, &fixture.rival, &fixture.follower];
    for control in everyone {
        assert_eq!(validity(&**control, &id, 7), CodeValidity::Valid);
    }
    for (more, all) in [("7", "7"), ("9-12,7", "7,9-12"), ("10", "7,9-12")] {
        let revoked = fixture.ours.revoke(&id, &serials(more)).await.unwrap();
        assert_eq!(revoked, serials(all));
        for serial in [7, 10].into_iter().filter(|serial| revoked.contains(*serial)) {
            assert_eq!(validity(&*fixture.ours, &id, serial), CodeValidity::Revoked);
            for control in everyone {
                let known = async || validity(&**control, &id, serial) == CodeValidity::Revoked;
                until("everyone knows the revoked code", ONE_SECOND, known).await;
            }
        }
    }
    for control in everyone {
        assert_eq!(validity(&**control, &id, 8), CodeValidity::Valid);
        assert_eq!(validity(&**control, &other, 7), CodeValidity::Valid);
    }
    // Whatever becomes of the budget.
    put(&*fixture.ours, &budget(&id)).await.unwrap();
    fixture.ours.delete(&id, &delete).await.unwrap();
    assert_eq!(validity(&*fixture.ours, &id, 7), CodeValidity::Revoked);
}

pub async fn concurrent_revocations_are_not_lost(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    let revoke = async |control: &dyn Control, first: u32| {
        for serial in (first..).step_by(2).take(4) {
            control.revoke(&id, &serials(&serial.to_string())).await.unwrap();
        }
    };
    tokio::join!(revoke(&*fixture.ours, 1), revoke(&*fixture.rival, 2));
    let all = fixture.ours.revoke(&id, &SerialSet::default()).await.unwrap();
    assert_eq!(all, serials("1-8"));
    assert_eq!(fixture.rival.revoke(&id, &serials("3")).await.unwrap(), serials("1-8"));
}

pub async fn what_anyone_has_seen_is_in_every_later_confirmation(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    let closes_at = Some("2027-01-01T00:00:00Z".parse().unwrap());
    put(&*fixture.ours, &Budget { closes_at, ..budget(&id) }).await.unwrap();
    for _ in 0..3 {
        let open = read_definition(&*fixture.ours, &id).await;
        let closed = fixture.ours.change(&id, &|current| close(current, &open)).await.unwrap();
        let seen = async || current(&*fixture.follower, &id).as_ref() == Some(&*closed);
        until("the follower knows the fence", LOADING, seen).await;
        let confirmed = fixture.rival.confirmed().await.unwrap();
        assert_eq!(confirmed.get(id.as_str()), Some(&closed));
        // Nothing has changed, which takes another way.
        let confirmed = fixture.rival.confirmed().await.unwrap();
        assert_eq!(confirmed.get(id.as_str()), Some(&closed));
        let later = Budget { closes_at: None, ..Budget::clone(&closed) };
        let fence = put(&*fixture.ours, &later).await.unwrap().closing.unwrap();
        assert_eq!(fence.state, ClosingState::Reopening);
        let reopen = |current: Option<&Budget>| complete_reopening(current, fence);
        assert!(!fixture.rival.change(&id, &reopen).await.unwrap().is_fenced());
        put(&*fixture.ours, &Budget { closes_at, ..later }).await.unwrap();
    }
}

fn begin_annulment(number: u128) -> AnnulmentChange {
    AnnulmentChange::Begin(AnnulmentEntry {
        id: AnnulmentId(uuid::Uuid::from_u128(number)),
        by: "anna".into(),
        begun_at_ms: 5,
        selection: SelectionSummary::Persons,
        reason: AnnulmentReason::parse("spam").unwrap(),
        state: AnnulmentState::Running,
        people: 0,
        changed: 0,
        parts: 0,
        restored: None,
    })
}

pub async fn changed_annulments_reach_everyone_within_a_second(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    assert_eq!(fixture.ours.annulments(&id).await, Ok(StoredAnnulments::default()));
    let cancel = AnnulmentChange::Cancel(AnnulmentId(uuid::Uuid::from_u128(1)));
    for change in [begin_annulment(1), begin_annulment(2), cancel.clone(), cancel] {
        let changed = fixture.ours.change_annulments(&id, &change).await.unwrap();
        let expected = StoredAnnulments::Understood(changed);
        for control in [&fixture.ours, &fixture.rival, &fixture.follower] {
            let known = async || control.annulments(&id).await.unwrap() == expected;
            until("everyone knows the annulment", ONE_SECOND, known).await;
        }
    }
    assert_eq!(fixture.ours.annulments(&new_budget_id()).await, Ok(StoredAnnulments::default()));
}

pub async fn concurrent_annulments_are_not_lost(fixture: &Fixture) {
    fixture.loaded().await;
    let id = new_budget_id();
    let begin = async |control: &dyn Control, numbers: [u128; 3]| {
        for number in numbers {
            control.change_annulments(&id, &begin_annulment(number)).await.unwrap();
        }
    };
    tokio::join!(begin(fixture.ours.as_ref(), [1, 2, 3]), begin(fixture.rival.as_ref(), [3, 4, 5]));
    let all = fixture.ours.change_annulments(&id, &begin_annulment(1)).await.unwrap();
    let mut numbers: Vec<_> = all.entries().iter().map(|entry| entry.id.0.as_u128()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}
