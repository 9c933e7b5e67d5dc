//! Rebuild jobs on a log without its beginning.

use std::sync::atomic::Ordering;

use generations::registry;
use schemas::job::retry;
use schemas::{Generation, GenerationRegistry, LogRef};
use storage::jobs::update_job;

use super::rebuild_world::{RebuildWorld, TOPIC, count, reason_of, verdict_of};
use crate::world::now_ms;

const NO_BEGINNING: &str = "partition 0 of the log begins at 5: earlier records are gone, and no archive \
     holds them: set `archive.dir` to the directory of its archive";

#[tokio::test(start_paused = true)]
async fn a_rebuild_of_a_log_without_its_beginning_is_dead_and_can_be_retried_once_it_is_back() {
    let world = RebuildWorld::new().await;
    world.log.0.store(5, Ordering::Relaxed);
    let worker = world.worker("one", &world.store);
    let id = world.submit_rebuild(false).await;
    assert_eq!(reason_of(&world.wait_until_ended(id).await), NO_BEGINNING);
    assert_eq!(world.registry().await, GenerationRegistry::first(LogRef::first(TOPIC, count())));

    world.log.0.store(0, Ordering::Relaxed);
    update_job(world.store.as_ref(), id, |job| retry(job, now_ms())).await.unwrap();
    assert!(
        verdict_of(&world.wait_until_ended(id).await).1.starts_with("generation 2 answers now; ")
    );
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_whose_log_loses_its_beginning_discards_its_own_generation() {
    let world = RebuildWorld::new().await;
    let id = world.submit_rebuild(false).await;
    let one = world.worker("one", &world.store);
    world.wait_until_begun(id).await;
    one.abort();
    world.log.0.store(5, Ordering::Relaxed);
    let two = world.worker("two", &world.store);
    assert_eq!(reason_of(&world.wait_until_ended(id).await), NO_BEGINNING);
    let registry = world.registry().await;
    assert_eq!((registry.next, registry.building, registry.retired), (Generation(3), None, vec![]));

    world.log.0.store(0, Ordering::Relaxed);
    update_job(world.store.as_ref(), id, |job| retry(job, now_ms())).await.unwrap();
    assert!(
        verdict_of(&world.wait_until_ended(id).await).1.starts_with("generation 3 answers now; ")
    );
    two.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_of_a_log_without_its_beginning_keeps_the_generation_of_another_command() {
    let world = RebuildWorld::new().await;
    world.update_registry(|registry| registry::begin(registry, false, 0)).await;
    world.log.0.store(5, Ordering::Relaxed);
    let worker = world.worker("one", &world.store);
    assert_eq!(
        reason_of(&world.wait_until_ended(world.submit_rebuild(false).await).await),
        NO_BEGINNING
    );
    assert!(world.registry().await.building.is_some());
    worker.abort();
}
