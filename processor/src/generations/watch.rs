//! Watches the roster for this process.

use std::sync::Arc;
use std::time::Duration;

use schemas::Roster;
use storage::store::{Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often it is looked at: a flip is followed after half of this, on the average.
const INTERVAL: Duration = Duration::from_millis(500);

/// Keeps `roster` up to date until told to stop. It never goes back.
pub(crate) async fn watch_roster(
    store: Arc<dyn Store>,
    roster: watch::Sender<Roster>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match store.roster().await {
            Ok(Some(read)) => {
                // Of two reads the later may see the older.
                roster.send_if_modified(|known| {
                    let newer = read.revision > known.revision;
                    if newer {
                        tracing::info!(
                            revision = read.revision,
                            term = read.term,
                            generation = read.current.generation.0,
                            "the roster of generations has changed",
                        );
                        *known = read;
                    }
                    newer
                });
            }
            Ok(None) => {}
            Err(error @ StoreError::Corrupt(_)) => {
                tracing::error!(%error, "the roster of generations cannot be read: no flip is followed");
            }
            Err(error) => tracing::warn!(%error, "the roster of generations cannot be read now"),
        }
    }
}
