//! Walks the chain: asks one tier after the other for the budgets that still have no answer, and puts what it finds
//! into memory. One walk a budget at a time, whoever asks and however many; it goes on when they go away.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::IntCounter;
use schemas::BudgetId;
use storage::cache::Cache;
use storage::definitions::Definitions;
use storage::store::Store;
use tokio::time::Instant;

use crate::answer::Provenance;
use crate::breaker::Admission;
use crate::chain::{Held, Micros, Tier, Verdict, is_worth_asking};
use crate::config::ApiConfig;
use crate::metrics::ApiMetrics;
use crate::single_flight::{Lead, SingleFlight};
use crate::tiers::guard::Guard;
use crate::tiers::memory::{Memory, Slot};
use crate::tiers::{Found, TierError, recount, redis, summary};

/// Who answered: memory holds the answer now. `None`: nobody.
pub type Answered = Option<Tier>;

/// The chain.
pub struct Walker {
    memory: Arc<Memory>,
    definitions: Arc<dyn Definitions>,
    cache: Arc<dyn Cache>,
    store: Arc<dyn Store>,
    flights: SingleFlight<BudgetId, Answered>,
    redis: Guarded,
    summary: Guarded,
    recount: Guarded,
}

struct Guarded {
    guard: Guard,
    hits: IntCounter,
    misses: IntCounter,
    behind: IntCounter,
}

impl Walker {
    /// A chain over these places.
    pub fn new(
        config: &ApiConfig,
        memory: Arc<Memory>,
        definitions: Arc<dyn Definitions>,
        cache: Arc<dyn Cache>,
        store: Arc<dyn Store>,
        metrics: &ApiMetrics,
    ) -> Self {
        let guarded = |tier: Tier, deadline| {
            let count = |outcome| metrics.reads.with_label_values(&[tier.name(), outcome]);
            Guarded {
                guard: Guard::new(tier.name(), deadline, config.breaker, metrics),
                hits: count("hit"),
                misses: count("miss"),
                behind: count("behind"),
            }
        };
        Self {
            memory,
            definitions,
            cache,
            store,
            flights: SingleFlight::new(),
            redis: guarded(Tier::Redis, config.redis_deadline),
            summary: guarded(Tier::Summary, config.summary_deadline),
            recount: guarded(Tier::Recount, config.recount_deadline),
        }
    }

    /// Whether any tier answered when it was last asked.
    pub fn any_tier_works(&self) -> bool {
        Tier::ALL.iter().any(|tier| self.guarded(*tier).guard.works())
    }

    /// Walks for each of the slots, or joins walks that are under way, if they began after `not_before`.
    /// Answers in the slots' order.
    pub async fn walk(
        self: &Arc<Self>,
        slots: &[Arc<Slot>],
        not_before: Option<Instant>,
    ) -> Vec<Answered> {
        let mut answered = vec![None; slots.len()];
        let mut waiting: Vec<usize> = (0..slots.len()).collect();
        // At most twice: a walk that is found under way the second time began after `not_before`.
        while !waiting.is_empty() {
            let wanted: Vec<&Arc<Slot>> = waiting.iter().filter_map(|at| slots.get(*at)).collect();
            let keys: Vec<BudgetId> = wanted.iter().map(|slot| slot.id.clone()).collect();
            let (lead, seats) = self.flights.board(&keys, not_before);
            if !lead.is_empty() {
                let led = wanted.into_iter().filter(|slot| lead.leads(&slot.id)).cloned().collect();
                tokio::spawn(Arc::clone(self).lead(led, lead));
            }
            let mut again = Vec::new();
            for (at, seat) in waiting.into_iter().zip(seats) {
                let recent_enough = seat.recent_enough;
                let landed = seat.landed().await.flatten();
                match answered.get_mut(at) {
                    Some(answer) if recent_enough => *answer = landed,
                    _ => again.push(at),
                }
            }
            waiting = again;
        }
        answered
    }

    async fn lead(self: Arc<Self>, mut slots: Vec<Arc<Slot>>, mut lead: Lead<BudgetId, Answered>) {
        let learned = self.learn_what_is_committed(&slots).await;
        for tier in Tier::ALL {
            let (asked, mut unanswered): (Vec<_>, Vec<_>) =
                slots.into_iter().partition(|slot| is_worth_asking(tier, self.memory.held(slot)));
            if !asked.is_empty() {
                for (slot, good) in asked.iter().zip(self.ask_once(tier, &asked, &learned).await) {
                    if good {
                        lead.land(&slot.id, Some(tier));
                    } else {
                        unanswered.push(Arc::clone(slot));
                    }
                }
            }
            slots = unanswered;
        }
        for slot in slots {
            lead.land(&slot.id, None);
        }
    }

