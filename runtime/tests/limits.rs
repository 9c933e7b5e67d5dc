//! Limited routes: what each policy does while the shared counters are unreachable, what refusals cost, and when a
//! client is let in again.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../src/principal/tests/tokens.rs"]
mod tokens;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use runtime::admin::{AdminConfig, AdminGuard};
use runtime::clock::now_ms;
use runtime::config::{Settings, defaults};
use runtime::health::Health;
use runtime::http::HttpConfig;
use runtime::limits::{
    Charge, ChargeTiming, CountersUnavailable, EndpointClass, LimitTicket, LimitsConfig,
    LocalCounters, PersonHash, QuotaStatus, ReadLimitLayer, RequestLimits, SharedCounters,
    WriteLimit, limit_write,
};
use runtime::metrics::Metrics;
use runtime::principal::{Authenticator, IdentityConfig, SessionKey};
use tempfile::TempDir;
use tokio::time::{advance, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A proxy on the same machine.
const PROXY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 40_000));
const PERSON: PersonHash = PersonHash::from_bytes([7; 16]);

/// Counters that can be switched off, and count their calls.
#[derive(Default)]
struct Switchable {
    counters: LocalCounters,
    away: AtomicBool,
    calls: AtomicU32,
}

#[async_trait]
impl SharedCounters for Switchable {
    async fn charge(&self, charges: &[Charge]) -> Result<Vec<QuotaStatus>, CountersUnavailable> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.away.load(Ordering::Relaxed) {
            return Err(CountersUnavailable("switched off".to_owned()));
        }
        Ok(self.counters.charge(charges))
    }
}

struct Fixture {
    shared: Arc<Switchable>,
    metrics: Metrics,
    router: Router,
    authenticator: Authenticator,
    /// The folder of the identity provider's keys.
    _keys: TempDir,
    /// The bearer token of the requests.
    token: Option<String>,
}

/// Builds a limited write and a limited read, with one limit.
fn fixture(limit: &str) -> Fixture {
    let keys = ["general", "pages", "person", "submissions", "uploads", "sign_in", "services"];
    let off = keys.map(|key| (format!("limits.{key}"), "off".to_owned()));
    let only = [
        ("limits.extra".to_owned(), format!("only {limit}")),
        ("limits.instances".to_owned(), "2".to_owned()),
    ];
    let settings = Settings::from_pairs(off.into_iter().chain(only));
    let mut reader = settings.reader();
    let config = LimitsConfig::read(&mut reader);
    let config = reader.finish(config).unwrap();
    let metrics = Metrics::new("test");
    let guard = AdminGuard::new(&defaults(AdminConfig::read), &metrics).unwrap();
    let (authenticator, keys) = authenticator(guard, &metrics);
    let shared = Arc::new(Switchable::default());
    let limits =
        RequestLimits::new(&config, 100, authenticator.clone(), shared.clone(), &metrics).unwrap();
    let (class, charging) = (EndpointClass::Submission, ChargeTiming::ByHandler);
    let write = async |ticket: LimitTicket| match ticket.charge(&[(PERSON, 1)], 1).await {
        Ok(()) => "accepted".into_response(),
        Err(problem) => problem.into_response(),
    };
    let limit = WriteLimit { limits: limits.clone(), class, charging };
    let router = Router::new()
        .route("/write", post(write))
        .route("/body", post(async |_: LimitTicket, _: Bytes| "read"))
        .route_layer(from_fn_with_state(limit, limit_write))
        .merge(
            Router::new()
                .route("/read", get(async || "read"))
                .route_layer(ReadLimitLayer::new(&limits, EndpointClass::Read)),
        );
    Fixture { shared, metrics, router, authenticator, _keys: keys, token: None }
}

/// Builds an authenticator that accepts the tokens of an identity provider.
fn authenticator(guard: AdminGuard, metrics: &Metrics) -> (Authenticator, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys.json");
    std::fs::write(&keys, tokens::key_set()).unwrap();
    let provider = [
        ("identity.token_issuer".to_owned(), tokens::ISSUER.to_owned()),
        ("identity.token_keys".to_owned(), keys.display().to_string()),
    ];
    let settings = Settings::from_pairs(provider);
    let mut reader = settings.reader();
    let identity = IdentityConfig::read(&mut reader);
    let identity = reader.finish(identity).unwrap();
    let key = SessionKey::new(&[1; 32]);
    (Authenticator::new(&identity, key, guard, metrics).unwrap(), dir)
}

impl Fixture {
    /// Sends the token of a person of an organisation with each request from now on.
    async fn become_person_of(&mut self, organisation: &str) {
        // Time stands still until the keys are read.
        let read = self.authenticator.clone().refresh_keys(CancellationToken::new());
        assert!(timeout(Duration::from_secs(1), read).await.is_err(), "no keys are read");
        let mut claims = tokens::claims(now_ms() / 1_000);
        claims["organisation"] = organisation.into();
        self.token = Some(tokens::signed(&claims));
    }

