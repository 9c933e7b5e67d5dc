//! Rebuild jobs that are cancelled, and rebuild jobs whose generation another command begins, ends or switches to.

use std::sync::Arc;
use std::time::Duration;

use generations::registry;
use schemas::job::{JobState, Verdict, cancel, retry};
use schemas::{Generation, GenerationRegistry, LogRef};
use storage::jobs::update_job;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::rebuild_world::{RebuildWorld, TOPIC, count, count_operations, reason_of, verdict_of};
use crate::stalling_store::stalling_store;
use crate::world::now_ms;

#[tokio::test(start_paused = true)]
async fn a_cancelled_rebuild_does_not_cancel_the_generation_that_it_joined() {
    let world = RebuildWorld::new().await;
    let (first, second) = (world.submit_rebuild(false).await, world.submit_rebuild(false).await);
    let workers = [world.worker("one", &world.store), world.worker("two", &world.store)];
    sleep(Duration::from_secs(3)).await;
    let building = world.registry().await.building.unwrap().job.unwrap();
    let joining = if building == first { second } else { first };
    update_job(world.store.as_ref(), joining, |job| cancel(job, now_ms())).await.unwrap();
    assert!(matches!(world.wait_until_ended(joining).await.state, JobState::Cancelled { .. }));
    let job = world.wait_until_ended(building).await;
    assert_eq!(job.state.name(), "succeeded");
    assert_eq!(world.registry().await.active.generation, Generation(2));

    // The previous generation is kept: no generation is begun, and the job is not retried.
    let third = world.wait_until_ended(world.submit_rebuild(false).await).await;
    let JobState::Dead { reason, .. } = &third.state else { panic!("{third:?}") };
    assert_eq!(reason.as_str(), "generation 1 is kept for rollback: retire it first");
    workers.iter().for_each(JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_cancelled_while_its_generation_is_built_leaves_nothing_behind() {
    let world = RebuildWorld::new().await;
    let id = world.submit_rebuild(false).await;
    let worker = world.worker("one", &world.store);
    while world.registry().await.building.is_none() {
        sleep(Duration::from_millis(100)).await;
    }
    update_job(world.store.as_ref(), id, |job| cancel(job, now_ms())).await.unwrap();
    assert!(matches!(world.wait_until_ended(id).await.state, JobState::Cancelled { .. }));
    let registry = world.registry().await;
    assert_eq!((registry.term, registry.building, registry.retired), (1, None, vec![]));
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_joined_generation_is_cancelled_by_another_command_begins_a_new_one() {
    for dry_run in [false, true] {
        let world = RebuildWorld::new().await;
        world.update_registry(|registry| registry::begin(registry, dry_run, 0)).await;
        let id = world.submit_rebuild(dry_run).await;
        let worker = world.worker("one", &world.store);
        world.wait_until_begun(id).await;
        world.update_registry(|registry| registry::cancel(registry, Generation(2))).await;
        let job = world.wait_until_ended(id).await;
        let (verdict, result) = verdict_of(&job);
        assert_eq!((verdict, job.attempts()), (Verdict::Different, 1), "{dry_run}: {result}");
        assert!(result.starts_with("generation 3 "), "{dry_run}: {result}");
        worker.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_whose_generation_is_cancelled_by_another_command_begins_a_new_one() {
    let world = RebuildWorld::new().await;
    let id = world.submit_rebuild(true).await;
    let worker = world.worker("one", &world.store);
    world.wait_until_begun(id).await;
    world.update_registry(|registry| registry::cancel(registry, Generation(2))).await;
    assert!(
        verdict_of(&world.wait_until_ended(id).await)
            .1
            .starts_with("generation 3 given up: a dry run")
    );
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_succeeds_if_another_command_switches_to_a_generation_begun_after_its_submission()
{
    for own in [false, true] {
        let world = RebuildWorld::new().await;
        let id = world.submit_rebuild(false).await;
        if !own {
            world.update_registry(|registry| registry::begin(registry, false, now_ms())).await;
        }
        let worker = world.worker("one", &world.store);
        world.wait_until_begun(id).await;
        world.update_registry(|registry| registry::switch_active(registry, Generation(2))).await;
        let result = "generation 2 answers now: compared and switched by another command";
        assert_eq!(
            verdict_of(&world.wait_until_ended(id).await),
            (Verdict::Clean, result),
            "{own}"
        );
        let registry = world.registry().await;
        assert_eq!((registry.term, registry.next), (2, Generation(3)), "{own}");
        worker.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_generation_begun_before_the_submission_does_not_complete_a_rebuild() {
    let world = RebuildWorld::new().await;
    world.update_registry(|registry| registry::begin(registry, false, now_ms() - 1)).await;
    let id = world.submit_rebuild(false).await;
    let worker = world.worker("one", &world.store);
    world.wait_until_begun(id).await;
    world.update_registry(|registry| registry::switch_active(registry, Generation(2))).await;
    // The job would begin another generation, which is refused while the previous one is kept.
    let kept = "generation 1 is kept for rollback: retire it first";
    assert_eq!(reason_of(&world.wait_until_ended(id).await), kept);
    world.update_registry(|registry| registry::retire(registry, Generation(1))).await;
    update_job(world.store.as_ref(), id, |job| retry(job, now_ms())).await.unwrap();
    assert!(
        verdict_of(&world.wait_until_ended(id).await).1.starts_with("generation 3 answers now; ")
    );
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_generation_number_is_taken_at_any_operation_chooses_another() {
    let mut taken = 0;
    for call in 0..count_operations(false).await {
        let world = RebuildWorld::new().await;
        let id = world.submit_rebuild(false).await;
        let stalling = Arc::new(stalling_store(Arc::clone(&world.store), (call, true)));
        let worker = world.worker("one", &stalling);
        while !stalling.is_stalled() {
            sleep(Duration::from_millis(100)).await;
        }
        if world.registry().await == GenerationRegistry::first(LogRef::first(TOPIC, count())) {
            taken += 1;
            world
                .update_registry(|registry| registry::begin(registry, call % 2 == 0, now_ms()))
                .await;
            world.update_registry(|registry| registry::cancel(registry, Generation(2))).await;
            stalling.resume();
            let job = world.wait_until_ended(id).await;
            let result = verdict_of(&job).1;
            assert!(result.starts_with("generation 3 answers now; "), "{call}: {result}");
            assert_eq!(job.attempts(), 1, "{call}");
        }
        worker.abort();
    }
    assert!(taken > 5, "the number was taken too rarely: {taken}");
}
