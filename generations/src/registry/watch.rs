//! Polls the generation registry for this process.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::now_ms;
use schemas::GenerationRegistry;
use storage::store::{Store, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::role_ages::RetiredSince;
use crate::metrics::GenerationMetrics;

/// Time between two reads of the registry; a switch is noticed after half of it on average.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Keeps `registry` up to date until `stop` is cancelled. Its revision never decreases.
///
/// A missing or older registry is reported, and the last one that was read stays in force.
///
/// # Errors
/// When the registry is unreadable: damaged, or in a mode that only a newer release knows; or when a generation needs a
/// newer version of the fold. The process must stop then, since it may not know which generation it should fold, or
/// how.
pub async fn watch_registry(
    store: Arc<dyn Store>,
    registry: watch::Sender<GenerationRegistry>,
    metrics: GenerationMetrics,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    let (mut is_lost, mut retired_since) = (false, RetiredSince::default());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match store.registry().await {
            Ok(Some(read)) => {
                // An older one for longer than a moment is a restored backup.
                metrics.set_registry_lost(read.revision < registry.borrow().revision);
                is_lost = false;
                read.check_fold_version().map_err(StoreError::Corrupt)?;
                // Reads are not linearizable: a later read may return an older revision.
                registry.send_if_modified(|latest| {
                    let newer = read.revision > latest.revision;
                    if newer {
                        tracing::info!(
                            revision = read.revision,
                            term = read.term,
                            generation = read.active.generation.0,
                            "generation registry changed",
                        );
                        *latest = read;
                    }
                    newer
                });
            }
            Ok(None) => {
                metrics.set_registry_lost(true);
                if !std::mem::replace(&mut is_lost, true) {
                    tracing::error!("generation registry is lost, switches are not followed");
                }
            }
            Err(error @ StoreError::Corrupt(_)) => return Err(error),
            Err(error) => tracing::warn!(%error, "failed to read the generation registry"),
        }
        // Also while the store is unavailable: a build that waits for it grows older.
        let ages = retired_since.ages(&registry.borrow(), now_ms(), Instant::now());
        metrics.set_oldest(ages);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use runtime::metrics::Metrics;
    use schemas::{Generation, LogRef, PartitionCount};
    use storage::store::memory::MemoryStore;

    use super::*;
    use crate::registry::{begin, cancel, load_or_create, update_registry};

    #[tokio::test(start_paused = true)]
    async fn a_build_that_does_not_end_is_reported_with_its_age() {
        let store = Arc::new(MemoryStore::default());
        let log = LogRef::first("submissions", PartitionCount::new(2).unwrap());
        let first = load_or_create(store.as_ref(), &log).await.unwrap();
        let begun_at_ms = now_ms() - 30_000_000;
        update_registry(store.as_ref(), |it| begin(it, true, begun_at_ms)).await.unwrap();
        let metrics = Metrics::new("test");
        let stop = CancellationToken::new();
        let watching = tokio::spawn(watch_registry(
            store.clone(),
            watch::Sender::new(first),
            GenerationMetrics::new(&metrics).unwrap(),
            stop.clone(),
        ));
        let name = "allocator_processor_generation_oldest_seconds{role=\"building\"} ";
        let reported = || -> Option<u64> {
            let text = String::from_utf8(metrics.render()).unwrap();
            text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok())
        };
        while reported().is_none_or(|age| age < 30_000) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        update_registry(store.as_ref(), |it| cancel(it, Generation(2))).await.unwrap();
        while reported() != Some(0) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        stop.cancel();
        assert!(watching.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_registry_is_reported_until_the_store_has_one() {
        let store = Arc::new(MemoryStore::default());
        let log = LogRef::first("submissions", PartitionCount::new(2).unwrap());
        let metrics = Metrics::new("test");
        let (updates, _registry) = watch::channel(GenerationRegistry::first(log.clone()));
        let stop = CancellationToken::new();
        let watching = tokio::spawn(watch_registry(
            store.clone(),
            updates,
            GenerationMetrics::new(&metrics).unwrap(),
            stop.clone(),
        ));
        let reported = async |value: u8| {
            let line = format!("allocator_processor_registry_lost {value}\n");
            while !String::from_utf8(metrics.render()).unwrap().contains(&line) {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        reported(1).await;
        load_or_create(store.as_ref(), &log).await.unwrap();
        reported(0).await;
        stop.cancel();
        assert!(watching.await.unwrap().is_ok());
    }
}