    async fn send(&self, method: &str, path: &str, client: Option<&str>) -> Response {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if let Some(client) = client {
            request = request.header("x-forwarded-for", client);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(ConnectInfo(PROXY));
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Sends a write through a proxy that does not name its client.
    async fn write_of_unnamed_client(&self) -> Response {
        let request = Request::post("/write").header("via", "1.1 proxy");
        let request = request.extension(ConnectInfo(PROXY)).body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn write(&self) -> Response {
        self.send("POST", "/write", Some("192.0.2.1")).await
    }

    /// Returns how many of so many writes are accepted.
    async fn accepted_of(&self, writes: usize) -> usize {
        let mut accepted = 0;
        for _ in 0..writes {
            accepted += usize::from(self.write().await.status() == 200);
        }
        accepted
    }

    fn sample(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let sample = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        text.lines().find_map(sample).unwrap_or_default()
    }
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn without_the_shared_counters_a_process_grants_its_declared_share() {
    let fixture = fixture("address fixed-window 10/1h on=submission on_outage=local-share");
    fixture.shared.away.store(true, Ordering::Relaxed);
    let first = fixture.write().await;
    assert_eq!(header(&first, "ratelimit-policy"), "\"only\";q=5;w=3600;source=local-share");
    assert_eq!(fixture.accepted_of(20).await, 4);
    assert_eq!(fixture.sample("allocator_limits_counters_unreachable"), 1.0);
    let counted = "allocator_limits_outage_requests_total{limit=\"only\",mode=\"local-share\"}";
    assert_eq!(fixture.sample(counted), 21.0);

    fixture.shared.away.store(false, Ordering::Relaxed);
    let back = fixture.write().await;
    assert_eq!(header(&back, "ratelimit-policy"), "\"only\";q=10;w=3600");
    assert_eq!(fixture.accepted_of(20).await, 9);
    assert_eq!(fixture.sample("allocator_limits_counters_unreachable"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn the_share_is_half_of_what_two_processes_admit_for_each_algorithm_and_scope() {
    for scope in ["global", "address", "person", "organisation", "endpoint"] {
        for (quota, share) in [
            ("token-bucket 10/1h burst=7", 4),
            ("leaky-bucket 10/1h burst=7", 5),
            ("fixed-window 9/1h", 5),
            ("sliding-window 9/1h", 5),
        ] {
            let mut fixture = fixture(&format!("{scope} {quota} on=submission"));
            fixture.become_person_of("school").await;
            fixture.shared.away.store(true, Ordering::Relaxed);
            assert_eq!(fixture.accepted_of(20).await, share, "{scope} {quota}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_shared_counters_each_organisation_has_a_share_of_its_own() {
    let mut fixture = fixture("organisation fixed-window 10/1h on=submission");
    fixture.shared.away.store(true, Ordering::Relaxed);
    for organisation in ["school", "library"] {
        fixture.become_person_of(organisation).await;
        assert_eq!(fixture.accepted_of(20).await, 5, "{organisation}");
    }
    // The limit is for those who belong to one.
    fixture.token = None;
    assert_eq!(fixture.accepted_of(20).await, 20);
}

#[tokio::test(start_paused = true)]
async fn without_the_shared_counters_a_policy_may_allow_or_refuse() {
    let allowing = fixture("address fixed-window 1/1h on=submission on_outage=allow");
    allowing.shared.away.store(true, Ordering::Relaxed);
    let allowed = allowing.write().await;
    assert_eq!(header(&allowed, "ratelimit-policy"), "\"only\";q=1;w=3600;on_outage=allow");
    assert_eq!((allowed.status().as_u16(), header(&allowed, "ratelimit")), (200, ""));
    assert_eq!(allowing.accepted_of(20).await, 20);

    let refusing = fixture("address fixed-window 100/1h on=submission on_outage=refuse");
    refusing.shared.away.store(true, Ordering::Relaxed);
    let refused = refusing.write().await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (503, "1"));
    assert_eq!(header(&refused, "ratelimit-policy"), "\"only\";q=100;w=3600;on_outage=refuse");

    let mixed = "address fixed-window 1/1h on=submission on_outage=allow, \
                 other global fixed-window 4/1h on=submission";
    let mixed = fixture(mixed);
    mixed.shared.away.store(true, Ordering::Relaxed);
    let allowed = mixed.write().await;
    assert_eq!(
        header(&allowed, "ratelimit-policy"),
        "\"other\";q=2;w=3600;source=local-share, \"only\";q=1;w=3600;on_outage=allow"
    );
    assert!(header(&allowed, "ratelimit").starts_with("\"other\";r=1;t="));
    assert_eq!(mixed.accepted_of(20).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_is_let_in_and_one_that_waits_a_second_less_is_not() {
    for algorithm in [
        "token-bucket 2/90s burst=1",
        "leaky-bucket 2/90s",
        "fixed-window 1/90s",
        "sliding-window 1/90s",
    ] {
        let fixture = fixture(&format!("address {algorithm} on=submission"));
        assert_eq!(fixture.accepted_of(2).await, 1, "{algorithm}");
        let refused = fixture.write().await;
        assert_eq!(refused.status(), 429, "{algorithm}");
        let retry_after_s: u64 = header(&refused, "retry-after").parse().unwrap();
        advance(Duration::from_secs(retry_after_s - 1)).await;
        assert_eq!(fixture.write().await.status(), 429, "{algorithm}");
        advance(Duration::from_secs(1)).await;
        assert_eq!(fixture.write().await.status(), 200, "{algorithm}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_goes_on_costs_no_calls_of_the_shared_counters() {
    let fixture = fixture("address fixed-window 1/1h on=submission");
    assert_eq!(fixture.accepted_of(2).await, 1);
    let calls = fixture.shared.calls.load(Ordering::Relaxed);
    assert_eq!(fixture.accepted_of(100).await, 0);
    assert_eq!(fixture.shared.calls.load(Ordering::Relaxed), calls);
    let other = fixture.send("POST", "/write", Some("192.0.2.2")).await;
    assert_eq!(other.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_client_address_are_counted_where_a_limit_by_address_would_apply() {
    const WITHOUT_ADDRESS: &str = "allocator_limits_requests_without_address_total";
    let by_address = fixture("address fixed-window 1/1h on=submission");
    for _ in 0..3 {
        assert_eq!(by_address.write_of_unnamed_client().await.status(), 200);
    }
    assert_eq!(by_address.sample(WITHOUT_ADDRESS), 3.0);
    assert_eq!(by_address.write().await.status(), 200);
    // The proxy itself, such as its health check, is exempt.
    assert_eq!(by_address.send("POST", "/write", None).await.status(), 200);
    assert_eq!(by_address.sample(WITHOUT_ADDRESS), 3.0);

    let of_all = fixture("global fixed-window 1/1h on=submission");
    assert_eq!(of_all.write_of_unnamed_client().await.status(), 200);
    assert_eq!(of_all.write_of_unnamed_client().await.status(), 429);
    assert_eq!(of_all.sample(WITHOUT_ADDRESS), 0.0);
}

#[tokio::test(start_paused = true)]
async fn reads_are_counted_by_the_process_alone() {
    let fixture = fixture("address token-bucket 60/60s burst=2 on=read");
    let read = async |client| fixture.send("GET", "/read", client).await;
    for remaining in ["1", "0"] {
        let response = read(Some("192.0.2.1")).await;
        assert_eq!(
            (response.status().as_u16(), header(&response, "x-ratelimit-remaining")),
            (200, remaining)
        );
        assert_eq!(header(&response, "ratelimit-policy"), "\"only\";q=60;w=60;burst=2");
    }
    let refused = read(Some("192.0.2.1")).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (429, "1"));
    assert_eq!(read(Some("192.0.2.2")).await.status(), 200);
    // A proxy that does not name its client stands for many people.
    for _ in 0..5 {
        let response = read(None).await;
        assert_eq!((response.status().as_u16(), header(&response, "ratelimit")), (200, ""));
    }
    assert_eq!(fixture.shared.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_late_or_too_large_is_charged_and_its_answer_shows_the_limits() {
    let fixture = fixture("address fixed-window 10/1h on=submission");
    let config = HttpConfig { max_body_bytes: 10, ..HttpConfig::default() };
    let (metrics, health) = (Metrics::new("http"), Health::default());
    let router = runtime::http::router("test", fixture.router, &metrics, &health, &config);
    let unknown_length =
        |body: &'static str| Body::from_stream(stream::iter([Ok::<_, Infallible>(body)]));
    let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    for (body, status, left) in [
        (unknown_length("0123456789"), 200, "9"),
        (unknown_length("0123456789a"), 413, "8"),
        (never, 408, "7"),
    ] {
        let request = Request::post("/body").header("host", "localhost");
        let request = request.header("x-forwarded-for", "192.0.2.1");
        let mut request = request.body(body).unwrap();
        let peer: SocketAddr = ([127, 0, 0, 1], 40_000).into();
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(header(&response, "x-ratelimit-remaining"), left, "{status}");
        assert!(header(&response, "ratelimit").starts_with("\"only\""), "{response:?}");
        assert_eq!(header(&response, "connection"), if status == 200 { "" } else { "close" });
    }
}
