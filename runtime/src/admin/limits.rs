//! Rate limits: requests per administrator, and failed attempts per client address.
//!
//! Each process counts on its own, in fixed memory: every administrator has a slot, and client addresses share slots by
//! a randomly keyed hash.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{NotUntil, Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::problem::{Problem, ProblemKind};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_RATE_LIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Number of slots for client addresses, 8 bytes each. Addresses with the same hash share a limit.
const ADDRESS_SLOTS: usize = 65_536;

/// Both rate limits.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Limit,
    failures: Limit,
    hasher: RandomState,
}

impl Limits {
    /// Creates the limits, with a slot for each of `principals` administrators.
    pub(super) fn new(
        principals: usize,
        requests_per_minute: NonZeroU32,
        failures_per_minute: NonZeroU32,
    ) -> Self {
        Self {
            requests: Limit::new("admin", requests_per_minute, principals),
            failures: Limit::new("admin-failures", failures_per_minute, ADDRESS_SLOTS),
            hasher: RandomState::new(),
        }
    }

    /// Counts a request of an administrator.
    ///
    /// # Errors
    /// If the limit is exceeded.
    pub(super) fn count_request(&self, slot: usize) -> Result<QuotaStatus, LimitExceeded> {
        self.requests.check(slot, true)
    }

    /// Returns the number of requests an administrator has left now. Counts nothing.
    pub(super) fn remaining_requests(&self, slot: usize) -> u32 {
        // The limiter reports what would remain after one more request.
        self.requests.check(slot, false).map_or(0, |quota| quota.remaining + 1)
    }

    /// Counts an attempt with a wrong token from an address.
    ///
    /// # Errors
    /// If the limit is exceeded.
    pub(super) fn count_failure(&self, address: IpAddr) -> Result<(), LimitExceeded> {
        self.failures.check(self.slot_of(address), true).map(|_| ())
    }

    fn slot_of(&self, address: IpAddr) -> usize {
        let hash = self.hasher.hash_one(network_of(address));
        usize::try_from(hash % ADDRESS_SLOTS as u64).unwrap_or_default()
    }
}

/// Returns the /64 network of an IPv6 address: a client usually owns all of it. Keeps IPv4 addresses.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

/// One rate limit over many slots.
#[derive(Debug)]
struct Limit {
    name: &'static str,
    per_minute: NonZeroU32,
    limiter: RateLimiter<SlotCheck, Slots, ElapsedClock, StateInformationMiddleware>,
}

impl Limit {
    fn new(name: &'static str, per_minute: NonZeroU32, slots: usize) -> Self {
        let quota = Quota::per_minute(per_minute);
        let limiter = RateLimiter::new(quota, Slots::new(slots), ElapsedClock(Instant::now()));
        Self { name, per_minute, limiter }
    }

    fn check(&self, slot: usize, counts: bool) -> Result<QuotaStatus, LimitExceeded> {
        let status =
            |remaining| QuotaStatus { name: self.name, per_minute: self.per_minute, remaining };
        match self.limiter.check_key(&SlotCheck { slot, counts }) {
            Ok(snapshot) => Ok(status(StateSnapshot::remaining_burst_capacity(&snapshot))),
            Err(until) => {
                let retry_after = NotUntil::wait_time_from(&until, self.limiter.clock().now());
                Err(LimitExceeded { status: status(0), retry_after })
            }
        }
    }
}

/// A check of a slot, which may or may not count.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SlotCheck {
    slot: usize,
    counts: bool,
}

/// The limiter state of each slot: when its quota is full again, in nanoseconds since the start; 0 if never used.
#[derive(Debug)]
struct Slots(Box<[AtomicU64]>);

impl Slots {
    fn new(slots: usize) -> Self {
        Self((0..slots).map(|_| AtomicU64::new(0)).collect())
    }
}

impl StateStore for Slots {
    type Key = SlotCheck;

    fn measure_and_replace<T, F, E>(&self, check: &SlotCheck, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let state = |nanos: u64| (nanos > 0).then(|| Nanos::from(nanos));
        let Some(slot) = self.0.get(check.slot) else {
            return decide(None).map(|(outcome, _)| outcome);
        };
        let mut current = slot.load(Ordering::Relaxed);
        loop {
            let (outcome, next) = decide(state(current))?;
            if !check.counts {
                return Ok(outcome);
            }
            match slot.compare_exchange(current, next.into(), Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Ok(outcome),
                Err(actual) => current = actual,
            }
        }
    }
}

