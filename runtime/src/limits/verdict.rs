//! The outcome of all policies of a request, and how a response shows it: `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers), the older `X-RateLimit-*`, and the problem of a refused request.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::counters::Charge;
use super::policy::Policy;
use super::quota::{Quota, QuotaDecision, QuotaStatus};
use crate::problem::{Problem, ProblemKind};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_RATE_LIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The headers that show policies.
const LIMIT_HEADERS: [HeaderName; 5] =
    [RATE_LIMIT, RATE_LIMIT_POLICY, X_RATE_LIMIT_LIMIT, X_RATE_LIMIT_REMAINING, X_RATE_LIMIT_RESET];

/// Copies the headers that show policies to the response that replaces another one.
pub(crate) fn copy_limit_headers(from: &HeaderMap, to: &mut HeaderMap) {
    for name in &LIMIT_HEADERS {
        if let Some(value) = from.get(name) {
            to.insert(name, value.clone());
        }
    }
}

/// Maximum number of policies that a response shows: a batch has a counter for each person.
const MAX_SHOWN: usize = 8;

/// Where the counters of a verdict are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Where they belong.
    Regular,
    /// In this process, which grants its share while the shared counters are unreachable.
    LocalShare,
}

/// The outcome of all policies of a request.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    outcomes: Vec<Outcome>,
    source: Source,
}

#[derive(Debug, Clone)]
struct Outcome {
    policy: Arc<Policy>,
    quota: Quota,
    status: QuotaStatus,
    cost: u32,
}

impl Verdict {
    pub(crate) fn new(charges: &[Charge], statuses: Vec<QuotaStatus>, source: Source) -> Self {
        let outcome = |(charge, status): (&Charge, QuotaStatus)| Outcome {
            policy: Arc::clone(&charge.policy),
            quota: charge.quota,
            status,
            cost: charge.cost,
        };
        Self { outcomes: charges.iter().zip(statuses).map(outcome).collect(), source }
    }

    /// Returns each policy, and whether the request is within its quota.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (&Policy, bool)> {
        self.outcomes
            .iter()
            .map(|outcome| (&*outcome.policy, outcome.status.decision == QuotaDecision::Allowed))
    }

    /// Returns the problem of a refused request; `None` if it is allowed.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let refused = |outcome: &&Outcome| outcome.status.decision != QuotaDecision::Allowed;
        let refusals: Vec<&Outcome> = self.outcomes.iter().filter(refused).collect();
        let first = refusals.first()?;
        let never = refusals.iter().find(|outcome| outcome.status.decision == QuotaDecision::Never);
        let problem = Problem::new(ProblemKind::RateLimited);
        let problem = match never {
            Some(outcome) => problem.detail(format!(
                "the request counts {}, and the limit `{}` allows at most {} at once: send smaller requests; nothing was \
                 accepted",
                outcome.cost,
                outcome.policy.name,
                outcome.quota.capacity(),
            )),
            None => {
                // After the longest wait the request is within every limit.
                let waits_ms = refusals.iter().map(|outcome| match outcome.status.decision {
                    QuotaDecision::Later { after_ms } => after_ms,
                    QuotaDecision::Allowed | QuotaDecision::Never => 0,
                });
                problem
                    .detail(format!(
                        "too many requests: the limit `{}` is {} in {} s; nothing was accepted",
                        first.policy.name,
                        first.quota.limit(),
                        seconds(first.quota.window_ms()),
                    ))
                    .retry_after(Duration::from_millis(waits_ms.max().unwrap_or_default()))
            }
        };
        let mut headers = HeaderMap::new();
        self.add_to(&mut headers);
        let add = |problem: Problem, (name, value): (&HeaderName, &HeaderValue)| {
            problem.header(name.clone(), value.clone())
        };
        Some(headers.iter().fold(problem, add))
    }

    /// Adds the headers that show every policy. `X-RateLimit-*` show the one with the least left.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        let Some(strictest) = self.outcomes.iter().min_by(|one, other| one.compare(other)) else {
            return;
        };
        let mut shown: Vec<&Outcome> = Vec::with_capacity(MAX_SHOWN);
        for outcome in std::iter::once(strictest).chain(&self.outcomes) {
            let is_shown = shown.iter().any(|other| other.policy.name == outcome.policy.name);
            if !is_shown && shown.len() < MAX_SHOWN {
                shown.push(outcome);
            }
        }
        let (mut policies, mut limits) = (String::new(), String::new());
        for (index, outcome) in shown.into_iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            let Outcome { policy, quota, status, .. } = outcome;
            // Writing to a String cannot fail.
            let _ = write!(
                policies,
                "{separator}\"{}\";q={};w={}",
                policy.name,
                quota.limit(),
                seconds(quota.window_ms())
            );
            if quota.capacity() != u64::from(quota.limit()) {
                let _ = write!(policies, ";burst={}", quota.burst());
            }
            if self.source == Source::LocalShare {
                policies.push_str(";source=local-share");
            }
            let _ = write!(
                limits,
                "{separator}\"{}\";r={};t={}",
                policy.name,
                status.remaining,
                seconds(status.reset_ms)
            );
        }
        // Names of policies are visible ASCII without quotes.
        if let (Ok(policies), Ok(limits)) =
            (HeaderValue::try_from(policies), HeaderValue::try_from(limits))
        {
            headers.insert(RATE_LIMIT_POLICY, policies);
            headers.insert(RATE_LIMIT, limits);
        }
        let Outcome { quota, status, .. } = strictest;
        headers.insert(X_RATE_LIMIT_LIMIT, HeaderValue::from(quota.capacity()));
        headers.insert(X_RATE_LIMIT_REMAINING, HeaderValue::from(status.remaining));
        headers.insert(X_RATE_LIMIT_RESET, HeaderValue::from(seconds(status.reset_ms)));
    }
}

impl Outcome {
    /// Orders by refusal, then by the part of the quota that is left.
    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        let is_allowed = |outcome: &Self| outcome.status.decision == QuotaDecision::Allowed;
        let part = |one: &Self, other: &Self| {
            u128::from(one.status.remaining) * u128::from(other.quota.capacity())
        };
        is_allowed(self)
            .cmp(&is_allowed(other))
            .then_with(|| part(self, other).cmp(&part(other, self)))
    }
}

/// Whole seconds, rounded up.
fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000)
}
