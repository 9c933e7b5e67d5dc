//! When this process should be sent reads: once definitions are known, and there is an answer in memory or a tier
//! that works. A process with answers stays ready when everything behind it is away: it still serves what it knows.

use std::sync::Arc;

use runtime::health::{Check, Health};
use storage::definitions::Definitions;

use crate::DEFAULT_BUDGET;
use crate::tiers::memory::Memory;
use crate::walk::Walker;

/// The checks of the reads.
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

    /// Tells how things stand. A process that nobody has read from yet tries the chain by itself.
    pub fn tell(
        &self,
        definitions: &dyn Definitions,
        warm: bool,
        walker: &Arc<Walker>,
        memory: &Memory,
    ) {
        if definitions.is_loaded() {
            self.definitions.set_ready();
        } else {
            self.definitions.set_unready("the budgets' definitions are not read yet");
        }
        if warm || walker.any_tier_works() {
            self.answers.set_ready();
            return;
        }
        self.answers.set_unready("neither the cache nor the store answers");
        let catalog = definitions.catalog();
        let any_budget = catalog.get(DEFAULT_BUDGET).or_else(|| catalog.iter().next());
        if let Some(budget) = any_budget {
            let (walker, slot) = (Arc::clone(walker), memory.open_slot(&budget.id));
            // What is held is trusted for a while: it must hear of moves like an answer that somebody reads.
            slot.note_read(memory.now());
            tokio::spawn(async move { walker.walk(&[slot], None).await });
        }
    }
}
