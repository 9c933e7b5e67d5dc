//! Queries one tier for several budgets at once, and offers the result to memory. The tier's guard bounds each query.
//!
//! The order of the tiers is not known here: see `tier_chain`.

use std::sync::Arc;

use jiff::Timestamp;
use prometheus::IntCounter;
use schemas::{BudgetId, CombinedTotals};
use storage::cache::Cache;
use storage::control::BudgetDefinitions;
use storage::store::Store;

use crate::active_generation::ActiveGenerationCache;
use crate::answer::Provenance;
use crate::breaker::Admission;
use crate::config::ApiConfig;
use crate::metrics::ApiMetrics;
use crate::read_policy::{MemoryState, Micros, OfferVerdict, Tier};
use crate::tiers::guard::Guard;
use crate::tiers::memory::{Memory, Slot};
use crate::tiers::{TierAnswers, TierError, recount, redis, summary};

/// The tiers behind memory.
pub struct Tiers {
    memory: Arc<Memory>,
    definitions: Arc<dyn BudgetDefinitions>,
    cache: Arc<dyn Cache>,
    store: Arc<dyn Store>,
    generation: Arc<ActiveGenerationCache>,
    redis: GuardedTier,
    summary: GuardedTier,
    recount: GuardedTier,
}

struct GuardedTier {
    guard: Guard,
    hits: IntCounter,
    misses: IntCounter,
    behind: IntCounter,
}

impl Tiers {
    /// Creates the tiers over their backends.
    pub fn new(
        config: &ApiConfig,
        memory: Arc<Memory>,
        definitions: Arc<dyn BudgetDefinitions>,
        cache: Arc<dyn Cache>,
        store: Arc<dyn Store>,
        generation: Arc<ActiveGenerationCache>,
        metrics: &ApiMetrics,
    ) -> Self {
        let guarded = |tier: Tier, deadline| {
            let count = |outcome| metrics.reads.with_label_values(&[tier.name(), outcome]);
            GuardedTier {
                guard: Guard::new(tier.name(), deadline, config.breaker(), metrics),
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
            generation,
            redis: guarded(Tier::Redis, config.redis_deadline),
            summary: guarded(Tier::Summary, config.summary_deadline),
            recount: guarded(Tier::Recount, config.recount_deadline),
        }
    }

    /// Returns whether the latest read of any tier succeeded.
    pub fn any_healthy(&self) -> bool {
        Tier::ALL.iter().any(|tier| self.guarded(*tier).guard.is_healthy())
    }

    /// Queries one tier; returns for each slot whether memory now holds that tier's answer.
    pub async fn query(self: &Arc<Self>, tier: Tier, slots: &[Arc<Slot>]) -> Vec<bool> {
        let admission = self.guarded(tier).guard.admit();
        // A probe may take the whole deadline. Only slots without any answer wait for it.
        let any_cold = || slots.iter().any(|slot| self.memory.state(slot) == MemoryState::Empty);
        let unanswered = vec![false; slots.len()];
        match admission {
            Admission::Refused => unanswered,
            Admission::Probe if !any_cold() => {
                let (tiers, slots) = (Arc::clone(self), slots.to_vec());
                tokio::spawn(async move { tiers.read(admission, tier, &slots).await });
                unanswered
            }
            Admission::Pass | Admission::Probe => {
                let verdicts = self.read(admission, tier, slots).await;
                verdicts
                    .into_iter()
                    .map(|verdict| verdict.is_some_and(OfferVerdict::is_in_memory))
                    .collect()
            }
        }
    }

    /// Queries one tier; returns whether it answered for all slots and memory includes all of its answers.
    pub async fn query_to_include(&self, tier: Tier, slots: &[Arc<Slot>]) -> bool {
        match self.guarded(tier).guard.admit() {
            Admission::Refused => false,
            admission => {
                let verdicts = self.read(admission, tier, slots).await;
                verdicts.into_iter().all(|verdict| verdict.is_some_and(OfferVerdict::is_included))
            }
        }
    }

    /// Reads a tier and offers its answers to memory; `None` for a slot without an answer.
    async fn read(
        &self,
        admission: Admission,
        tier: Tier,
        slots: &[Arc<Slot>],
    ) -> Vec<Option<OfferVerdict>> {
        let queried_at = self.memory.now();
        let budgets: Vec<BudgetId> = slots.iter().map(|slot| slot.id.clone()).collect();
        match self.guarded(tier).guard.run(admission, self.read_backend(tier, &budgets)).await {
            Ok(answers) => slots
                .iter()
                .zip(answers)
                .map(|(slot, totals)| self.offer(tier, slot, totals, queried_at))
                .collect(),
            Err(_) => vec![None; slots.len()],
        }
    }

    async fn read_backend(
        &self,
        tier: Tier,
        budgets: &[BudgetId],
    ) -> Result<TierAnswers, TierError> {
        match tier {
            Tier::Redis => redis::read(&self.cache, budgets).await,
            Tier::Summary => summary::read(&self.store, &self.generation, budgets).await,
            Tier::Recount => recount::read(&self.store, &self.generation, budgets).await,
        }
    }

    /// Offers a slot the totals that a tier returned for it.
    fn offer(
        &self,
        tier: Tier,
        slot: &Slot,
        totals: Option<CombinedTotals>,
        queried_at: Micros,
    ) -> Option<OfferVerdict> {
        let counters = self.guarded(tier);
        let catalog = self.definitions.catalog();
        let (Some(totals), Some(budget)) = (totals, catalog.get(slot.id.as_str())) else {
            counters.misses.inc();
            return None;
        };
        let provenance = match tier {
            Tier::Redis | Tier::Summary => Provenance::Committed,
            Tier::Recount => Provenance::Recounted,
        };
        match slot.offer(budget, totals, provenance, queried_at) {
            Ok(verdict) => {
                // The definition may have changed after `catalog` was read: `Memory::redefine` only updates answers
                // that exist, and this one did not exist yet.
                let catalog = self.definitions.catalog();
                if let Some(budget) = catalog.get(slot.id.as_str()) {
                    slot.redefine(budget, Timestamp::now());
                }
                let counter =
                    if verdict.is_in_memory() { &counters.hits } else { &counters.behind };
                counter.inc();
                Some(verdict)
            }
            Err(error) => {
                counters.misses.inc();
                tracing::warn!(budget = %slot.id, tier = tier.name(), %error, "tier returned invalid totals");
                None
            }
        }
    }

    fn guarded(&self, tier: Tier) -> &GuardedTier {
        match tier {
            Tier::Redis => &self.redis,
            Tier::Summary => &self.summary,
            Tier::Recount => &self.recount,
        }
    }
}
