//! How often administrators may ask, and how often strangers may try: so many times a minute, at any moment.
//!
//! Counted in this process, in as much memory as was taken at its start, whoever comes: administrators have a place
//! each, and client addresses share places by a hash that nobody outside can foresee.

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

/// Places for client addresses, 8 bytes each. Two addresses share one seldom, and then they share its limit.
const ADDRESS_PLACES: usize = 65_536;

/// Both limits.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Limit,
    failures: Limit,
    hasher: RandomState,
}

impl Limits {
    /// Limits for so many administrators, so many times a minute each.
    pub(super) fn new(
        principals: usize,
        requests_per_minute: NonZeroU32,
        failures_per_minute: NonZeroU32,
    ) -> Self {
        Self {
            requests: Limit::new("admin", requests_per_minute, principals),
            failures: Limit::new("admin-failures", failures_per_minute, ADDRESS_PLACES),
            hasher: RandomState::new(),
        }
    }

    /// Counts a request of the administrator at this place.
    ///
    /// # Errors
    /// When there were too many.
    pub(super) fn request(&self, place: usize) -> Result<Standing, Exceeded> {
        self.requests.ask(place, true)
    }

    /// How many requests the administrator at this place may make now. Counts nothing.
    pub(super) fn left(&self, place: usize) -> u32 {
        // Whoever may make one more has that one besides what is left then.
        self.requests.ask(place, false).map_or(0, |standing| standing.remaining + 1)
    }

    /// Counts a failed attempt from an address.
    pub(super) fn failed(&self, address: IpAddr) {
        // One too many is found at the next attempt.
        let _ = self.failures.ask(self.place_of(address), true);
    }

    /// Whether an address may try. Counts nothing.
    ///
    /// # Errors
    /// When too many of its attempts failed.
    pub(super) fn may_try(&self, address: IpAddr) -> Result<(), Exceeded> {
        self.failures.ask(self.place_of(address), false).map(|_| ())
    }

    fn place_of(&self, address: IpAddr) -> usize {
        let hash = self.hasher.hash_one(network_of(address));
        usize::try_from(hash % ADDRESS_PLACES as u64).unwrap_or_default()
    }
}

/// Who has one address of IPv6 has the 2^64 of its network.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

/// One limit over places.
#[derive(Debug)]
struct Limit {
    name: &'static str,
    per_minute: NonZeroU32,
    limiter: RateLimiter<Ask, Places, SinceStart, StateInformationMiddleware>,
}

impl Limit {
    fn new(name: &'static str, per_minute: NonZeroU32, places: usize) -> Self {
        let quota = Quota::per_minute(per_minute);
        let limiter = RateLimiter::new(quota, Places::new(places), SinceStart(Instant::now()));
        Self { name, per_minute, limiter }
    }

    fn ask(&self, place: usize, counts: bool) -> Result<Standing, Exceeded> {
        let standing =
            |remaining| Standing { name: self.name, per_minute: self.per_minute, remaining };
        match self.limiter.check_key(&Ask { place, counts }) {
            Ok(snapshot) => Ok(standing(StateSnapshot::remaining_burst_capacity(&snapshot))),
            Err(until) => {
                let wait = NotUntil::wait_time_from(&until, self.limiter.clock().now());
                Err(Exceeded { standing: standing(0), wait })
            }
        }
    }
}

/// A question to a limit: of which place, and whether it counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ask {
    place: usize,
    counts: bool,
}

/// When each place is empty again, in nanoseconds since the start; 0 if it never was anything else.
#[derive(Debug)]
struct Places(Box<[AtomicU64]>);

impl Places {
    fn new(places: usize) -> Self {
        Self((0..places).map(|_| AtomicU64::new(0)).collect())
    }
}

impl StateStore for Places {
    type Key = Ask;

    fn measure_and_replace<T, F, E>(&self, ask: &Ask, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let known = |nanos: u64| (nanos > 0).then(|| Nanos::from(nanos));
        let Some(place) = self.0.get(ask.place) else {
            return decide(None).map(|(outcome, _)| outcome);
        };
        let mut seen = place.load(Ordering::Relaxed);
        loop {
            let (outcome, next) = decide(known(seen))?;
            if !ask.counts {
                return Ok(outcome);
            }
            match place.compare_exchange(seen, next.into(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(outcome),
                Err(now) => seen = now,
            }
        }
    }
}

/// The time since the limits began, by the clock that tests can hold.
#[derive(Debug, Clone)]
struct SinceStart(Instant);

impl Clock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// How somebody stands with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    name: &'static str,
    per_minute: NonZeroU32,
    remaining: u32,
}

