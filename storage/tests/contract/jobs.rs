//! What every place of jobs must hold.

use std::any::Any;
use std::sync::Arc;

use futures_util::future::join_all;
use schemas::job::{
    JobId, JobKind, JobRefused, JobState, KEPT_ENDED_JOBS, MAX_OPEN_JOBS, NewJob, Priority, cancel,
    claim,
};
use storage::jobs::{ChangeError, JobStore, change, submit};
use storage::store::Conditional;
use uuid::Uuid;

const NOW_MS: u64 = 1_795_212_000_000;

pub struct Fixture {
    /// Nobody else has it.
    pub jobs: Arc<dyn JobStore>,
    /// What goes when the fixture goes.
    pub _kept: Box<dyn Any + Send + Sync>,
}

macro_rules! jobs_contract {
    ($empty:expr) => {
        crate::contract::properties! { jobs, $empty;
            a_job_that_was_asked_for_is_there_and_asking_again_for_it_changes_nothing,
            of_two_changes_that_follow_the_same_one_is_made,
            jobs_are_told_in_the_order_in_which_they_were_asked_for,
            a_job_is_deleted_only_as_it_is_known,
            of_ended_jobs_the_newest_are_kept_by_whoever_ends_one,
            more_jobs_of_one_priority_than_there_is_room_for_are_refused,
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
        asked_by: "an operator".into(),
    }
}

pub async fn a_job_that_was_asked_for_is_there_and_asking_again_for_it_changes_nothing(
    place: &Fixture,
) {
    let (jobs, new) = (place.jobs.as_ref(), new(NOW_MS, Priority::High));
    assert_eq!(jobs.job(new.id).await, Ok(None));
    let job = submit(jobs, new.clone(), NOW_MS).await.unwrap();
    assert_eq!(jobs.job(new.id).await, Ok(Some(job.clone())));
    assert_eq!(jobs.jobs().await, Ok(vec![job.clone()]));
    let begun = change(jobs, job.id, |job| claim(job, &"me".into(), NOW_MS)).await.unwrap();
    // The answer was lost, and it has gone on since.
    assert_eq!(submit(jobs, new, NOW_MS).await, Ok(begun.clone()));
    assert_eq!(jobs.jobs().await, Ok(vec![begun]));
    let nobody = JobId::new(NOW_MS, Uuid::new_v4());
    let missing = change(jobs, nobody, |job| cancel(job, NOW_MS)).await;
    assert_eq!(missing, Err(ChangeError::Refused(JobRefused::Missing(nobody))));
}

pub async fn of_two_changes_that_follow_the_same_one_is_made(place: &Fixture) {
    let jobs = place.jobs.as_ref();
    let job = submit(jobs, new(NOW_MS, Priority::Normal), NOW_MS).await.unwrap();
    assert_eq!(jobs.change_job(&job).await, Ok(Conditional::Refused), "it is there already");
    let claims: Vec<_> =
        (0..8).map(|it| claim(&job, &format!("worker {it}").into(), NOW_MS).unwrap()).collect();
    let outcomes = join_all(claims.iter().map(|next| jobs.change_job(next))).await;
    let made: Vec<_> =
        (0..).zip(outcomes).filter(|(_, it)| *it == Ok(Conditional::Applied)).collect();
    let [(winner, _)] = made[..] else { panic!("{made:?}") };
    let won: &schemas::job::Job = &claims[winner];
    assert_eq!(jobs.job(job.id).await, Ok(Some(won.clone())));
    let mut later = won.clone();
    later.revision += 2;
    assert_eq!(jobs.change_job(&later).await, Ok(Conditional::Refused), "one is left out");
    assert_eq!(jobs.job(job.id).await, Ok(Some(won.clone())));
}

pub async fn jobs_are_told_in_the_order_in_which_they_were_asked_for(place: &Fixture) {
    for at_ms in [3, 1, 2] {
        submit(place.jobs.as_ref(), new(NOW_MS + at_ms, Priority::Low), NOW_MS + at_ms)
            .await
            .unwrap();
    }
    let jobs = place.jobs.jobs().await.unwrap();
    let asked: Vec<_> = jobs.iter().map(|job| job.created_at_ms - NOW_MS).collect();
    assert_eq!(asked, [1, 2, 3]);
}

pub async fn a_job_is_deleted_only_as_it_is_known(place: &Fixture) {
    let jobs = place.jobs.as_ref();
    let asked = submit(jobs, new(NOW_MS, Priority::Low), NOW_MS).await.unwrap();
    let ended = change(jobs, asked.id, |job| cancel(job, NOW_MS)).await.unwrap();
    assert_eq!(jobs.delete_job(asked.id, asked.revision).await, Ok(Conditional::Refused));
    assert_eq!(jobs.job(asked.id).await, Ok(Some(ended.clone())));
    assert_eq!(jobs.delete_job(ended.id, ended.revision).await, Ok(Conditional::Applied));
    assert_eq!(jobs.delete_job(ended.id, ended.revision).await, Ok(Conditional::Refused));
    assert_eq!((jobs.job(asked.id).await, jobs.jobs().await), (Ok(None), Ok(vec![])));
}

pub async fn of_ended_jobs_the_newest_are_kept_by_whoever_ends_one(place: &Fixture) {
    let jobs = place.jobs.as_ref();
    let mut asked = Vec::new();
    for number in 0..KEPT_ENDED_JOBS as u64 + 3 {
        let new = new(NOW_MS + number, Priority::Low);
        asked.push(submit(jobs, new, NOW_MS + number).await.unwrap().id);
    }
    // In another order than they were asked for.
    asked.rotate_left(1);
    for (number, id) in (0..).zip(&asked[1..]) {
        change(jobs, *id, |job| cancel(job, NOW_MS + 1_000 + number)).await.unwrap();
    }
    let kept = jobs.jobs().await.unwrap();
    assert_eq!(kept.len(), KEPT_ENDED_JOBS + 1);
    assert!(asked[1..3].iter().all(|id| kept.iter().all(|job| job.id != *id)));
    let waiting = kept.iter().find(|job| job.id == asked[0]).unwrap();
    assert!(matches!(waiting.state, JobState::Queued { .. }));
}

pub async fn more_jobs_of_one_priority_than_there_is_room_for_are_refused(place: &Fixture) {
    let jobs = place.jobs.as_ref();
    for number in 0..MAX_OPEN_JOBS as u64 {
        submit(jobs, new(NOW_MS + number, Priority::Low), NOW_MS).await.unwrap();
    }
    let refused = submit(jobs, new(NOW_MS, Priority::Low), NOW_MS).await;
    assert_eq!(refused, Err(ChangeError::Refused(JobRefused::Full(Priority::Low))));
    submit(jobs, new(NOW_MS, Priority::Critical), NOW_MS).await.unwrap();
    assert_eq!(jobs.jobs().await.unwrap().len(), MAX_OPEN_JOBS + 1);
}
