//! Recent refusals, so that a client that goes on sending costs no call to the shared counters.
//!
//! A refusal holds until its wait is over, since only time restores units; this is also true for requests that cost
//! more. The map is bounded: a refusal without room is not remembered and costs a call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::counters::Charge;
use super::quota::{QuotaDecision, QuotaStatus};
use super::subject::SubjectKey;

/// Maximum number of remembered refusals, about 150 bytes each.
const MAX_DENIALS: usize = 50_000;

/// Refusals of the shared counters whose wait is not over.
#[derive(Debug, Default)]
pub(super) struct Denials {
    by_key: Mutex<HashMap<(Arc<str>, SubjectKey), Denial>>,
    /// Number of entries, so that nothing is locked while nobody is refused.
    count: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
struct Denial {
    cost: u32,
    until: Instant,
    reset_at: Instant,
    remaining: u64,
}

impl Denials {
    /// Returns the charges that are refused still, with their outcomes; none if the counters have to be asked.
    pub(super) fn find(&self, charges: &[Charge]) -> (Vec<Charge>, Vec<QuotaStatus>) {
        if self.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let now = Instant::now();
        let denials = self.by_key.lock();
        let refused = charges.iter().filter_map(|charge| {
            let denial = denials.get(&(Arc::clone(&charge.policy.name), charge.subject.clone()))?;
            let holds = denial.until > now && charge.cost >= denial.cost;
            holds.then(|| (charge.clone(), denial.status(now)))
        });
        refused.unzip()
    }

    /// Whether nobody is known to be refused.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Remembers the refusals among the outcomes of a call that began at `asked_at`.
    pub(super) fn remember(&self, charges: &[Charge], statuses: &[QuotaStatus], asked_at: Instant) {
        for (charge, status) in charges.iter().zip(statuses) {
            let QuotaDecision::Later { after_ms } = status.decision else { continue };
            let mut denials = self.by_key.lock();
            if denials.len() >= MAX_DENIALS {
                denials.retain(|_, denial| denial.until > asked_at);
            }
            if denials.len() < MAX_DENIALS {
                let key = (Arc::clone(&charge.policy.name), charge.subject.clone());
                let denial = Denial {
                    cost: charge.cost,
                    until: asked_at + Duration::from_millis(after_ms),
                    reset_at: asked_at + Duration::from_millis(status.reset_ms),
                    remaining: status.remaining,
                };
                denials.insert(key, denial);
            }
            self.count.store(denials.len(), Ordering::Relaxed);
        }
    }
}

impl Denial {
    fn status(self, now: Instant) -> QuotaStatus {
        // Rounded up: the wait is over only after the last part of a millisecond.
        let left_ms =
            |until: Instant| until.saturating_duration_since(now).as_micros().div_ceil(1000) as u64;
        QuotaStatus {
            decision: QuotaDecision::Later { after_ms: left_ms(self.until).max(1) },
            remaining: self.remaining,
            reset_ms: left_ms(self.reset_at),
        }
    }
}
