//! Properties of the register of annulments and of its document.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::job::{self, Job, JobId, JobKind, NewJob, Priority};
use crate::{AnnulmentRequest, PersonKeys};

fn budget() -> BudgetId {
    BudgetId::parse("parks").unwrap()
}

fn id(number: u128) -> AnnulmentId {
    AnnulmentId(Uuid::from_u128(number))
}

fn begun(number: u128) -> AnnulmentEntry {
    AnnulmentEntry {
        id: id(number),
        by: "anna".into(),
        begun_at_ms: 1_795_212_000_123,
        selection: SelectionSummary::Persons,
        reason: AnnulmentReason::parse("spam").unwrap(),
        state: AnnulmentState::Running,
        people: 0,
        changed: 0,
        parts: 0,
        restored: None,
    }
}

fn done(number: u128, part: u32, is_last: bool) -> AnnulmentChange {
    let part = AnnulmentPart { number: part, is_last };
    AnnulmentChange::CompletePart { id: id(number), part, people: 10, changed: 4 }
}

fn restoration() -> Restoration {
    Restoration { by: "otto".into(), at_ms: 1_795_212_000_456, people: 9 }
}

fn lock(number: u128) -> AnnulmentLock {
    AnnulmentLock { job: JobId(Uuid::from_u128(9)), token: Uuid::from_u128(number) }
}

