//! The outcome of all policies of a request, and how a response shows it: `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers), the older `X-RateLimit-*`, and the problem of a refused request.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::counters::Charge;
use super::policy::{OutageMode, Policy};
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

/// `Retry-After` of a request that is refused because the shared counters are unreachable.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
    /// The policies that do not count while the shared counters are unreachable: each allows or refuses every request.
    uncounted: Vec<Arc<Policy>>,
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
        let outcomes = charges.iter().zip(statuses).map(outcome).collect();
        Self { outcomes, source, uncounted: Vec::new() }
    }

    /// Adds policies that do not count while the shared counters are unreachable.
    pub(crate) fn with_uncounted(mut self, policies: Vec<Arc<Policy>>) -> Self {
        self.uncounted = policies;
        self
    }

    /// Returns each policy, and whether the request is within its quota.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (&Policy, bool)> {
        self.outcomes
            .iter()
            .map(|outcome| (&*outcome.policy, outcome.status.decision == QuotaDecision::Allowed))
    }

    /// Returns the problem of a refused request; `None` if it is allowed.
    pub(crate) fn problem(&self) -> Option<Problem> {
        if self.uncounted.iter().any(|policy| policy.outage == OutageMode::Refuse) {
            let problem = Problem::new(ProblemKind::Unavailable)
                .detail("the limits of requests cannot be checked now; nothing was accepted")
                .retry_after(RETRY_AFTER);
            return Some(self.shown_on(problem));
        }
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
        Some(self.shown_on(problem))
    }

    fn shown_on(&self, problem: Problem) -> Problem {
        let mut headers = HeaderMap::new();
        self.add_to(&mut headers);
        let add = |problem: Problem, (name, value): (&HeaderName, &HeaderValue)| {
            problem.header(name.clone(), value.clone())
        };
        headers.iter().fold(problem, add)
    }

    /// Adds the headers that show every policy. `X-RateLimit-*` show the one with the least left.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        let strictest = self.outcomes.iter().min_by(|one, other| one.compare(other));
        let mut shown: Vec<&Outcome> = Vec::with_capacity(MAX_SHOWN);
        for outcome in strictest.into_iter().chain(&self.outcomes) {
            let is_shown = shown.iter().any(|other| other.policy.name == outcome.policy.name);
            if !is_shown && shown.len() < MAX_SHOWN {
                shown.push(outcome);
            }
        }
        let (mut policies, mut limits) = (String::new(), String::new());
        for Outcome { policy, quota, status, .. } in &shown {
            write_policy(&mut policies, &policy.name, *quota);
            if self.source == Source::LocalShare {
                policies.push_str(";source=local-share");
            }
            let separator = if limits.is_empty() { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(
                limits,
                "{separator}\"{}\";r={};t={}",
                policy.name,
                status.remaining,
                seconds(status.reset_ms)
            );
        }
        for policy in self.uncounted.iter().take(MAX_SHOWN - shown.len()) {
            write_policy(&mut policies, &policy.name, policy.quota);
            let _ = write!(policies, ";on_outage={}", policy.outage.name());
        }
        insert_text(headers, RATE_LIMIT_POLICY, policies);
        let Some(Outcome { quota, status, .. }) = strictest else { return };
        insert_text(headers, RATE_LIMIT, limits);
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

/// Appends a policy to the list in `RateLimit-Policy`.
fn write_policy(list: &mut String, name: &str, quota: Quota) {
    let separator = if list.is_empty() { "" } else { ", " };
    let (limit, window) = (quota.limit(), seconds(quota.window_ms()));
    // Writing to a String cannot fail.
    let _ = write!(list, "{separator}\"{name}\";q={limit};w={window}");
    if quota.capacity() != u64::from(limit) {
        let _ = write!(list, ";burst={}", quota.burst());
    }
}

/// Inserts a header that is not empty. Names of policies are visible ASCII without quotes.
fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if text.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

/// Whole seconds, rounded up.
fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000)
}
