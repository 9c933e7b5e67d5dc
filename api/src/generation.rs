//! Which generation answers. Every read of the store begins with that, so it is asked once a second, by one for all.
//! Forward only, term by term, as readers have been shown what the later one counts.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use schemas::{PartitionCount, Roster, Term};
use storage::store::{Store, StoreError};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long an answer is trusted. The generation before stays where it is, so that nothing is lost by a moment more; one of
/// a log before, too, but nothing comes to it any more.
const TRUSTED: Duration = Duration::from_secs(1);

/// The generation that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Current {
    /// Which, and in which term.
    pub term: Term,
    /// The partition count of its log.
    pub partitions: PartitionCount,
}

impl Current {
    fn of(roster: &Roster) -> Self {
        Self { term: roster.term(), partitions: roster.current.log.partitions }
    }
}

/// The current generation, as the store said lately.
pub struct CurrentGeneration {
    store: Arc<dyn Store>,
    known: RwLock<Option<Known>>,
    /// Held by the one who asks the store.
    asking: Mutex<()>,
}

#[derive(Clone, Copy)]
struct Known {
    current: Current,
    asked: Instant,
}

impl CurrentGeneration {
    /// Of this store, which is not asked yet.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, known: RwLock::default(), asking: Mutex::default() }
    }

    /// The current generation; `None` before the first.
    ///
    /// # Errors
    /// As the store says.
    pub async fn get(&self) -> Result<Option<Current>, StoreError> {
        let _asking = match self.known() {
            Some(known) if known.asked.elapsed() < TRUSTED => return Ok(Some(known.current)),
            Some(known) => match self.asking.try_lock() {
                Ok(asking) => asking,
                // Somebody asks already; what was known a moment ago will do meanwhile.
                Err(_) => return Ok(Some(known.current)),
            },
            None => {
                let asking = self.asking.lock().await;
                if let Some(known) = self.known() {
                    return Ok(Some(known.current));
                }
                asking
            }
        };
        let asked = Instant::now();
        let read = match self.store.roster().await {
            Ok(roster) => roster.as_ref().map(Current::of),
            // The rows of the one that is known may be read all the same.
            Err(error) if self.known().is_some() => {
                tracing::warn!(%error, "which generation answers cannot be read: the one that is known does");
                None
            }
            Err(error) => return Err(error),
        };
        // Of two reads the later may see the older.
        let known = self.known().map(|known| known.current);
        let newest = known.into_iter().chain(read).max_by_key(|current| current.term);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        *known = newest.map(|current| Known { current, asked });
        Ok(newest)
    }

    fn known(&self) -> Option<Known> {
        *self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}
