//! Counters in the memory of this process, bounded however many clients there are.
//!
//! A counter is forgotten once all its units are back. If there is no room for a new one, its key shares a counter with
//! others of the same hash until all units of that one are back: a flood of new keys makes limits stricter for new
//! clients, and never gives anyone a second quota.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::counters::{Charge, CountersUnavailable, SharedCounters};
use super::policy::Policy;
use super::quota::{Quota, QuotaDecision, QuotaStatus};
use super::state::State;
use super::subject::SubjectKey;

/// Number of locks. A bit mask names those of a request.
const SHARDS: u64 = 64;
/// Default maximum number of counters, about 150 bytes each.
const MAX_COUNTERS: usize = 200_000;
/// Counters of each policy and shard that keys without room share.
const SHARED_COUNTERS: u64 = 64;
/// Minimum time between two searches of one shard for counters to forget.
const SWEEP_INTERVAL_MS: u64 = 1000;

/// Counters in memory.
#[derive(Debug)]
pub struct LocalCounters {
    shards: Box<[Mutex<Shard>]>,
    max_counters_per_shard: usize,
    hasher: RandomState,
    started: Instant,
}

#[derive(Debug, Default)]
struct Shard {
    counters: HashMap<CounterKey, Counter>,
    shared: HashMap<(Arc<str>, u64), Counter>,
    next_sweep_ms: u64,
}

/// The policy's name, and whom the counter is for.
type CounterKey = (Arc<str>, SubjectKey);

#[derive(Debug, Clone)]
struct Counter {
    state: State,
    /// When all units are back.
    reset_at_ms: u64,
}

/// The counter of a charge, advanced but not charged.
struct Decided {
    hash: u64,
    is_shared: bool,
    state: State,
    decision: QuotaDecision,
}

impl Default for LocalCounters {
    fn default() -> Self {
        Self::new(MAX_COUNTERS)
    }
}

impl LocalCounters {
    /// Creates counters for at most about so many keys.
    pub fn new(max_counters: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            max_counters_per_shard: max_counters.div_ceil(SHARDS as usize),
            hasher: RandomState::new(),
            started: Instant::now(),
        }
    }

    /// Charges all counters if the request is within all quotas, else none.
    pub fn charge(&self, charges: &[Charge]) -> Vec<QuotaStatus> {
        self.charge_at(charges, self.now_ms())
    }

    /// As [`charge`](Self::charge), at a time in milliseconds since any fixed point.
    pub fn charge_at(&self, charges: &[Charge], now_ms: u64) -> Vec<QuotaStatus> {
        let hash = |charge: &Charge| self.hasher.hash_one((&charge.policy.name, &charge.subject));
        let hashes: Vec<u64> = charges.iter().map(hash).collect();
        let mask = hashes.iter().fold(0_u64, |mask, hash| mask | (1 << (hash % SHARDS)));
        // Always in the same order, so that two requests never wait for each other.
        let mut locked: Vec<MutexGuard<'_, Shard>> = (self.shards.iter().enumerate())
            .filter(|(index, _)| mask & (1 << index) != 0)
            .map(|(_, shard)| shard.lock())
            .collect();
        let place = |hash: u64| (mask & ((1 << (hash % SHARDS)) - 1)).count_ones() as usize;

        let mut decided: Vec<Decided> = Vec::with_capacity(charges.len());
        for (charge, hash) in charges.iter().zip(hashes) {
            let Some(shard) = locked.get_mut(place(hash)) else { continue };
            decided.push(shard.decide(charge, hash, now_ms, self.max_counters_per_shard));
        }
        let within_all = decided.iter().all(|decided| decided.decision == QuotaDecision::Allowed);
        let statuses = charges.iter().zip(decided).map(|(charge, mut decided)| {
            if within_all && charge.cost > 0 {
                decided.state.charge(&charge.quota, charge.cost);
                if let Some(shard) = locked.get_mut(place(decided.hash)) {
                    shard.store(charge, &decided, now_ms);
                }
            }
            charge.quota.status(&decided.state, now_ms, decided.decision)
        });
        statuses.collect()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the number of counters.
    pub fn len(&self) -> usize {
        let lock = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.counters.len() + shard.shared.len()
        };
        self.shards.iter().map(lock).sum()
    }

    /// Whether there are no counters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Shard {
    fn decide(&mut self, charge: &Charge, hash: u64, now_ms: u64, max_counters: usize) -> Decided {
        let Charge { policy, quota, subject, cost } = charge;
        let own = self.counters.get(&(Arc::clone(&policy.name), subject.clone()));
        let (is_shared, known) = match own.map(|counter| counter.state) {
            Some(state) => (false, Some(state)),
            // What the key has spent there is not forgiven by room that came free meanwhile.
            None => match self.active_shared(policy, hash, now_ms) {
                Some(state) => (true, Some(state)),
                None => (self.is_full(now_ms, max_counters), None),
            },
        };
        let mut state = known.unwrap_or_else(|| State::fresh(quota, now_ms));
        let decision = quota.decide(&mut state, now_ms, *cost);
        Decided { hash, is_shared, state, decision }
    }

    /// Returns the shared counter of a key's hash, if anything of it is spent.
    fn active_shared(&self, policy: &Policy, hash: u64, now_ms: u64) -> Option<State> {
        if self.shared.is_empty() {
            return None;
        }
        let counter = self.shared.get(&shared_key(policy, hash))?;
        (counter.reset_at_ms > now_ms).then_some(counter.state)
    }

    fn store(&mut self, charge: &Charge, decided: &Decided, now_ms: u64) {
        let counter = Counter::of(&decided.state, &charge.quota, now_ms);
        if decided.is_shared {
            self.shared.insert(shared_key(&charge.policy, decided.hash), counter);
        } else {
            let own = (Arc::clone(&charge.policy.name), charge.subject.clone());
            self.counters.insert(own, counter);
        }
    }

    /// Whether there is no room for a new counter, also after forgetting those whose units are all back.
    fn is_full(&mut self, now_ms: u64, max_counters: usize) -> bool {
        if self.counters.len() < max_counters {
            return false;
        }
        if now_ms >= self.next_sweep_ms {
            self.next_sweep_ms = now_ms + SWEEP_INTERVAL_MS;
            self.counters.retain(|_, counter| counter.reset_at_ms > now_ms);
            self.shared.retain(|_, counter| counter.reset_at_ms > now_ms);
        }
        self.counters.len() >= max_counters
    }
}

fn shared_key(policy: &Policy, hash: u64) -> (Arc<str>, u64) {
    (Arc::clone(&policy.name), hash / SHARDS % SHARED_COUNTERS)
}

impl Counter {
    fn of(state: &State, quota: &Quota, now_ms: u64) -> Self {
        let status = quota.status(state, now_ms, QuotaDecision::Allowed);
        Self { state: *state, reset_at_ms: now_ms + status.reset_ms }
    }
}

#[async_trait]
impl SharedCounters for LocalCounters {
    async fn charge(&self, charges: &[Charge]) -> Result<Vec<QuotaStatus>, CountersUnavailable> {
        Ok(Self::charge(self, charges))
    }
}
