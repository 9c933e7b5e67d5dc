//! Rate limits: requests per administrator, and failed attempts per client address. Each process counts on its own.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::client::ClientNetwork;
use crate::limits::{
    Algorithm, Charge, ClientClass, LocalCounters, OutageMode, Policy, Quota, QuotaStatus, Scope,
    Source, SubjectKey, Unit, Verdict,
};
use crate::problem::Problem;

const WINDOW_MS: u64 = 60_000;

/// Both rate limits.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Arc<Policy>,
    failures: Arc<Policy>,
    counters: LocalCounters,
}

impl Limits {
    /// Creates the limits.
    pub(super) fn new(requests_per_minute: NonZeroU32, failures_per_minute: NonZeroU32) -> Self {
        Self {
            requests: policy("admin", Scope::Person, requests_per_minute),
            failures: policy("admin-failures", Scope::Address, failures_per_minute),
            counters: LocalCounters::default(),
        }
    }

    /// Counts a request of an administrator.
    ///
    /// # Errors
    /// If the limit is exceeded.
    pub(super) fn count_request(&self, slot: usize) -> Result<Verdict, Problem> {
        self.count(&self.requests, SubjectKey::Administrator(slot))
    }

    /// Returns the number of requests an administrator has left now. Counts nothing.
    pub(super) fn remaining_requests(&self, slot: usize) -> u32 {
        let subject = SubjectKey::Administrator(slot);
        let statuses = self.counters.charge(&[Charge::new(Arc::clone(&self.requests), subject, 0)]);
        let remaining = statuses.first().map_or(0, |status| status.remaining);
        u32::try_from(remaining).unwrap_or(u32::MAX)
    }

    /// Counts an attempt with a wrong token from an address.
    ///
    /// # Errors
    /// If the limit is exceeded.
    pub(super) fn count_failure(&self, address: IpAddr) -> Result<(), Problem> {
        self.count(&self.failures, failing(address)).map(|_| ())
    }

    fn count(&self, policy: &Arc<Policy>, subject: SubjectKey) -> Result<Verdict, Problem> {
        let charges = [Charge::new(Arc::clone(policy), subject, 1)];
        decided(&charges, self.counters.charge(&charges))
    }
}

/// Returns whom a failure from an address counts for.
fn failing(address: IpAddr) -> SubjectKey {
    SubjectKey::Address(ClientNetwork::from(address).address().unwrap_or(address))
}

fn decided(charges: &[Charge], statuses: Vec<QuotaStatus>) -> Result<Verdict, Problem> {
    let verdict = Verdict::new(charges, statuses, Source::Regular);
    verdict.problem().map_or(Ok(verdict), Err)
}

/// A bucket of one minute's requests, which refills evenly.
fn policy(name: &str, scope: Scope, per_minute: NonZeroU32) -> Arc<Policy> {
    Arc::new(Policy {
        name: name.into(),
        scope,
        quota: Quota::per_window(Algorithm::TokenBucket, per_minute.get(), WINDOW_MS),
        endpoints: Vec::new(),
        clients: ClientClass::Trusted,
        unit: Unit::Requests,
        outage: OutageMode::LocalShare,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use axum::response::IntoResponse;
    use http::HeaderMap;
    use tokio::time::advance;

    use super::*;

    fn limits(requests: u32, failures: u32) -> Limits {
        Limits::new(NonZeroU32::new(requests).unwrap(), NonZeroU32::new(failures).unwrap())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn retry_after(refusal: Problem) -> String {
        let response = refusal.into_response();
        assert_eq!(response.status().as_u16(), 429);
        response.headers()["retry-after"].to_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn each_administrator_has_a_quota_that_refills_evenly() {
        let limits = limits(3, 1);
        for remaining in [2, 1, 0] {
            limits.count_request(0).unwrap();
            assert_eq!(limits.remaining_requests(0), remaining);
        }
        assert_eq!(retry_after(limits.count_request(0).unwrap_err()), "20");
        assert_eq!((limits.remaining_requests(0), limits.remaining_requests(1)), (0, 3));
        limits.count_request(1).unwrap();
        advance(seconds(19)).await;
        assert_eq!(retry_after(limits.count_request(0).unwrap_err()), "1");
        advance(seconds(1)).await;
        limits.count_request(0).unwrap();
        limits.count_request(0).unwrap_err();
        advance(seconds(600)).await;
        assert_eq!(limits.remaining_requests(0), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_a_limit_of_failures_which_further_ones_do_not_extend() {
        let limits = limits(1, 2);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        limits.count_failure(one).unwrap();
        limits.count_failure(one).unwrap();
        for _ in 0..100 {
            assert_eq!(retry_after(limits.count_failure(one).unwrap_err()), "30");
        }
        limits.count_failure(other).unwrap();
        advance(seconds(30)).await;
        limits.count_failure(one).unwrap();
        limits.count_failure(one).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_network_is_one_address() {
        let limits = limits(1, 1);
        limits.count_failure(address("2001:db8:1:2::1")).unwrap();
        limits.count_failure(address("2001:db8:1:2:ffff::9")).unwrap_err();
        limits.count_failure(address("2001:db8:1:3::1")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_problem_has_the_limit_the_remaining_quota_and_when_to_retry() {
        let limits = limits(40, 1);
        for _ in 0..39 {
            limits.count_request(0).unwrap();
        }
        let mut headers = HeaderMap::new();
        limits.count_request(0).unwrap().add_to(&mut headers);
        assert_eq!(headers["ratelimit"], "\"admin\";r=0;t=60");
        let response = limits.count_request(0).unwrap_err().into_response();
        for (name, value) in [
            // One request is added every 1.5 s.
            ("retry-after", "2"),
            ("ratelimit-policy", "\"admin\";q=40;w=60"),
            ("ratelimit", "\"admin\";r=0;t=60"),
            ("x-ratelimit-limit", "40"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "60"),
        ] {
            assert_eq!(response.headers()[name], value, "{name}");
        }
    }
}
