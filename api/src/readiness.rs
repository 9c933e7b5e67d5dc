//! Readiness of the read API: definitions are loaded, and memory or a tier has an answer.
//!
//! A process with answers in memory stays ready when every backend is unavailable: it still serves its last answers.

use std::sync::Arc;

use runtime::health::{Check, Health};
use storage::control::BudgetDefinitions;

use crate::DEFAULT_BUDGET;
use crate::tier_chain::TierChain;
use crate::tiers::memory::Memory;

/// The readiness checks of the read API.
#[derive(Debug)]
pub struct Readiness {
    definitions: Check,
    answers: Check,
}

impl Readiness {
    /// Registers the checks.
    pub fn new(health: &Health) -> Self {
        Self { definitions: health.check("definitions"), answers: health.check("answers") }
    }

    /// Updates the checks. While nothing has been read, starts a fetch of one budget to test the tiers.
    pub fn update(
        &self,
        definitions: &dyn BudgetDefinitions,
        warm: bool,
        tier_chain: &Arc<TierChain>,
        memory: &Memory,
    ) {
        if definitions.is_loaded() {
            self.definitions.set_ready();
        } else {
            self.definitions.set_unready("the budget definitions are not loaded yet");
        }
        if warm || tier_chain.any_tier_healthy() {
            self.answers.set_ready();
            return;
        }
        self.answers.set_unready("neither the cache nor the store is available");
        let catalog = definitions.catalog();
        let any_budget = catalog.get(DEFAULT_BUDGET).or_else(|| catalog.iter().next());
        if let Some(budget) = any_budget {
            let (tier_chain, entry) = (Arc::clone(tier_chain), memory.entry_or_insert(&budget.id));
            // The fetched answer is trusted for a while, so cache updates must refresh it as if a client had read it.
            entry.note_read(memory.now());
            tokio::spawn(async move { tier_chain.fetch(&[entry], None).await });
        }
    }
}
