//! The decision of a rate limit: quota, state and time to "allowed", "later" or "never". Pure integer arithmetic.
//!
//! `schemas/lua/limits.lua` decides the same for Redis, with the same integers, and a test compares both. All products
//! stay below 2^52, which a Lua number represents exactly: [`MAX_UNITS`] and [`MAX_WINDOW_MS`] bound them.

use super::state::State;

/// Maximum limit, and maximum burst, of a quota.
pub const MAX_UNITS: u32 = 10_000_000;
/// Maximum window of a quota: a day.
pub const MAX_WINDOW_MS: u64 = 24 * 60 * 60 * 1000;
/// Minimum window of a quota: a second.
pub const MIN_WINDOW_MS: u64 = 1000;

/// How a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `burst` units at once; they come back evenly, `limit` in each window.
    TokenBucket,
    /// One unit every `window / limit`, and up to `burst` units earlier than that.
    LeakyBucket,
    /// `limit + burst` units in each window of the clock. Two windows meet, so twice as many may come around their
    /// border.
    FixedWindow,
    /// `limit + burst` units in any window. Counted in slots of a tenth of the window, so that a unit comes back up to
    /// a tenth of the window late, never early.
    SlidingWindow,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Self; 4] =
        [Self::TokenBucket, Self::LeakyBucket, Self::FixedWindow, Self::SlidingWindow];

    /// Returns the name in the configuration, and in keys of shared counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TokenBucket => "token-bucket",
            Self::LeakyBucket => "leaky-bucket",
            Self::FixedWindow => "fixed-window",
            Self::SlidingWindow => "sliding-window",
        }
    }
}

/// The numbers of a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    algorithm: Algorithm,
    limit: u32,
    window_ms: u64,
    burst: u32,
}

/// Why numbers are no quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuotaFault {
    /// The limit is out of range.
    #[error("the limit must be from 1 to 10000000")]
    Limit,
    /// The window is out of range.
    #[error("the window must be from 1s to 1d")]
    Window,
    /// The burst is out of range.
    #[error("the burst must be at most 10000000, and at least 1 for a token bucket")]
    Burst,
}

/// Whether a request is within a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaDecision {
    /// The request is within the quota.
    Allowed,
    /// The same request is within the quota after this time, and not before, if nothing else is charged.
    Later {
        /// Milliseconds from now, at least 1.
        after_ms: u64,
    },
    /// The request costs more than the quota ever allows at once.
    Never,
}

/// The outcome for one quota of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Whether the request is within this quota.
    pub decision: QuotaDecision,
    /// Units that remain.
    pub remaining: u64,
    /// Milliseconds until all units are back.
    pub reset_ms: u64,
}

impl Quota {
    /// Creates a quota. Without a burst, a token bucket holds `limit` units, and the others allow none.
    ///
    /// # Errors
    /// If a number is out of range.
    pub fn new(
        algorithm: Algorithm,
        limit: u32,
        window_ms: u64,
        burst: Option<u32>,
    ) -> Result<Self, QuotaFault> {
        let is_bucket = algorithm == Algorithm::TokenBucket;
        let burst = burst.unwrap_or(if is_bucket { limit } else { 0 });
        if !(1..=MAX_UNITS).contains(&limit) {
            return Err(QuotaFault::Limit);
        }
        if !(MIN_WINDOW_MS..=MAX_WINDOW_MS).contains(&window_ms) {
            return Err(QuotaFault::Window);
        }
        if burst > MAX_UNITS || (is_bucket && burst == 0) {
            return Err(QuotaFault::Burst);
        }
        Ok(Self { algorithm, limit, window_ms, burst })
    }

    /// Creates a quota with the algorithm's own burst. Numbers out of range become the nearest in range.
    pub fn per_window(algorithm: Algorithm, limit: u32, window_ms: u64) -> Self {
        let limit = limit.clamp(1, MAX_UNITS);
        let burst = if algorithm == Algorithm::TokenBucket { limit } else { 0 };
        Self { algorithm, limit, window_ms: window_ms.clamp(MIN_WINDOW_MS, MAX_WINDOW_MS), burst }
    }

    /// Returns how the quota counts.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the units of each window.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Returns the length of the window.
    pub fn window_ms(&self) -> u64 {
        self.window_ms
    }

    /// Returns the units beyond the limit that may come in one window.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Returns the units that may come at once when nothing is spent: what one request may cost at most.
    pub fn capacity(&self) -> u64 {
        let (limit, burst) = (u64::from(self.limit), u64::from(self.burst));
        match self.algorithm {
            Algorithm::TokenBucket => burst,
            Algorithm::LeakyBucket => burst + 1,
            Algorithm::FixedWindow | Algorithm::SlidingWindow => limit + burst,
        }
    }

    /// Returns the part of this quota that one of `instances` may grant on its own, rounded up.
    #[must_use]
    pub fn share(&self, instances: u32) -> Self {
        let instances = instances.max(1);
        Self {
            limit: self.limit.div_ceil(instances),
            burst: self.burst.div_ceil(instances),
            ..*self
        }
    }

    /// Decides whether a request is within the quota. Advances the state to `now_ms` and charges nothing.
    pub fn decide(&self, state: &mut State, now_ms: u64, cost: u32) -> QuotaDecision {
        state.advance(self, now_ms);
        if u64::from(cost) > self.capacity() {
            return QuotaDecision::Never;
        }
        match state.wait_ms(self, now_ms, cost) {
            0 => QuotaDecision::Allowed,
            after_ms => QuotaDecision::Later { after_ms },
        }
    }

    /// Returns the outcome of a decision for a state, after or without the charge.
    pub fn status(&self, state: &State, now_ms: u64, decision: QuotaDecision) -> QuotaStatus {
        let remaining = state.remaining(self);
        QuotaStatus { decision, remaining, reset_ms: state.reset_ms(self, now_ms) }
    }
}
