//! Each kind of job, by a whole processor.

use std::time::Duration;

use schemas::Generation;
use schemas::job::{Job, JobId, JobKind, JobState, NewJob, Priority, Verdict};
use storage::cache::memory::MemoryCache;
use storage::jobs::{JobStore, submit};
use storage::store::{Store, StoredPartition};
use tokio::time::{Instant, sleep};

use crate::whole::{BUDGETS, Fixture, budget};

async fn settled() -> Fixture {
    let fixture = Fixture::start().await;
    fixture.append(2_000).await;
    fixture.settle().await;
    fixture
}

/// Asks for a job, and waits for its end.
async fn done(fixture: &Fixture, kind: JobKind) -> (Verdict, String) {
    let jobs = fixture.store.as_ref();
    let id = JobId::new(1, uuid::Uuid::new_v4());
    let (priority, asked_by) = (Priority::Normal, "an operator".into());
    submit(jobs, NewJob { id, kind, priority, asked_by }, 1).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match jobs.job(id).await.unwrap().unwrap() {
            Job { state: JobState::Succeeded { verdict, result, .. }, .. } => {
                return (verdict, result.to_string());
            }
            job => assert!(!job.is_ended() && Instant::now() < deadline, "{job:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_lets_a_new_generation_answer() {
    let mut fixture = settled().await;
    let (verdict, result) = done(&fixture, JobKind::Rebuild { dry_run: false }).await;
    assert_eq!(verdict, Verdict::Clean, "{result}");
    assert_eq!(result, "generation 2 answers now; compared with 1: 2000 records, 0 differences");
    assert_eq!(fixture.store.roster().await.unwrap().unwrap().current.generation, Generation(2));
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_names_what_differs_as_its_result() {
    let mut fixture = settled().await;
    let (verdict, result) = done(&fixture, JobKind::Audit).await;
    assert_eq!(
        (verdict, result.as_str()),
        (Verdict::Clean, "2000 records, 2 budgets: 0 differences, 0 not compared")
    );
    fixture.end().await;
    // As many as before, and so nobody but an audit sees it.
    let forge = |stored: &mut StoredPartition| {
        stored.checkpoint.tally.applied -= 1;
        stored.checkpoint.tally.duplicates += 1;
    };
    fixture.overwrite(1, forge).await;
    fixture.begin().await;
    let (verdict, result) = done(&fixture, JobKind::Audit).await;
    assert_eq!(verdict, Verdict::Different, "{result}");
    assert!(result.contains("the store's totals, partition 1: "), "{result}");
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warming_makes_an_emptied_copy_whole_at_once_without_the_owners() {
    let mut fixture = settled().await;
    let before = fixture.cache.read(&BUDGETS.map(budget)).await.unwrap();
    fixture.end().await;
    fixture.cache = std::sync::Arc::new(MemoryCache::new());
    fixture.begin().await;
    let (verdict, result) = done(&fixture, JobKind::WarmCaches).await;
    assert_eq!((verdict, result.as_str()), (Verdict::Clean, "2 budgets told, 2 partitions each"));
    assert_eq!(fixture.cache.read(&BUDGETS.map(budget)).await.unwrap(), before);
    fixture.end().await;
}
