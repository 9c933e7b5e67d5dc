//! Metrics of closing.

use prometheus::IntGauge;
use runtime::metrics::{Metrics, MetricsError};

/// The metrics of the closer.
#[derive(Debug, Clone)]
pub struct ClosingMetrics {
    overdue: IntGauge,
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
        })
    }

    pub(super) fn set_overdue(&self, budgets: usize) {
        self.overdue.set(budgets as i64);
    }
}
