//! The contract of `JobStore`.

use std::any::Any;
use std::sync::Arc;

use futures_util::future::join_all;
use schemas::job::{
    Job, JobId, JobKind, JobState, JobTransitionError, MAX_KEPT_ENDED_JOBS, MAX_OPEN_JOBS, NewJob,
    Priority, Verdict, cancel, claim, succeed,
};
use schemas::{
    AnnulmentId, AnnulmentPart, AnnulmentReason, AnnulmentRequest, AnnulmentSelection, BudgetId,
    PersonKey, PersonKeys,
};
use storage::jobs::{JobStore, JobUpdateError, submit, update_job};
use storage::store::CasOutcome;
use uuid::Uuid;

const NOW_MS: u64 = 1_795_212_000_000;

pub struct Fixture {
    /// Not used by other tests.
    pub jobs: Arc<dyn JobStore>,
    /// Dropped with the fixture.
    pub _kept: Box<dyn Any + Send + Sync>,
}

macro_rules! jobs_contract {
    ($empty:expr) => {
        crate::contract::properties! { jobs, $empty;
            submitting_a_job_again_with_the_same_id_changes_nothing,
            one_of_concurrent_changes_of_a_job_is_applied,
            jobs_are_listed_in_the_order_of_submission,
            a_job_is_deleted_only_at_the_given_revision,
            ending_a_job_deletes_all_but_the_newest_ended_jobs,
            jobs_beyond_the_limit_of_their_priority_are_rejected,
            an_ended_job_has_no_person_key_and_one_that_an_earlier_release_ended_is_read,
        }
    };
}
pub(crate) use jobs_contract;

fn new(at_ms: u64, priority: Priority) -> NewJob {
    let id = JobId::new(at_ms, Uuid::new_v4());
    NewJob {
        id,
        kind: JobKind::Rebuild { dry_run: true },
        priority,
        requested_by: "an operator".into(),
    }
}

pub async fn submitting_a_job_again_with_the_same_id_changes_nothing(fixture: &Fixture) {
    let (jobs, new) = (fixture.jobs.as_ref(), new(NOW_MS, Priority::High));
    assert_eq!(jobs.job(new.id).await, Ok(None));
    let job = submit(jobs, new.clone(), NOW_MS).await.unwrap();
    assert_eq!(jobs.job(new.id).await, Ok(Some(job.clone())));
    assert_eq!(jobs.jobs().await, Ok(vec![job.clone()]));
    let begun = update_job(jobs, job.id, |job| claim(job, &"me".into(), NOW_MS)).await.unwrap();
    // The response was lost, and the job has changed since.
    assert_eq!(submit(jobs, new, NOW_MS).await, Ok(begun.clone()));
    assert_eq!(jobs.jobs().await, Ok(vec![begun]));
    let unknown = JobId::new(NOW_MS, Uuid::new_v4());
    let missing = update_job(jobs, unknown, |job| cancel(job, NOW_MS)).await;
    assert_eq!(missing, Err(JobUpdateError::Refused(JobTransitionError::Missing(unknown))));
}

pub async fn one_of_concurrent_changes_of_a_job_is_applied(fixture: &Fixture) {
    let jobs = fixture.jobs.as_ref();
    let job = submit(jobs, new(NOW_MS, Priority::Normal), NOW_MS).await.unwrap();
    assert_eq!(jobs.change_job(&job).await, Ok(CasOutcome::Refused), "the job exists");
    let claims: Vec<_> =
        (0..8).map(|it| claim(&job, &format!("worker {it}").into(), NOW_MS).unwrap()).collect();
    let outcomes = join_all(claims.iter().map(|next| jobs.change_job(next))).await;
    let made: Vec<_> =
        (0..).zip(outcomes).filter(|(_, it)| *it == Ok(CasOutcome::Applied)).collect();
    let [(winner, _)] = made[..] else { panic!("{made:?}") };
    let won: &schemas::job::Job = &claims[winner];
    assert_eq!(jobs.job(job.id).await, Ok(Some(won.clone())));
    let mut later = won.clone();
    later.revision += 2;
    assert_eq!(
        jobs.change_job(&later).await,
        Ok(CasOutcome::Refused),
        "revisions must be consecutive"
    );
    assert_eq!(jobs.job(job.id).await, Ok(Some(won.clone())));
}

pub async fn jobs_are_listed_in_the_order_of_submission(fixture: &Fixture) {
    for at_ms in [3, 1, 2] {
        submit(fixture.jobs.as_ref(), new(NOW_MS + at_ms, Priority::Low), NOW_MS + at_ms)
            .await
            .unwrap();
    }
    let jobs = fixture.jobs.jobs().await.unwrap();
    let submitted: Vec<_> = jobs.iter().map(|job| job.created_at_ms - NOW_MS).collect();
    assert_eq!(submitted, [1, 2, 3]);
}

