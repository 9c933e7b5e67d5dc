//! A rebuild job builds one new generation if its worker is killed, or stalls and resumes, at any of its store
//! operations.

use std::sync::Arc;
use std::time::Duration;

use operations::jobs::LEASE_DURATION;
use schemas::Generation;
use schemas::job::{Job, JobState, Verdict};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::rebuild_world::{RebuildWorld, count_operations};
use crate::stalling_store::stalling_store;

/// Asserts that one new generation is active and the job's result has the comparison.
async fn assert_rebuilt_once(world: &RebuildWorld, job: &Job, stall_at: (u64, bool)) {
    let registry = world.registry().await;
    assert_eq!((registry.term, registry.active.generation), (2, Generation(2)), "{stall_at:?}");
    assert_eq!((registry.next, registry.building), (Generation(3), None), "{stall_at:?}");
    let JobState::Succeeded { verdict, result, .. } = &job.state else {
        panic!("{stall_at:?}: {job:?}")
    };
    assert_eq!(*verdict, Verdict::Different, "{stall_at:?}: {result}");
    assert_eq!(
        result.as_str(),
        "generation 2 answers now; compared with 1: 100 records, 1 differences\none",
        "{stall_at:?}"
    );
    assert!(job.attempts() <= 2, "{stall_at:?}: {job:?}");
}

/// Stalls a worker at each of its store operations, next to a second worker.
async fn stall_at_every_operation(resumes: bool) {
    for call in 0..count_operations(false).await {
        for after in [false, true] {
            let stall_at = (call, after);
            let world = RebuildWorld::new().await;
            let id = world.submit_rebuild(false).await;
            let stalling = Arc::new(stalling_store(Arc::clone(&world.store), stall_at));
            let one = world.worker("one", &stalling);
            sleep(Duration::from_millis(50)).await;
            let two = world.worker("two", &world.store);
            if resumes {
                while !stalling.is_stalled() {
                    sleep(Duration::from_millis(100)).await;
                }
                // By then the other worker has taken the job over and is executing it.
                sleep(LEASE_DURATION + Duration::from_secs(3)).await;
                stalling.resume();
            }
            let job = world.wait_until_ended(id).await;
            // Time for everything that a resumed worker may still do.
            sleep(LEASE_DURATION * 2).await;
            assert_rebuilt_once(&world, &job, stall_at).await;
            one.abort();
            two.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_worker_is_killed_at_any_operation_builds_one_generation() {
    stall_at_every_operation(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_worker_stalls_at_any_operation_and_resumes_builds_one_generation() {
    stall_at_every_operation(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_whose_worker_is_killed_at_any_operation_leaves_no_generation_and_has_a_result() {
    for call in 0..count_operations(true).await {
        for after in [false, true] {
            let world = RebuildWorld::new().await;
            let id = world.submit_rebuild(true).await;
            let stalling = Arc::new(stalling_store(Arc::clone(&world.store), (call, after)));
            let workers = [world.worker("one", &stalling), world.worker("two", &world.store)];
            let job = world.wait_until_ended(id).await;
            let JobState::Succeeded { result, .. } = &job.state else { panic!("{call}: {job:?}") };
            assert!(result.as_str().starts_with("generation 2 given up: a dry run"), "{result}");
            let registry = world.registry().await;
            assert_eq!((registry.term, registry.next), (1, Generation(3)), "{call}, {after}");
            assert_eq!((registry.building, registry.retired), (None, vec![]), "{call}, {after}");
            workers.iter().for_each(JoinHandle::abort);
        }
    }
}
