//! Asks one tier for several budgets at once, behind its guard, and puts what it has into memory. Which tier is asked
//! when is not known here.

use std::sync::Arc;

use jiff::Timestamp;
use prometheus::IntCounter;
use schemas::{BudgetId, CombinedTotals};
use storage::cache::Cache;
use storage::definitions::Definitions;
use storage::store::Store;

use crate::answer::Provenance;
use crate::breaker::Admission;
use crate::chain::{Held, Micros, Tier, Verdict};
use crate::config::ApiConfig;
use crate::generation::CurrentGeneration;
use crate::metrics::ApiMetrics;
use crate::tiers::guard::Guard;
use crate::tiers::memory::{Memory, Slot};
use crate::tiers::{Found, TierError, recount, redis, summary};

/// The tiers behind memory.
pub struct Tiers {
    memory: Arc<Memory>,
    definitions: Arc<dyn Definitions>,
    cache: Arc<dyn Cache>,
    store: Arc<dyn Store>,
    generation: Arc<CurrentGeneration>,
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

impl Tiers {
    /// Tiers over these places.
    pub fn new(
        config: &ApiConfig,
        memory: Arc<Memory>,
        definitions: Arc<dyn Definitions>,
        cache: Arc<dyn Cache>,
        store: Arc<dyn Store>,
        generation: Arc<CurrentGeneration>,
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
            generation,
            redis: guarded(Tier::Redis, config.redis_deadline),
            summary: guarded(Tier::Summary, config.summary_deadline),
            recount: guarded(Tier::Recount, config.recount_deadline),
        }
    }

    /// Whether any tier answered when it was last asked.
    pub fn any_works(&self) -> bool {
        Tier::ALL.iter().any(|tier| self.guarded(*tier).guard.works())
    }

    /// Asks one tier; says for which of the slots memory now holds its answer.
    pub async fn ask(self: &Arc<Self>, tier: Tier, slots: &[Arc<Slot>]) -> Vec<bool> {
        let admission = self.guarded(tier).guard.admit();
        // A trial may take the whole deadline. Whoever can be answered otherwise does not wait for it.
        let waits = || slots.iter().any(|slot| self.memory.held(slot) == Held::Nothing);
        let nobody = vec![false; slots.len()];
        match admission {
            Admission::Refused => nobody,
            Admission::Probe if !waits() => {
                let (tiers, slots) = (Arc::clone(self), slots.to_vec());
                tokio::spawn(async move { tiers.read(admission, tier, &slots).await });
                nobody
            }
            Admission::Pass | Admission::Probe => {
                let verdicts = self.read(admission, tier, slots).await;
                verdicts.into_iter().map(|verdict| verdict.is_some_and(Verdict::is_held)).collect()
            }
        }
    }

    /// Asks one tier, and no other will do; says whether it answered for all of the slots, and memory now shows at
    /// least that.
    pub async fn insist(&self, tier: Tier, slots: &[Arc<Slot>]) -> bool {
        match self.guarded(tier).guard.admit() {
            Admission::Refused => false,
            admission => {
                let verdicts = self.read(admission, tier, slots).await;
                verdicts.into_iter().all(|verdict| verdict.is_some_and(Verdict::is_covered))
            }
        }
    }

    /// What came of each of the slots; `None` where nothing was found.
    async fn read(
        &self,
        admission: Admission,
        tier: Tier,
        slots: &[Arc<Slot>],
    ) -> Vec<Option<Verdict>> {
        let asked = self.memory.now();
        let budgets: Vec<BudgetId> = slots.iter().map(|slot| slot.id.clone()).collect();
        match self.guarded(tier).guard.run(admission, self.fetch(tier, &budgets)).await {
            Ok(found) => slots
                .iter()
                .zip(found)
                .map(|(slot, found)| self.take(tier, slot, found, asked))
                .collect(),
            Err(_) => vec![None; slots.len()],
        }
    }

    async fn fetch(&self, tier: Tier, budgets: &[BudgetId]) -> Result<Found, TierError> {
        match tier {
            Tier::Redis => redis::read(&self.cache, budgets).await,
            Tier::Summary => summary::read(&self.store, &self.generation, budgets).await,
            Tier::Recount => recount::read(&self.store, &self.generation, budgets).await,
        }
    }

    /// Offers memory what was found for a slot.
    fn take(
        &self,
        tier: Tier,
        slot: &Slot,
        found: Option<CombinedTotals>,
        asked: Micros,
    ) -> Option<Verdict> {
        let counts = self.guarded(tier);
        let catalog = self.definitions.catalog();
        let (Some(found), Some(budget)) = (found, catalog.get(slot.id.as_str())) else {
            counts.misses.inc();
            return None;
        };
        let provenance = match tier {
            Tier::Redis | Tier::Summary => Provenance::Committed,
            Tier::Recount => Provenance::Recounted,
        };
        match slot.offer(budget, found, provenance, asked) {
            Ok(verdict) => {
                // One that came meanwhile was told to the answers that there were, and this was none yet.
                let catalog = self.definitions.catalog();
                if let Some(budget) = catalog.get(slot.id.as_str()) {
                    slot.redefine(budget, Timestamp::now());
                }
                let count = if verdict.is_held() { &counts.hits } else { &counts.behind };
                count.inc();
                Some(verdict)
            }
            Err(fault) => {
                counts.misses.inc();
                tracing::warn!(budget = %slot.id, tier = tier.name(), %fault, "not an answer");
                None
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
