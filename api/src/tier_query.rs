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
use crate::breaker::BreakerDecision;
use crate::config::ApiConfig;
use crate::metrics::ApiMetrics;
use crate::no_answer::NoAnswer;
use crate::read_limit::ReadLimit;
use crate::read_policy::{MemoryState, Micros, OfferVerdict, Tier};
use crate::tiers::guard::Guard;
use crate::tiers::memory::{Memory, MemoryEntry};
use crate::tiers::recount::Recounts;
use crate::tiers::{TierAnswers, TierError, redis, summary};

/// What querying a tier did for one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryOutcome {
    /// Memory holds the tier's answer.
    InMemory,
    /// The tier has no answer, or an older one than memory.
    Unanswered,
    /// The tier was not queried, to protect the store; no later tier should be queried instead.
    Refused(NoAnswer),
}

/// The tiers behind memory.
pub struct Tiers {
    memory: Arc<Memory>,
    definitions: Arc<dyn BudgetDefinitions>,
    cache: Arc<dyn Cache>,
    store: Arc<dyn Store>,
    generation: Arc<ActiveGenerationCache>,
    redis: GuardedTier,
    summary: GuardedTier,
    summary_limit: ReadLimit,
    recount: GuardedTier,
    recounts: Arc<Recounts>,
}

