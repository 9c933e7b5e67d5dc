//! Caches which generation is active.
//!
//! Every read of the store starts with the active generation, so the registry is read at most once a second, by one
//! reader for all. The cached term never goes back: readers have already been shown what the later term counts.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use schemas::{Generation, GenerationRegistry, PartitionCount, Term};
use storage::store::{Generations, StoreError};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long the cached generation is used without reading the registry.
///
/// After a switch the previous generation's rows stay in place, so a slightly late switch loses nothing. A previous
/// generation of an older log gets no new records, though.
const CACHE_TTL: Duration = Duration::from_secs(1);

/// The active generation and its log's partition count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServedGeneration {
    /// Generation and registry term.
    pub term: Term,
    /// The partition count of its log.
    pub partitions: PartitionCount,
    /// The number of the next new generation.
    pub next: Generation,
}

impl ServedGeneration {
    fn of(registry: &GenerationRegistry) -> Self {
        Self {
            term: registry.term(),
            partitions: registry.active.log.partitions,
            next: registry.next,
        }
    }
}

/// Reads the active generation from the store, with a cache.
pub struct ActiveGenerationCache {
    store: Arc<dyn Generations>,
    cached: RwLock<Option<CachedGeneration>>,
    /// Held by the task that reads the store.
    reading: Mutex<()>,
}

#[derive(Clone, Copy)]
struct CachedGeneration {
    active: ServedGeneration,
    read_at: Instant,
}

impl ActiveGenerationCache {
    /// Creates an empty cache over `store`.
    pub fn new(store: Arc<dyn Generations>) -> Self {
        Self { store, cached: RwLock::default(), reading: Mutex::default() }
    }

    /// Returns the active generation; `None` before the first.
    ///
    /// # Errors
    /// When the store cannot be read and nothing is cached.
    pub async fn get(&self) -> Result<Option<ServedGeneration>, StoreError> {
        let _reading = match self.cached() {
            Some(cached) if cached.read_at.elapsed() < CACHE_TTL => {
                return Ok(Some(cached.active));
            }
            Some(cached) => match self.reading.try_lock() {
                Ok(reading) => reading,
                // Another task reads the store; the expired entry will do meanwhile.
                Err(_) => return Ok(Some(cached.active)),
            },
            None => {
                let reading = self.reading.lock().await;
                if let Some(cached) = self.cached() {
                    return Ok(Some(cached.active));
                }
                reading
            }
        };
        let read_at = Instant::now();
        let read = match self.store.registry().await {
            Ok(registry) => registry.as_ref().map(ServedGeneration::of),
            // The cached generation's rows may still be readable.
            Err(error) if self.cached().is_some() => {
                tracing::warn!(%error, "failed to read the generation registry, using the cached generation");
                None
            }
            Err(error) => return Err(error),
        };
        // Of two reads, the later may return the older registry.
        let cached = self.cached().map(|cached| cached.active);
        let newest = cached.into_iter().chain(read).max_by_key(|active| active.term);
        let mut cached = self.cached.write();
        *cached = newest.map(|active| CachedGeneration { active, read_at });
        Ok(newest)
    }

    fn cached(&self) -> Option<CachedGeneration> {
        *self.cached.read()
    }
}