    /// A process that remembers nothing would take whatever Redis has. That follows the commits, and the process before
    /// this one may have shown readers more; so what is committed is put into memory first, as the least to show.
    /// Answers for which budgets that was tried, and whether memory holds it.
    async fn learn_what_is_committed(
        self: &Arc<Self>,
        slots: &[Arc<Slot>],
    ) -> HashMap<BudgetId, bool> {
        let cold = slots.iter().filter(|slot| self.memory.held(slot) == Held::Nothing);
        let cold: Vec<_> = cold.cloned().collect();
        if cold.is_empty() {
            return HashMap::new();
        }
        let good = self.ask(Tier::Summary, &cold).await;
        cold.iter().map(|slot| slot.id.clone()).zip(good).collect()
    }

    /// Asks one tier, but not again for what was learned from it a moment ago.
    async fn ask_once(
        self: &Arc<Self>,
        tier: Tier,
        slots: &[Arc<Slot>],
        learned: &HashMap<BudgetId, bool>,
    ) -> Vec<bool> {
        let known = |slot: &Arc<Slot>| match learned.get(&slot.id) {
            Some(true) if tier == Tier::Summary => self.memory.fresh(slot).map(|_| true),
            Some(false) if tier == Tier::Summary => Some(false),
            _ => None,
        };
        let known: Vec<Option<bool>> = slots.iter().map(known).collect();
        let open = slots.iter().zip(&known).filter(|(_, known)| known.is_none());
        let open: Vec<_> = open.map(|(slot, _)| Arc::clone(slot)).collect();
        let mut asked = match open.as_slice() {
            [] => Vec::new(),
            open => self.ask(tier, open).await,
        }
        .into_iter();
        known.into_iter().map(|known| known.or_else(|| asked.next()).unwrap_or(false)).collect()
    }

    /// Asks one tier; says for which of the slots memory now holds its answer.
    async fn ask(self: &Arc<Self>, tier: Tier, slots: &[Arc<Slot>]) -> Vec<bool> {
        match self.guarded(tier).guard.admit() {
            Admission::Pass => self.read(tier, slots).await,
            Admission::Refused => vec![false; slots.len()],
            Admission::Probe => {
                // A trial may take the whole deadline. Whoever can be answered otherwise does not wait for it.
                let anyone_without =
                    slots.iter().any(|slot| self.memory.held(slot) == Held::Nothing);
                if anyone_without {
                    return self.read(tier, slots).await;
                }
                let (chain, slots) = (Arc::clone(self), slots.to_vec());
                let nobody = vec![false; slots.len()];
                tokio::spawn(async move { chain.read(tier, &slots).await });
                nobody
            }
        }
    }

    async fn read(&self, tier: Tier, slots: &[Arc<Slot>]) -> Vec<bool> {
        let asked = self.memory.now();
        let budgets: Vec<BudgetId> = slots.iter().map(|slot| slot.id.clone()).collect();
        match self.guarded(tier).guard.run(self.fetch(tier, &budgets)).await {
            Ok(found) => slots
                .iter()
                .zip(found)
                .map(|(slot, found)| self.take(tier, slot, found, asked))
                .collect(),
            Err(_) => vec![false; slots.len()],
        }
    }

    async fn fetch(&self, tier: Tier, budgets: &[BudgetId]) -> Result<Found, TierError> {
        match tier {
            Tier::Redis => redis::read(&self.cache, budgets).await,
            Tier::Summary => summary::read(&self.store, budgets).await,
            Tier::Recount => recount::read(&self.store, budgets).await,
        }
    }

    /// Puts what was found for a slot into memory; whether memory holds it now.
    fn take(
        &self,
        tier: Tier,
        slot: &Slot,
        found: Option<schemas::CombinedTotals>,
        asked: Micros,
    ) -> bool {
        let counts = self.guarded(tier);
        let catalog = self.definitions.catalog();
        let (Some(found), Some(budget)) = (found, catalog.get(slot.id.as_str())) else {
            counts.misses.inc();
            return false;
        };
        let provenance = match tier {
            Tier::Redis | Tier::Summary => Provenance::Committed,
            Tier::Recount => Provenance::Recounted,
        };
        match slot.offer(budget, found, provenance, asked) {
            Ok(Verdict::Forward | Verdict::Same) => {
                counts.hits.inc();
                true
            }
            Ok(Verdict::Behind) => {
                counts.behind.inc();
                false
            }
            Err(fault) => {
                counts.misses.inc();
                tracing::warn!(budget = %slot.id, tier = tier.name(), %fault, "not an answer");
                false
            }
        }
    }

    fn guarded(&self, tier: Tier) -> &Guarded {
        match tier {
            Tier::Redis => &self.redis,
            Tier::Summary => &self.summary,
            Tier::Recount => &self.recount,
        }
    }
}