pub async fn a_job_is_deleted_only_at_the_given_revision(fixture: &Fixture) {
    let jobs = fixture.jobs.as_ref();
    let submitted = submit(jobs, new(NOW_MS, Priority::Low), NOW_MS).await.unwrap();
    let ended = update_job(jobs, submitted.id, |job| cancel(job, NOW_MS)).await.unwrap();
    assert_eq!(jobs.delete_job(submitted.id, submitted.revision).await, Ok(CasOutcome::Refused));
    assert_eq!(jobs.job(submitted.id).await, Ok(Some(ended.clone())));
    assert_eq!(jobs.delete_job(ended.id, ended.revision).await, Ok(CasOutcome::Applied));
    assert_eq!(jobs.delete_job(ended.id, ended.revision).await, Ok(CasOutcome::Refused));
    assert_eq!((jobs.job(submitted.id).await, jobs.jobs().await), (Ok(None), Ok(vec![])));
}

pub async fn ending_a_job_deletes_all_but_the_newest_ended_jobs(fixture: &Fixture) {
    let jobs = fixture.jobs.as_ref();
    let mut submitted = Vec::new();
    for number in 0..MAX_KEPT_ENDED_JOBS as u64 + 3 {
        let new = new(NOW_MS + number, Priority::Low);
        submitted.push(submit(jobs, new, NOW_MS + number).await.unwrap().id);
    }
    // Not in the order of submission.
    submitted.rotate_left(1);
    for (number, id) in (0..).zip(&submitted[1..]) {
        update_job(jobs, *id, |job| cancel(job, NOW_MS + 1_000 + number)).await.unwrap();
    }
    let kept = jobs.jobs().await.unwrap();
    assert_eq!(kept.len(), MAX_KEPT_ENDED_JOBS + 1);
    assert!(submitted[1..3].iter().all(|id| kept.iter().all(|job| job.id != *id)));
    let waiting = kept.iter().find(|job| job.id == submitted[0]).unwrap();
    assert!(matches!(waiting.state, JobState::Queued { .. }));
}

pub async fn jobs_beyond_the_limit_of_their_priority_are_rejected(fixture: &Fixture) {
    let jobs = fixture.jobs.as_ref();
    for number in 0..MAX_OPEN_JOBS as u64 {
        submit(jobs, new(NOW_MS + number, Priority::Low), NOW_MS).await.unwrap();
    }
    let refused = submit(jobs, new(NOW_MS, Priority::Low), NOW_MS).await;
    assert_eq!(refused, Err(JobUpdateError::Refused(JobTransitionError::Full(Priority::Low))));
    submit(jobs, new(NOW_MS, Priority::Critical), NOW_MS).await.unwrap();
    assert_eq!(jobs.jobs().await.unwrap().len(), MAX_OPEN_JOBS + 1);
}

/// A job that annuls a person.
fn annul() -> NewJob {
    let persons = PersonKeys::new(vec![PersonKey::from_bytes([7; 16])]).unwrap();
    let request = AnnulmentRequest {
        id: AnnulmentId(Uuid::new_v4()),
        budget: BudgetId::parse("parks").unwrap(),
        selection: AnnulmentSelection::Persons { persons },
        reason: AnnulmentReason::parse("spam").unwrap(),
        dry_run: false,
        part: AnnulmentPart::default(),
    };
    NewJob { kind: JobKind::Annul { annulment: Box::new(request) }, ..new(NOW_MS, Priority::High) }
}

pub async fn an_ended_job_has_no_person_key_and_one_that_an_earlier_release_ended_is_read(
    fixture: &Fixture,
) {
    let (jobs, new) = (fixture.jobs.as_ref(), annul());
    let has_key = |job: &Job| job.to_json().contains(&"07".repeat(16));
    submit(jobs, new.clone(), NOW_MS).await.unwrap();
    let begun = update_job(jobs, new.id, |job| claim(job, &"me".into(), NOW_MS)).await.unwrap();
    assert!(has_key(&jobs.job(new.id).await.unwrap().unwrap()));
    let attempt = begun.running().unwrap();
    let end = |job: &Job| succeed(job, attempt, Verdict::Clean, "annulled".into(), NOW_MS);
    let ended = update_job(jobs, new.id, end).await.unwrap();
    let stored = jobs.job(new.id).await.unwrap().unwrap();
    assert!(stored == ended && !has_key(&stored), "{stored:?}");
    assert_eq!(stored.kind.to_string(), begun.kind.to_string());

    let former = Job { kind: begun.kind, revision: ended.revision + 1, ..ended };
    assert_eq!(jobs.change_job(&former).await, Ok(CasOutcome::Applied));
    assert!(has_key(&former));
    assert_eq!(jobs.jobs().await, Ok(vec![former]));
}
