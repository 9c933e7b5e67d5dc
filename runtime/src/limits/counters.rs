//! Counters of rate limits: what is charged, and the seam to the store that several processes share.

use std::sync::Arc;

use async_trait::async_trait;

use super::policy::Policy;
use super::quota::{Quota, QuotaDecision, QuotaStatus};
use super::subject::SubjectKey;

/// One counter that a request is charged to.
#[derive(Debug, Clone)]
pub struct Charge {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The numbers: those of the policy, or this process's share of them.
    pub quota: Quota,
    /// Whom the counter is for.
    pub subject: SubjectKey,
    /// Units; 0 only looks.
    pub cost: u32,
}

impl Charge {
    /// Creates a charge of a policy's whole quota.
    pub fn new(policy: Arc<Policy>, subject: SubjectKey, cost: u32) -> Self {
        Self { quota: policy.quota, policy, subject, cost }
    }
}

/// The shared counters cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the shared counters of rate limits are unreachable: {0}")]
pub struct CountersUnavailable(pub String);

/// Counters that the processes of a deployment share.
#[async_trait]
pub trait SharedCounters: Send + Sync {
    /// Charges all counters if the request is within all of their quotas, else none. Returns one outcome for each, in
    /// order. Each policy and subject must occur once.
    ///
    /// # Errors
    /// If the outcome is unknown. The counters may be charged.
    async fn charge(&self, charges: &[Charge]) -> Result<Vec<QuotaStatus>, CountersUnavailable>;
}

/// Whether a request is within all quotas.
pub fn is_within_all(statuses: &[QuotaStatus]) -> bool {
    statuses.iter().all(|status| status.decision == QuotaDecision::Allowed)
}
