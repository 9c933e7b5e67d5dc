//! Metrics of closing.

use prometheus::{IntGauge, IntGaugeVec};
use runtime::metrics::{Metrics, MetricsError};

use super::pending::Oldest;

/// The metrics of the closer.
#[derive(Debug, Clone)]
pub struct ClosingMetrics {
    overdue: IntGauge,
    not_changeable: IntGauge,
    oldest: IntGaugeVec,
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
            oldest: metrics.gauge_vec(
                "processor_budget_oldest_seconds",
                "How long the oldest budget that is not final has been past its closing time (closing), and how long the \
                 oldest budget has been reopening, as far as its process knows; 0 if there is none. Set by the process that \
                 owns partition 0.",
                &["state"],
            )?,
        })
    }

    pub(super) fn set_overdue(&self, budgets: usize) {
        self.overdue.set(budgets as i64);
    }

    pub(super) fn set_oldest(&self, oldest: Oldest) {
        for (state, age) in [("closing", oldest.closing), ("reopening", oldest.reopening)] {
            let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
            self.oldest.with_label_values(&[state]).set(seconds);
        }
    }

    pub(super) fn set_not_changeable(&self, budgets: usize) {
        self.not_changeable.set(budgets as i64);
    }
}
