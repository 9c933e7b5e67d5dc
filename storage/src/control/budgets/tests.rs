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

fn salted(salt: u8) -> PersonSaltState {
    PersonSaltState::Salted(schemas::PersonSalt::from_bytes([salt; 32]))
}

#[test]
fn a_budget_keeps_the_person_secret_with_which_it_was_created() {
    let wanted = |salt| Budget { person_salt: salted(salt), ..budget(0) };
    let created = define(None, &wanted(1)).unwrap().unwrap();
    assert_eq!(created.person_salt, salted(1));
    assert_eq!(define(Some(&created), &wanted(2)), Ok(None), "no change");
    let renamed = Budget { name: "another".into(), ..wanted(2) };
    let renamed = define(Some(&created), &renamed).unwrap().unwrap();
    assert_eq!((renamed.name.as_str(), renamed.person_salt), ("another", salted(1)));
    // One of an earlier release gets none: its people are counted under other keys.
    let earlier = Budget { person_salt: PersonSaltState::DeploymentOnly, ..created };
    let renamed = Budget { name: "another".into(), ..wanted(2) };
    let renamed = define(Some(&earlier), &renamed).unwrap().unwrap();
    assert_eq!(renamed.person_salt, PersonSaltState::DeploymentOnly);
}

#[test]
fn only_a_closed_budget_is_forgotten_and_for_ever() {
    let now = "2027-02-01T00:00:00Z".parse().unwrap();
    let open = Budget {
        closes_at: at("2027-01-02T00:00:00Z"),
        person_salt: salted(1),
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
    let earlier = Budget { person_salt: PersonSaltState::DeploymentOnly, ..closed.clone() };
    assert_eq!(forget(Some(&earlier), fence, now), Err(ChangeRefused::NoSalt));
    assert_eq!(forget(None, fence, now), Err(ChangeRefused::Unknown));

    let forgotten = forget(Some(&closed), fence, now).unwrap().unwrap();
    let person_salt = PersonSaltState::Forgotten { at: now };
    let revision = closed.revision + 1;
    assert_eq!(forgotten, Budget { revision, person_salt, ..closed.clone() });
    assert_eq!(forget(Some(&forgotten), fence, now), Ok(None), "once");
    assert_eq!(delete(Some(&forgotten)), Err(ChangeRefused::Forgotten));
    for closes_at in [None, at("2027-01-03T00:00:00Z")] {
        let wanted = Budget { closes_at, person_salt: salted(2), ..closed.clone() };
        assert_eq!(define(Some(&forgotten), &wanted), Err(ChangeRefused::Forgotten));
    }
    let renamed = Budget { name: "another".into(), ..closed };
    let renamed = define(Some(&forgotten), &renamed).unwrap().unwrap();
    assert_eq!(renamed.person_salt.forgotten_at(), Some(now), "its name may still change");
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
