//! Reports the budgets that are neither final nor open although they should be.

use jiff::Timestamp;
use tokio::time::Instant;

use super::BudgetCloser;
use super::pending::{Oldest, overdue_for};

impl BudgetCloser {
    /// Sets the metrics. One process reports for all.
    pub(super) fn report(&mut self, decides: bool, now: Timestamp) {
        let (catalog, term) = (self.deps.definitions.catalog(), self.deps.registry.borrow().term());
        // Also while another process decides: its successor knows how old a reopening is.
        let reopening = self.reopenings.oldest(catalog.iter().map(AsRef::as_ref), Instant::now());
        let metrics = &self.deps.metrics;
        if !decides {
            metrics.set_overdue(0);
            metrics.set_not_changeable(0);
            metrics.set_oldest(Oldest::default());
            return;
        }
        let not_final = catalog.iter().filter(|budget| !self.complete.contains(budget, term));
        let overdue: Vec<_> = not_final.filter_map(|budget| overdue_for(budget, now)).collect();
        metrics.set_overdue(overdue.len());
        metrics.set_not_changeable(self.not_changeable.len());
        let closing = overdue.into_iter().max().unwrap_or_default();
        metrics.set_oldest(Oldest { closing, reopening });
    }
}
