//! Polls the generation registry for this process.

use std::sync::Arc;
use std::time::Duration;

use schemas::GenerationRegistry;
use storage::store::{Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Time between two reads of the registry; a switch is noticed after half of it on average.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Keeps `registry` up to date until `stop` is cancelled. Its revision never decreases.
///
/// # Errors
/// When the registry is unreadable: damaged, or in a mode that only a newer release knows; or when a generation needs a
/// newer version of the fold. The process must stop then, since it may not know which generation it should fold, or how.
pub async fn watch_registry(
    store: Arc<dyn Store>,
    registry: watch::Sender<GenerationRegistry>,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match store.registry().await {
            Ok(Some(read)) => {
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
                tracing::error!("the generation registry is lost, switches are not followed");
            }
            Err(error @ StoreError::Corrupt(_)) => return Err(error),
            Err(error) => tracing::warn!(%error, "failed to read the generation registry"),
        }
    }
    Ok(())
}