/// The time since the start, by tokio's clock, which tests can pause.
#[derive(Debug, Clone)]
struct ElapsedClock(Instant);

impl Clock for ElapsedClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The remaining quota after a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QuotaStatus {
    name: &'static str,
    per_minute: NonZeroU32,
    remaining: u32,
}

impl QuotaStatus {
    /// Adds the rate limit headers to a response.
    pub(super) fn add_to(self, headers: &mut HeaderMap) {
        headers.extend(self.headers());
    }

    /// Renders `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), and the older `X-RateLimit-*`.
    ///
    /// Times are in seconds from now until the quota is full again.
    fn headers(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let Self { name, per_minute, remaining } = self;
        let spent = u64::from(per_minute.get() - remaining.min(per_minute.get()));
        let reset_s = (spent * 60).div_ceil(u64::from(per_minute.get()));
        let policy = HeaderValue::try_from(format!("\"{name}\";q={per_minute};w=60"));
        let limit = HeaderValue::try_from(format!("\"{name}\";r={remaining};t={reset_s}"));
        // Both texts are visible ASCII, so the conversions do not fail.
        let texts = [(RATE_LIMIT_POLICY, policy.ok()), (RATE_LIMIT, limit.ok())];
        let numbers = [
            (X_RATE_LIMIT_LIMIT, HeaderValue::from(per_minute.get())),
            (X_RATE_LIMIT_REMAINING, HeaderValue::from(remaining)),
            (X_RATE_LIMIT_RESET, HeaderValue::from(reset_s)),
        ];
        let texts = texts.into_iter().filter_map(|(name, value)| Some((name, value?)));
        texts.chain(numbers)
    }
}

/// A rate limit is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LimitExceeded {
    status: QuotaStatus,
    /// Time until one more request is allowed.
    retry_after: Duration,
}

impl LimitExceeded {
    /// Returns the problem to respond with.
    pub(super) fn problem(self, detail: &str) -> Problem {
        let problem =
            Problem::new(ProblemKind::RateLimited).detail(detail).retry_after(self.retry_after);
        self.status.headers().fold(problem, |problem, (name, value)| problem.header(name, value))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::response::IntoResponse;
    use tokio::time::advance;

    use super::*;

    fn limits(requests: u32, failures: u32) -> Limits {
        Limits::new(2, NonZeroU32::new(requests).unwrap(), NonZeroU32::new(failures).unwrap())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[tokio::test(start_paused = true)]
    async fn each_administrator_has_a_quota_that_refills_evenly() {
        let limits = limits(3, 1);
        for remaining in [2, 1, 0] {
            assert_eq!(limits.count_request(0).unwrap().remaining, remaining);
        }
        assert_eq!(limits.count_request(0).unwrap_err().retry_after, seconds(20));
        assert_eq!((limits.remaining_requests(0), limits.remaining_requests(1)), (0, 3));
        assert_eq!(limits.count_request(1).unwrap().remaining, 2);
        advance(seconds(19)).await;
        assert_eq!(limits.count_request(0).unwrap_err().retry_after, seconds(1));
        advance(seconds(1)).await;
        assert_eq!(limits.count_request(0).unwrap().remaining, 0);
        assert!(limits.count_request(0).is_err());
        advance(seconds(600)).await;
        assert_eq!(limits.count_request(0).unwrap().remaining, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_a_limit_of_failures_which_further_ones_do_not_extend() {
        let limits = limits(1, 2);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        limits.count_failure(one).unwrap();
        limits.count_failure(one).unwrap();
        for _ in 0..100 {
            assert_eq!(limits.count_failure(one).unwrap_err().retry_after, seconds(30));
        }
        advance(seconds(30)).await;
        limits.count_failure(one).unwrap();
        limits.count_failure(one).unwrap_err();
        if limits.slot_of(one) != limits.slot_of(other) {
            limits.count_failure(other).unwrap();
        }
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_mapped_ipv4_equals_ipv4() {
        let same = |a: &str, b: &str| network_of(address(a)) == network_of(address(b));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
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
        let response = limits.count_request(0).unwrap_err().problem("too many").into_response();
        assert_eq!(response.status().as_u16(), 429);
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

    #[test]
    fn concurrent_requests_are_all_counted() {
        let limits = limits(100, 1);
        let allowed: usize = std::thread::scope(|scope| {
            let send = || (0..50).filter(|_| limits.count_request(0).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(send)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // One request is added every 0.6 s, which a slow machine may take.
        assert!((100..110).contains(&allowed), "{allowed}");
    }
}
