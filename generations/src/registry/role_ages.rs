//! How long generations have been building, or retired and not deleted. Pure: the caller passes the time.

use std::time::Duration;

use schemas::{Generation, GenerationRegistry};
use tokio::time::Instant;

/// Age of the oldest generation in each role that is to end; zero without one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RoleAges {
    /// Being built.
    pub building: Duration,
    /// Retired, with data that are not deleted.
    pub retired: Duration,
}

/// Since when the oldest retired generation is known here: the registry does not say when it was retired.
#[derive(Debug, Default)]
pub(super) struct RetiredSince(Option<(Generation, Instant)>);

impl RetiredSince {
    /// Returns the ages by a registry.
    pub fn ages(&mut self, registry: &GenerationRegistry, now_ms: u64, now: Instant) -> RoleAges {
        let begun_at_ms = registry.building.as_ref().map_or(now_ms, |it| it.begun_at_ms);
        let oldest = registry.retired.iter().map(|record| record.generation).min();
        self.0 = oldest.map(|oldest| match self.0 {
            Some((known, since)) if known == oldest => (known, since),
            _ => (oldest, now),
        });
        RoleAges {
            building: Duration::from_millis(now_ms.saturating_sub(begun_at_ms)),
            retired: self.0.map_or(Duration::ZERO, |(_, since)| now.duration_since(since)),
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::{LogRef, PartitionCount};

    use super::super::{begin, cancel, remove_retired};
    use super::*;

    const BEGUN_AT_MS: u64 = 1_000_000;

    #[test]
    fn a_build_and_a_retired_generation_grow_older_until_they_end() {
        let log = LogRef::first("submissions", PartitionCount::new(3).unwrap());
        let idle = GenerationRegistry::first(log);
        let building = begin(&idle, true, BEGUN_AT_MS).unwrap();
        let retired = cancel(&building, Generation(2)).unwrap();
        let other = begin(&retired, true, BEGUN_AT_MS).unwrap();
        let both = cancel(&other, Generation(3)).unwrap();
        let second = remove_retired(&both, Generation(2));
        let (mut since, began) = (RetiredSince::default(), Instant::now());
        let mut ages = |registry: &GenerationRegistry, seconds: u64| {
            let now_ms = BEGUN_AT_MS + seconds * 1_000;
            let ages = since.ages(registry, now_ms, began + Duration::from_secs(seconds));
            (ages.building.as_secs(), ages.retired.as_secs())
        };
        assert_eq!(ages(&idle, 10), (0, 0));
        assert_eq!(ages(&building, 30), (30, 0));
        assert_eq!(ages(&retired, 40), (0, 0));
        assert_eq!(ages(&other, 90), (90, 50));
        assert_eq!(ages(&both, 100), (0, 60));
        assert_eq!(ages(&second, 110), (0, 0));
        assert_eq!(ages(&second, 120), (0, 10));
        assert_eq!(ages(&remove_retired(&second, Generation(3)), 130), (0, 0));
    }
}