struct GuardedTier {
    guard: Arc<Guard>,
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
                guard: Arc::new(Guard::new(tier.name(), deadline, config.breaker(), metrics)),
                hits: count("hit"),
                misses: count("miss"),
                behind: count("behind"),
            }
        };
        let recount = guarded(Tier::Recount, config.recount_deadline);
        let recounts = Arc::new(Recounts::new(
            config.recount_max_people,
            Arc::clone(&store),
            Arc::clone(&generation),
            Arc::clone(&memory),
            Arc::clone(&recount.guard),
        ));
        let overloaded = metrics.reads.with_label_values(&[Tier::Summary.name(), "overloaded"]);
        Self {
            memory,
            definitions,
            cache,
            store,
            generation,
            redis: guarded(Tier::Redis, config.redis_deadline),
            summary: guarded(Tier::Summary, config.summary_deadline),
            summary_limit: ReadLimit::new(
                config.max_summary_reads,
                config.summary_deadline,
                overloaded,
            ),
            recount,
            recounts,
        }
    }

    /// Returns whether the latest read of any tier succeeded.
    pub fn any_healthy(&self) -> bool {
        Tier::ALL.iter().any(|tier| match tier {
            Tier::Recount if self.recounts.is_too_large() => false,
            tier => self.guarded(*tier).guard.is_healthy(),
        })
    }

    /// Queries one tier; returns the outcome for each entry.
    pub async fn query(
        self: &Arc<Self>,
        tier: Tier,
        entries: &[Arc<MemoryEntry>],
    ) -> Vec<QueryOutcome> {
        match tier {
            Tier::Redis => self.query_guarded(tier, entries).await,
            // Before the guard: waiting for a turn says nothing about the store.
            Tier::Summary => match self.summary_limit.acquire().await {
                Ok(_permit) => self.query_guarded(tier, entries).await,
                Err(reason) => vec![QueryOutcome::Refused(reason); entries.len()],
            },
            Tier::Recount => self.query_recount(entries).await,
        }
    }

    async fn query_guarded(
        self: &Arc<Self>,
        tier: Tier,
        entries: &[Arc<MemoryEntry>],
    ) -> Vec<QueryOutcome> {
        let decision = self.guarded(tier).guard.admit();
        // A probe may take the whole deadline. Only entries without any answer wait for it.
        let any_cold =
            || entries.iter().any(|entry| self.memory.state(entry) == MemoryState::Empty);
        let unanswered = vec![QueryOutcome::Unanswered; entries.len()];
        match decision {
            BreakerDecision::Refused => unanswered,
            BreakerDecision::Probe if !any_cold() => {
                let (tiers, entries) = (Arc::clone(self), entries.to_vec());
                tokio::spawn(async move { tiers.read(decision, tier, &entries).await });
                unanswered
            }
            BreakerDecision::Pass | BreakerDecision::Probe => {
                self.read(decision, tier, entries).await.into_iter().map(outcome).collect()
            }
        }
    }

    /// Queries a recount, which no budget gets whose results move in steps.
    async fn query_recount(&self, entries: &[Arc<MemoryEntry>]) -> Vec<QueryOutcome> {
        let catalog = self.definitions.catalog();
        // Rows do not say what was shown last.
        let moves_in_steps = |entry: &Arc<MemoryEntry>| {
            let budget = catalog.get(entry.id.as_str());
            budget.is_some_and(|budget| !budget.publish_step().is_one())
        };
        let counted: Vec<_> =
            entries.iter().filter(|entry| !moves_in_steps(entry)).cloned().collect();
        let mut outcomes = match counted.as_slice() {
            [] => Vec::new(),
            counted => self.query_shared_recount(counted).await,
        }
        .into_iter();
        let outcome = |entry| match moves_in_steps(entry) {
            true => QueryOutcome::Refused(NoAnswer::MovesInSteps),
            false => outcomes.next().unwrap_or(QueryOutcome::Unanswered),
        };
        entries.iter().map(outcome).collect()
    }

    /// Queries the recount that runs now, or has just ended, or starts one.
    async fn query_shared_recount(&self, entries: &[Arc<MemoryEntry>]) -> Vec<QueryOutcome> {
        // A probe may take the whole deadline. Only entries without any answer wait for it.
        let any_cold = entries.iter().any(|entry| self.memory.state(entry) == MemoryState::Empty);
        let recount = match self.recounts.latest(any_cold).await {
            Ok(recount) => recount,
            Err(reason @ NoAnswer::TooManyPeople { .. }) => {
                return vec![QueryOutcome::Refused(reason); entries.len()];
            }
            Err(_) => return vec![QueryOutcome::Unanswered; entries.len()],
        };
        entries
            .iter()
            .map(|entry| {
                let totals = recount.totals(&entry.id);
                outcome(self.offer(Tier::Recount, entry, totals, recount.queried_at))
            })
            .collect()
    }

    /// Reads the committed totals; returns for each entry whether memory includes its committed totals now.
    pub async fn query_committed_to_include(&self, entries: &[Arc<MemoryEntry>]) -> Vec<bool> {
        let not_included = || vec![false; entries.len()];
        let Ok(_permit) = self.summary_limit.acquire().await else { return not_included() };
        match self.summary.guard.admit() {
            BreakerDecision::Refused => not_included(),
            decision => self
                .read(decision, Tier::Summary, entries)
                .await
                .into_iter()
                .map(|verdict| verdict.is_some_and(OfferVerdict::is_included))
                .collect(),
        }
    }

    /// Reads Redis or the committed totals and offers the answers to memory; `None` for a entry without an answer.
    async fn read(
        &self,
        decision: BreakerDecision,
        tier: Tier,
        entries: &[Arc<MemoryEntry>],
    ) -> Vec<Option<OfferVerdict>> {
        let queried_at = self.memory.now();
        let budgets: Vec<BudgetId> = entries.iter().map(|entry| entry.id.clone()).collect();
        match self.guarded(tier).guard.run(decision, self.read_backend(tier, &budgets)).await {
            Ok(answers) => entries
                .iter()
                .zip(answers)
                .map(|(entry, totals)| self.offer(tier, entry, totals, queried_at))
                .collect(),
            Err(_) => vec![None; entries.len()],
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
            // `query_recount` reads all budgets at once.
            Tier::Recount => Ok(vec![None; budgets.len()]),
        }
    }

    /// Offers a entry the totals that a tier returned for it.
    fn offer(
        &self,
        tier: Tier,
        entry: &MemoryEntry,
        totals: Option<CombinedTotals>,
        queried_at: Micros,
    ) -> Option<OfferVerdict> {
        let counters = self.guarded(tier);
        let catalog = self.definitions.catalog();
        let (Some(totals), Some(budget)) = (totals, catalog.get(entry.id.as_str())) else {
            counters.misses.inc();
            return None;
        };
        let provenance = match tier {
            Tier::Redis | Tier::Summary => Provenance::Committed,
            Tier::Recount => Provenance::Recounted,
        };
        match entry.offer(budget, totals, provenance, queried_at) {
            Ok(verdict) => {
                // The definition may have changed after `catalog` was read: `Memory::redefine` only updates answers
                // that exist, and this one did not exist yet.
                let catalog = self.definitions.catalog();
                if let Some(budget) = catalog.get(entry.id.as_str()) {
                    entry.redefine(budget, Timestamp::now());
                }
                let counter =
                    if verdict.is_in_memory() { &counters.hits } else { &counters.behind };
                counter.inc();
                Some(verdict)
            }
            Err(error) => {
                counters.misses.inc();
                tracing::warn!(budget = %entry.id, tier = tier.name(), %error, "tier returned invalid totals");
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

fn outcome(verdict: Option<OfferVerdict>) -> QueryOutcome {
    match verdict {
        Some(verdict) if verdict.is_in_memory() => QueryOutcome::InMemory,
        _ => QueryOutcome::Unanswered,
    }
}
