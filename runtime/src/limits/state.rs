//! What a key has spent, by algorithm. `now_ms` may go back (another Redis server has another clock): a state then
//! stays where it is, so that nothing is forgiven.

use super::quota::{Algorithm, Quota};

/// Slots of a sliding window. One more is kept, for the part of the window that the oldest slot covers.
const SLOTS: u64 = 10;
const KEPT_SLOTS: usize = SLOTS as usize + 1;

/// What a key has spent of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Of a token bucket or leaky bucket: spent units times the window, and the time of that.
    Bucket {
        /// Units times milliseconds of the window, so that the refill of one millisecond is an integer.
        spent_unit_ms: u64,
        /// When this was the case.
        at_ms: u64,
    },
    /// Of a fixed window.
    Fixed {
        /// The window's first millisecond.
        start_ms: u64,
        /// Units spent in it.
        count: u64,
    },
    /// Of a sliding window.
    Sliding {
        /// Number of the newest slot.
        newest: u64,
        /// Units spent in the newest slot, the one before, and so on.
        counts: [u32; KEPT_SLOTS],
    },
}

impl State {
    /// Returns the state of a key that has spent nothing.
    pub fn fresh(quota: &Quota, now_ms: u64) -> Self {
        match quota.algorithm() {
            Algorithm::TokenBucket | Algorithm::LeakyBucket => {
                Self::Bucket { spent_unit_ms: 0, at_ms: now_ms }
            }
            Algorithm::FixedWindow => {
                Self::Fixed { start_ms: now_ms - now_ms % quota.window_ms(), count: 0 }
            }
            Algorithm::SlidingWindow => {
                Self::Sliding { newest: now_ms / slot_ms(quota), counts: [0; KEPT_SLOTS] }
            }
        }
    }

    /// Gives back what the time since the last change gives back.
    pub(super) fn advance(&mut self, quota: &Quota, now_ms: u64) {
        match self {
            Self::Bucket { spent_unit_ms, at_ms } => {
                let elapsed_ms = now_ms.saturating_sub(*at_ms);
                let returned = elapsed_ms.saturating_mul(quota.limit().into());
                *spent_unit_ms = spent_unit_ms.saturating_sub(returned);
                *at_ms = now_ms.max(*at_ms);
            }
            Self::Fixed { start_ms, count } => {
                let current_ms = now_ms - now_ms % quota.window_ms();
                if current_ms > *start_ms {
                    (*start_ms, *count) = (current_ms, 0);
                }
            }
            Self::Sliding { newest, counts } => {
                let current = now_ms / slot_ms(quota);
                let passed = current.saturating_sub(*newest);
                if passed > 0 {
                    let passed = usize::try_from(passed).unwrap_or(KEPT_SLOTS).min(KEPT_SLOTS);
                    counts.rotate_right(passed);
                    counts.iter_mut().take(passed).for_each(|count| *count = 0);
                    *newest = current;
                }
            }
        }
    }

    /// Returns the time until `cost` units are within the quota, if they ever are; 0 if they are now.
    pub(super) fn wait_ms(&self, quota: &Quota, now_ms: u64, cost: u32) -> u64 {
        let (capacity, cost) = (quota.capacity(), u64::from(cost));
        match self {
            Self::Bucket { spent_unit_ms, at_ms } => {
                let wanted = spent_unit_ms + cost * quota.window_ms();
                let missing = wanted.saturating_sub(capacity * quota.window_ms());
                if missing == 0 {
                    return 0;
                }
                at_ms.saturating_sub(now_ms) + missing.div_ceil(quota.limit().into())
            }
            Self::Fixed { count, .. } if count + cost <= capacity => 0,
            Self::Fixed { start_ms, .. } => (start_ms + quota.window_ms()).saturating_sub(now_ms),
            Self::Sliding { newest, counts } => {
                let mut spent: u64 = counts.iter().map(|count| u64::from(*count)).sum();
                if spent + cost <= capacity {
                    return 0;
                }
                // The oldest slot leaves first.
                for (passed, count) in (1_u64..).zip(counts.iter().rev()) {
                    spent -= u64::from(*count);
                    if spent + cost <= capacity {
                        return ((*newest + passed) * slot_ms(quota)).saturating_sub(now_ms);
                    }
                }
                // Not reached for a cost within the capacity: nothing is spent once all slots have left.
                quota.window_ms()
            }
        }
    }

    /// Adds units that are within the quota.
    pub fn charge(&mut self, quota: &Quota, cost: u32) {
        match self {
            Self::Bucket { spent_unit_ms, .. } => {
                *spent_unit_ms += u64::from(cost) * quota.window_ms();
            }
            Self::Fixed { count, .. } => *count += u64::from(cost),
            Self::Sliding { counts: [newest, ..], .. } => *newest = newest.saturating_add(cost),
        }
    }

    /// Returns the whole units that remain.
    pub(super) fn remaining(&self, quota: &Quota) -> u64 {
        match self {
            Self::Bucket { spent_unit_ms, .. } => {
                let left = (quota.capacity() * quota.window_ms()).saturating_sub(*spent_unit_ms);
                left / quota.window_ms()
            }
            Self::Fixed { count, .. } => quota.capacity().saturating_sub(*count),
            Self::Sliding { counts, .. } => {
                let spent: u64 = counts.iter().map(|count| u64::from(*count)).sum();
                quota.capacity().saturating_sub(spent)
            }
        }
    }

    /// Returns the time until nothing is spent. The state can be forgotten then.
    pub(super) fn reset_ms(&self, quota: &Quota, now_ms: u64) -> u64 {
        match self {
            Self::Bucket { spent_unit_ms: 0, .. } | Self::Fixed { count: 0, .. } => 0,
            Self::Bucket { spent_unit_ms, at_ms } => {
                at_ms.saturating_sub(now_ms) + spent_unit_ms.div_ceil(quota.limit().into())
            }
            Self::Fixed { start_ms, .. } => (start_ms + quota.window_ms()).saturating_sub(now_ms),
            Self::Sliding { newest, counts } => {
                let Some(age) = counts.iter().position(|count| *count > 0) else { return 0 };
                let empty = *newest - age as u64 + KEPT_SLOTS as u64;
                (empty * slot_ms(quota)).saturating_sub(now_ms)
            }
        }
    }
}

/// Returns the length of a slot: `SLOTS` of them are at least the window.
fn slot_ms(quota: &Quota) -> u64 {
    quota.window_ms().div_ceil(SLOTS)
}