#[test]
fn one_attempt_holds_the_lock_and_is_replaced_only_by_one_that_knows_the_holder() {
    let mut register = AnnulmentRegister::default();
    let mut take = |number, replaces: Option<u128>| {
        let replaces = replaces.map(lock);
        let change = AnnulmentChange::Lock { holder: lock(number), replaces };
        (register.apply(&change).unwrap(), register.lock().unwrap().token.as_u128())
    };
    assert_eq!(take(1, None), (true, 1));
    assert_eq!(take(2, None), (false, 1));
    assert_eq!(take(2, Some(3)), (false, 1));
    // The job of the holder has begun another attempt meanwhile.
    assert_eq!(take(4, Some(1)), (true, 4));
    assert_eq!(take(2, Some(1)), (false, 4));
    assert_eq!(register.apply(&AnnulmentChange::Unlock(lock(1))), Ok(false));
    let locked = StoredAnnulments::document(&budget(), &register);
    assert!(locked.contains(r#","lock":{"job":"00000000-"#), "{locked}");
    assert_eq!(register.apply(&AnnulmentChange::Unlock(lock(4))), Ok(true));
    assert_eq!(register.lock(), None);
}

#[test]
fn an_annulment_that_no_job_goes_on_with_is_interrupted_until_it_has_ended() {
    let mut register = AnnulmentRegister::default();
    register.apply(&AnnulmentChange::Begin(begun(1))).unwrap();
    register.apply(&done(1, 0, false)).unwrap();
    let part = |annulment, dry_run| JobKind::Annul {
        annulment: Box::new(AnnulmentRequest {
            id: id(annulment),
            budget: budget(),
            selection: AnnulmentSelection::Persons {
                persons: PersonKeys::new(vec![crate::PersonKey::from_bytes([7; 16])]).unwrap(),
            },
            reason: AnnulmentReason::parse("spam").unwrap(),
            dry_run,
            part: AnnulmentPart { number: 1, is_last: true },
        }),
    };
    let submitted = |kind| -> Job {
        let id = JobId(Uuid::from_u128(9));
        let new = NewJob { id, kind, priority: Priority::High, requested_by: "anna".into() };
        job::submit(new, &[], 5).unwrap()
    };
    let next = submitted(part(1, false));
    let cancelled = job::cancel(&next, 6).unwrap();
    let others = [submitted(part(2, false)), submitted(part(1, true)), cancelled];
    let interrupted = |register: &AnnulmentRegister, jobs: &[Job]| {
        register.get(id(1)).unwrap().is_interrupted(jobs)
    };
    assert!(interrupted(&register, &[]) && interrupted(&register, &others));
    assert!(!interrupted(&register, &[next]));

    register.apply(&AnnulmentChange::BeginRestoration(id(1))).unwrap();
    assert!(interrupted(&register, &[]));
    let restoration_job =
        JobKind::RestoreAnnulment { budget: budget(), annulment: id(1), dry_run: false };
    assert!(!interrupted(&register, &[submitted(restoration_job)]));
    register.apply(&AnnulmentChange::CompleteRestoration(id(1), restoration())).unwrap();
    assert!(!interrupted(&register, &[]));
}

#[test]
fn an_annulment_of_two_parts_is_done_with_the_second_and_repeated_changes_do_nothing() {
    let mut register = AnnulmentRegister::default();
    let changes = [
        AnnulmentChange::Begin(begun(1)),
        done(1, 0, false),
        done(1, 1, true),
        AnnulmentChange::BeginRestoration(id(1)),
        AnnulmentChange::CompleteRestoration(id(1), restoration()),
    ];
    let states = ["running", "running", "done", "restoring", "restored"];
    for (index, (change, state)) in changes.iter().zip(states).enumerate() {
        assert_eq!(register.apply(change), Ok(true), "{change:?}");
        assert_eq!(register.get(id(1)).unwrap().state.name(), state);
        for former in &changes[..=index] {
            assert_eq!(register.apply(former), Ok(false), "{former:?} after {change:?}");
        }
    }
    let entry = register.get(id(1)).unwrap();
    assert_eq!((entry.people, entry.changed, entry.parts), (20, 8, 2));
    assert_eq!(entry.restored, Some(restoration()));
    assert_eq!(register.apply(&done(1, 2, true)), Ok(false), "nobody is annulled after it");
}

#[test]
fn a_cancelled_annulment_can_be_resumed_and_restored() {
    let mut register = AnnulmentRegister::default();
    register.apply(&AnnulmentChange::Begin(begun(1))).unwrap();
    register.apply(&AnnulmentChange::Cancel(id(1))).unwrap();
    assert_eq!(register.apply(&done(1, 0, true)), Ok(false));
    let mut resumed = register.clone();
    assert_eq!(resumed.apply(&AnnulmentChange::Begin(begun(1))), Ok(true));
    assert_eq!(resumed.get(id(1)).unwrap().state, AnnulmentState::Running);
    assert_eq!(register.apply(&AnnulmentChange::BeginRestoration(id(1))), Ok(true));
    assert_eq!(register.apply(&AnnulmentChange::Begin(begun(1))), Ok(false));
}

#[test]
fn a_full_document_fits_into_a_message_and_drops_the_oldest_annulment_that_has_ended() {
    let span = SignalSpan::new(u64::MAX / 2, u64::MAX).unwrap();
    let largest = |number| AnnulmentEntry {
        by: "\"".repeat(100).into(),
        selection: SelectionSummary::Network { network: NetworkDigest(u64::MAX), span },
        reason: AnnulmentReason::parse(&"\"".repeat(200)).unwrap(),
        ..begun(number)
    };
    let mut register = AnnulmentRegister::default();
    for number in 0..MAX_LISTED_ANNULMENTS as u128 {
        register.apply(&AnnulmentChange::Begin(largest(number))).unwrap();
    }
    let next = AnnulmentChange::Begin(begun(1_000));
    assert_eq!(register.clone().apply(&next), Err(RegisterFull));
    register.apply(&done(7, 0, true)).unwrap();
    assert_eq!(register.apply(&next), Ok(true));
    assert_eq!(register.entries().len(), MAX_LISTED_ANNULMENTS);
    assert!(register.get(id(7)).is_none() && register.get(id(1_000)).is_some());
    for number in 0..MAX_LISTED_ANNULMENTS as u128 {
        let restoration = Restoration { by: "\"".repeat(100).into(), ..restoration() };
        register.apply(&AnnulmentChange::BeginRestoration(id(number))).unwrap();
        let restored = AnnulmentChange::CompleteRestoration(id(number), restoration);
        register.apply(&restored).unwrap();
    }
    assert!(StoredAnnulments::document(&budget(), &register).len() < 700_000);
}

#[test]
fn documents_stay_readable_and_those_of_newer_releases_are_shown_but_not_changed() {
    let mut register = AnnulmentRegister::default();
    register.apply(&AnnulmentChange::Begin(begun(1))).unwrap();
    let written = StoredAnnulments::document(&budget(), &register);
    assert_eq!(
        written,
        r#"{"budget":"parks","annulments":[{"id":"00000000-0000-0000-0000-000000000001","by":"anna","begun_at_ms":1795212000123,"selection":{"by":"persons"},"reason":"spam","state":"running","people":0,"changed":0,"parts":0}]}"#
    );
    let parse = |json: &str| StoredAnnulments::parse(&budget(), json.as_bytes());
    assert_eq!(parse(&written), StoredAnnulments::Understood(register.clone()));
    let future = written.replace(r#""parts":0"#, r#""parts":0,"appeal":"open""#);
    assert_eq!(parse(&future), StoredAnnulments::PartlyUnderstood(register));
    for unreadable in [
        "",
        "{}",
        &written.replace("parks", "roads"),
        &written.replace("running", "appealed"),
        &written.replacen('{', r#"{"requires":["appeals"],"#, 1),
    ] {
        assert_eq!(parse(unreadable), StoredAnnulments::Unreadable, "{unreadable}");
    }
}

fn any_change() -> impl Strategy<Value = AnnulmentChange> {
    (0..3_u128, 0..3_u32, any::<bool>(), 0..7).prop_map(
        |(number, part, is_last, kind)| match kind {
            5 => AnnulmentChange::Lock {
                holder: lock(number),
                replaces: is_last.then(|| lock(part.into())),
            },
            6 => AnnulmentChange::Unlock(lock(number)),
            0 => AnnulmentChange::Begin(begun(number)),
            1 => done(number, part, is_last),
            2 => AnnulmentChange::Cancel(id(number)),
            3 => AnnulmentChange::BeginRestoration(id(number)),
            _ => AnnulmentChange::CompleteRestoration(id(number), restoration()),
        },
    )
}

proptest! {
    #[test]
    fn any_changes_survive_storage_and_each_repeated_at_once_does_nothing(
        changes in prop::collection::vec(any_change(), 0..40),
    ) {
        let mut register = AnnulmentRegister::default();
        for change in &changes {
            register.apply(change).unwrap();
            prop_assert_eq!(register.apply(change), Ok(false));
            let written = StoredAnnulments::document(&budget(), &register);
            let read = StoredAnnulments::parse(&budget(), written.as_bytes());
            prop_assert_eq!(read, StoredAnnulments::Understood(register.clone()));
        }
    }
}
