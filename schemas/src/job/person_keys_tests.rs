//! The keys of people in a job: kept while an attempt may need them, and no longer.

use uuid::Uuid;

use super::*;
use crate::{
    AnnulmentId, AnnulmentPart, AnnulmentReason, AnnulmentRequest, AnnulmentSelection, BudgetId,
    PersonKey, PersonKeys,
};

const KEYS: &str = "0000000000000000000000000000000700000000000000000000000000000008";

fn annul(people: &[u128]) -> JobKind {
    let keys = people.iter().map(|who| PersonKey::from_bytes(who.to_be_bytes())).collect();
    JobKind::Annul {
        annulment: Box::new(AnnulmentRequest {
            id: AnnulmentId(Uuid::from_u128(5)),
            budget: BudgetId::parse("parks").unwrap(),
            selection: AnnulmentSelection::Persons { persons: PersonKeys::new(keys).unwrap() },
            reason: AnnulmentReason::parse("spam").unwrap(),
            dry_run: false,
            part: AnnulmentPart::default(),
        }),
    }
}

fn queued() -> Job {
    let id = JobId::new(1, Uuid::from_u128(9));
    let requested_by = "an operator".into();
    let new = NewJob { id, kind: annul(&[7, 8]), priority: Priority::High, requested_by };
    submit(new, &[], 1).unwrap()
}

fn running() -> (Job, Attempt) {
    let job = claim(&queued(), &"one".into(), 2).unwrap();
    let attempt = job.running().unwrap().clone();
    (job, attempt)
}

#[test]
fn a_job_that_has_ended_for_good_has_no_key_and_still_says_how_many_people() {
    let (job, attempt) = running();
    let done = succeed(&job, &attempt, Verdict::Clean, "annulled".into(), 3).unwrap();
    let cancelled = cancel(&queued(), 3).unwrap();
    let undone = finish_cancel(&cancel(&job, 3).unwrap(), &attempt, 4).unwrap();
    for ended in [done, cancelled, undone] {
        let json = ended.to_json();
        assert!(!json.contains(&KEYS[..32]) && !json.contains(&KEYS[32..]), "{json}");
        assert!(json.contains(r#""selection":{"by":"erased_persons","people":2}"#), "{json}");
        assert_eq!(ended.kind.to_string(), "annul (parks, 2 named)");
        assert_eq!(Job::from_json(&json), Some(ended));
    }
}

#[test]
fn a_job_that_may_be_tried_again_keeps_the_keys() {
    let (job, attempt) = running();
    let failed = fail(&job, &attempt, "no luck".into(), 0, 3).unwrap();
    let released = release(&job, &attempt, 3).unwrap();
    let cancelling = cancel(&job, 3).unwrap();
    let dead = fail_permanently(&job, &attempt, "failed".into(), 3).unwrap();
    let again = retry(&dead, 4).unwrap();
    for kept in [job, failed, released, cancelling, dead, again] {
        assert!(kept.to_json().contains(KEYS), "{}", kept.state.name());
        assert_eq!(kept.kind, annul(&[7, 8]));
    }
}

#[test]
fn an_ended_job_of_an_earlier_release_is_read_with_its_keys() {
    let (job, attempt) = running();
    let done = succeed(&job, &attempt, Verdict::Clean, "annulled".into(), 3).unwrap();
    let former = Job { kind: annul(&[7, 8]), ..done };
    assert!(former.to_json().contains(KEYS));
    assert_eq!(Job::from_json(&former.to_json()), Some(former));
}

#[test]
fn a_repeated_request_is_recognised_also_when_its_job_has_ended() {
    let (job, attempt) = running();
    let done = succeed(&job, &attempt, Verdict::Clean, "annulled".into(), 3).unwrap();
    for of_kind in [&queued(), &job, &done] {
        assert!(of_kind.is_of_kind(&annul(&[7, 8])));
        assert!(!of_kind.is_of_kind(&annul(&[7])) && !of_kind.is_of_kind(&JobKind::Audit));
    }
    assert!(!job.is_of_kind(&annul(&[7, 9])));
}