impl Standing {
    /// Says so in an answer's headers.
    pub(super) fn note(self, headers: &mut HeaderMap) {
        headers.extend(self.headers());
    }

    /// `RateLimit-Policy` and `RateLimit` are of draft-ietf-httpapi-ratelimit-headers; the others say the same to older
    /// clients. Times are seconds from now until the whole quota is there again.
    fn headers(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let Self { name, per_minute, remaining } = self;
        let spent = u64::from(per_minute.get() - remaining.min(per_minute.get()));
        let reset_s = (spent * 60).div_ceil(u64::from(per_minute.get()));
        let policy = HeaderValue::try_from(format!("\"{name}\";q={per_minute};w=60"));
        let limit = HeaderValue::try_from(format!("\"{name}\";r={remaining};t={reset_s}"));
        // Visible ASCII, by their making.
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

/// A limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exceeded {
    standing: Standing,
    /// Until one more is let through.
    wait: Duration,
}

impl Exceeded {
    /// The problem to answer.
    pub(super) fn problem(self, detail: &str) -> Problem {
        let problem = Problem::new(ProblemKind::RateLimited).detail(detail).retry_after(self.wait);
        self.standing.headers().fold(problem, |problem, (name, value)| problem.header(name, value))
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

    fn seconds(wait: u64) -> Duration {
        Duration::from_secs(wait)
    }

    #[tokio::test(start_paused = true)]
    async fn an_administrator_has_a_quota_which_comes_back_evenly_and_is_nobody_elses() {
        let limits = limits(3, 1);
        for remaining in [2, 1, 0] {
            assert_eq!(limits.request(0).unwrap().remaining, remaining);
        }
        assert_eq!(limits.request(0).unwrap_err().wait, seconds(20));
        assert_eq!((limits.left(0), limits.left(1)), (0, 3));
        assert_eq!(limits.request(1).unwrap().remaining, 2);
        advance(seconds(19)).await;
        assert_eq!(limits.request(0).unwrap_err().wait, seconds(1));
        advance(seconds(1)).await;
        assert_eq!(limits.request(0).unwrap().remaining, 0);
        assert!(limits.request(0).is_err());
        advance(seconds(600)).await;
        assert_eq!(limits.request(0).unwrap().remaining, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_failed_too_often_may_not_try_and_asking_costs_nothing() {
        let limits = limits(1, 2);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..100 {
            limits.may_try(one).unwrap();
        }
        limits.failed(one);
        limits.may_try(one).unwrap();
        limits.failed(one);
        assert_eq!(limits.may_try(one).unwrap_err().wait, seconds(30));
        // Failing on does not make it longer.
        limits.failed(one);
        advance(seconds(30)).await;
        limits.may_try(one).unwrap();
        if limits.place_of(one) != limits.place_of(other) {
            limits.failed(one);
            limits.may_try(one).unwrap_err();
            limits.may_try(other).unwrap();
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_an_ipv4_address_is_one_however_it_is_written() {
        let same = |a: &str, b: &str| network_of(address(a)) == network_of(address(b));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_problem_says_the_limit_what_is_left_and_when_to_come_back() {
        let limits = limits(40, 1);
        for _ in 0..39 {
            limits.request(0).unwrap();
        }
        let mut headers = HeaderMap::new();
        limits.request(0).unwrap().note(&mut headers);
        assert_eq!(headers["ratelimit"], "\"admin\";r=0;t=60");
        let answer = limits.request(0).unwrap_err().problem("too many").into_response();
        assert_eq!(answer.status().as_u16(), 429);
        for (name, value) in [
            // One comes back every 1.5 s.
            ("retry-after", "2"),
            ("ratelimit-policy", "\"admin\";q=40;w=60"),
            ("ratelimit", "\"admin\";r=0;t=60"),
            ("x-ratelimit-limit", "40"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "60"),
        ] {
            assert_eq!(answer.headers()[name], value, "{name}");
        }
    }

    #[test]
    fn requests_at_the_same_time_are_each_counted() {
        let limits = limits(100, 1);
        let let_through: usize = std::thread::scope(|scope| {
            let ask = || (0..50).filter(|_| limits.request(0).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // One comes back every 0.6 s, which a slow machine may take.
        assert!((100..110).contains(&let_through), "{let_through}");
    }
}
