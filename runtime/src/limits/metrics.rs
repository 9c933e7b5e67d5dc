//! The metrics of rate limits and shedding. Labels are names of configured policies and of classes, never a client.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::policy::{EndpointClass, OutageMode, Policy};
use super::verdict::Verdict;
use crate::metrics::{Metrics, MetricsError};

/// Counters, resolved once for each policy and class.
#[derive(Debug)]
pub(super) struct LimitMetrics {
    allowed: HashMap<Arc<str>, IntCounter>,
    limited: HashMap<Arc<str>, IntCounter>,
    shed: HashMap<EndpointClass, IntCounter>,
    outages: IntCounterVec,
    /// Requests to which no limit by address applies, because a trusted proxy does not name its client.
    pub(super) requests_without_address: IntCounter,
    /// 1 while the shared counters are unreachable.
    pub(super) unreachable: IntGauge,
}

impl LimitMetrics {
    pub(super) fn register(
        metrics: &Metrics,
        policies: &[Arc<Policy>],
    ) -> Result<Self, MetricsError> {
        let decisions = metrics.counter_vec(
            "limits_requests_total",
            "Requests that a rate limit covers, by limit and outcome: allowed, limited (answered 429, maybe by another limit).",
            &["limit", "outcome"],
        )?;
        let counters = |outcome: &str| {
            let counter = |policy: &Arc<Policy>| {
                let counter = decisions.with_label_values(&[&*policy.name, outcome]);
                (Arc::clone(&policy.name), counter)
            };
            policies.iter().map(counter).collect()
        };
        let shed = metrics.counter_vec(
            "limits_shed_requests_total",
            "Requests answered 503 because too many were being handled, by class: read, page, submission, batch, sign-in.",
            &["class"],
        )?;
        let of_class = |class: &EndpointClass| (*class, shed.with_label_values(&[class.name()]));
        Ok(Self {
            allowed: counters("allowed"),
            limited: counters("limited"),
            shed: EndpointClass::ALL.iter().map(of_class).collect(),
            outages: metrics.counter_vec(
                "limits_outage_requests_total",
                "Requests decided without the shared counters of rate limits, by limit and mode: local-share, allow, refuse.",
                &["limit", "mode"],
            )?,
            requests_without_address: metrics.counter(
                "limits_requests_without_address_total",
                "Requests that no rate limit by address covers, because a trusted proxy does not name its client.",
            )?,
            unreachable: metrics.gauge(
                "limits_counters_unreachable",
                "1 while the shared counters of rate limits are unreachable.",
            )?,
        })
    }

    pub(super) fn count(&self, verdict: &Verdict) {
        for (policy, is_allowed) in verdict.policies() {
            let counters = if is_allowed { &self.allowed } else { &self.limited };
            if let Some(counter) = counters.get(&policy.name) {
                counter.inc();
            }
        }
    }

    /// Counts a request that is shed.
    pub(super) fn count_shed(&self, class: EndpointClass) {
        if let Some(counter) = self.shed.get(&class) {
            counter.inc();
        }
    }

    /// Counts a policy of a request that is decided without the shared counters.
    pub(super) fn count_outage(&self, policy: &Policy) {
        let mode: OutageMode = policy.outage;
        self.outages.with_label_values(&[&*policy.name, mode.name()]).inc();
    }
}
