//! Metrics of closing.

use prometheus::IntGauge;
use runtime::metrics::{Metrics, MetricsError};

/// The metrics of the closer.
#[derive(Debug, Clone)]
pub struct ClosingMetrics {
    overdue: IntGauge,
    not_changeable: IntGauge,
}

impl ClosingMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is already registered with another type.
    pub fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            overdue: metrics.gauge(
                "processor_budgets_not_final",
                "Budgets whose closing time has passed and whose totals are not final yet. Set by the process that owns \
                 partition 0.",
            )?,
            not_changeable: metrics.gauge(
                "processor_budgets_not_changeable",
                "Budgets that are to be closed or reopened and that this release may not change: a newer release wrote \
                 their definition. Set by the process that owns partition 0.",
            )?,
        })
    }

    pub(super) fn set_overdue(&self, budgets: usize) {
        self.overdue.set(budgets as i64);
    }

    pub(super) fn set_not_changeable(&self, budgets: usize) {
        self.not_changeable.set(budgets as i64);
    }
}
