//! The read API over fakes, behind the whole HTTP stack, and builders of test data.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiConfig, ApiDeps};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use identity::Authorizer;
use runtime::admin::{AdminConfig, AdminGuard};
use runtime::client::TrustedProxies;
use runtime::config::Settings;
use runtime::health::{Health, HealthConfig};
use runtime::http::HttpConfig;
use runtime::limits::{LimitsConfig, LocalCounters, RequestLimits};
use runtime::metrics::Metrics;
use runtime::principal::IdentityConfig;
use schemas::*;
use serde_json::Value;
use storage::control::BudgetDefinitions;
use storage::exports::Exports;
use storage::store::Store;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::fakes::*;

/// The budgets of every test server: the default budget and three more.
pub const BUDGETS: [&str; 4] = ["taxes", "town", "park", "school"];

#[derive(Clone)]
pub struct TestServer {
    pub cache: Arc<FakeCache>,
    pub store: Arc<FakeStore>,
    pub definitions: Arc<FakeDefinitions>,
    pub jobs: Arc<FakeJobs>,
    pub dead_letters: Arc<FakeDeadLetters>,
    pub signals: Arc<FakeSignals>,
    pub annulments: Arc<FakeAnnulments>,
    /// The export folder.
    pub exports: Arc<TempDir>,
    pub person_secret: PersonSecret,
    pub authorizer: Authorizer,
    pub revoked: watch::Sender<RevokedCodes>,
    pub health: Health,
    pub metrics: Metrics,
    /// Ends streams, as a process does that stops.
    pub stop: CancellationToken,
    /// The path templates of all routes.
    pub paths: Vec<String>,
    router: Router,
}

/// A response with its whole body.
#[derive(Debug, Clone)]
pub struct TestResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl TestResponse {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// Returns the tier that `Cache-Status` names; `stale` for memory's last answer.
    pub fn tier(&self) -> &str {
        let last = self.header("cache-status").rsplit(", ").next().unwrap();
        match last {
            "allocator-memory; hit; detail=stale" => "stale",
            _ => last.strip_prefix("allocator-").and_then(|l| l.strip_suffix("; hit")).unwrap(),
        }
    }

    pub fn people(&self) -> u64 {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()["people"].as_u64().unwrap()
    }
}

impl TestServer {
    /// Creates a server without submissions; every backend works.
    pub fn new() -> Self {
        Self::with_settings(&[])
    }

    /// Creates a server with some settings.
    pub fn with_settings(settings: &[(&str, &str)]) -> Self {
        Self::build(settings, |store| store)
    }

    /// Creates a server over a decorated store.
    pub fn with_store(decorate: impl FnOnce(Arc<FakeStore>) -> Arc<dyn Store>) -> Self {
        Self::build(&[], decorate)
    }

    fn build(
        settings: &[(&str, &str)],
        decorate: impl FnOnce(Arc<FakeStore>) -> Arc<dyn Store>,
    ) -> Self {
        let pairs = settings.iter().map(|(name, text)| ((*name).into(), (*text).into()));
        let settings = Settings::from_pairs(pairs);
        let mut reader = settings.reader();
        let (config, admin) = (ApiConfig::read(&mut reader), AdminConfig::read(&mut reader));
        let limits = LimitsConfig::read(&mut reader).unwrap();
        let identity = IdentityConfig::read(&mut reader);
        let http = HttpConfig::read(&mut reader).unwrap();
        let read = reader.finish(config.zip(admin).zip(identity));
        let ((config, admin), identity) = read.unwrap();

        let (cache, store) = (Arc::<FakeCache>::default(), Arc::<FakeStore>::default());
        let definitions = Arc::<FakeDefinitions>::default();
        for budget in BUDGETS {
            definitions.put(self::budget(budget));
            store.put(budget, vec![Some(BudgetTotals::default()); 3]);
        }
        let exports = Arc::new(TempDir::new().unwrap());
        let (jobs, dead_letters) = (Arc::<FakeJobs>::default(), Arc::<FakeDeadLetters>::default());
        let signals = Arc::<FakeSignals>::default();
        let annulments = Arc::<FakeAnnulments>::default();
        let person_secret = PersonSecret::new(&[7; 32]).unwrap();
        let health = Health::new(&HealthConfig::default());
        let metrics = Metrics::new("api");
        let admin = AdminGuard::new(&admin, &metrics).unwrap();
        let counters = Arc::<LocalCounters>::default();
        let revoked = watch::Sender::new(RevokedCodes::none());
        let authorizer = Authorizer::new(
            &identity,
            &person_secret,
            revoked.subscribe(),
            admin.clone(),
            &metrics,
        )
        .unwrap();
        let authenticator = authorizer.authenticator().clone();
        let limits =
            RequestLimits::new(&limits, http.max_requests, authenticator, counters, &metrics)
                .unwrap();
        let deps = ApiDeps {
            store: decorate(Arc::clone(&store)),
            cache: cache.clone(),
            definitions: definitions.clone(),
            person_secret: person_secret.clone(),
            jobs: jobs.clone(),
            dead_letters: Arc::new(FakeDeadLetterOpener(dead_letters.clone())),
            signals: signals.clone(),
            signal_eraser: signals.clone(),
            annulments: annulments.clone(),
            exports: Exports::new(exports.path()),
            admin,
            limits,
            authorizer: authorizer.clone(),
        };
        let stop = CancellationToken::new();
        let routes = api::routes(&config, deps, &metrics, &health, stop.clone()).unwrap();
        let paths = router_paths(&routes);
        // The HTTP server's timeouts use the real clock, which the paused clock runs ahead of.
        let http = HttpConfig { request_timeout: Duration::from_secs(86_400), ..http };
        let router = runtime::http::router("api", routes, &metrics, &health, &http);
        Self {
            cache,
            store,
            definitions,
            jobs,
            dead_letters,
            signals,
            annulments,
            exports,
            person_secret,
            authorizer,
            revoked,
            health,
            metrics,
            stop,
            paths,
            router,
        }
    }

    /// Derives the key of a person in a defined budget.
    pub fn key(&self, budget: &str, person: &PersonId) -> PersonKey {
        let catalog = self.definitions.catalog();
        self.person_secret.for_budget(catalog.get(budget).unwrap()).unwrap().key(person)
    }

    /// Waits until the background task has made the server ready.
    pub async fn until_ready(self) -> Self {
        wait_until("ready", || self.health.is_ready()).await;
        self
    }

    /// Sets the same totals in the cache and the store, without a cache update.
    pub fn commit(&self, budget: &str, people: &[(u32, [u16; 2])]) {
        let partition_totals = partition_totals(people);
        self.cache.put(budget, Some(combined(&partition_totals)));
        self.store.put(budget, partition_totals);
    }

    /// Commits people, and then the close markers of these partitions.
    pub fn commit_closed(&self, budget: &str, people: &[(u32, [u16; 2])], closed: &[u32]) {
        let mut partition_totals = partition_totals(people);
        for partition in closed {
            let totals = partition_totals[*partition as usize].as_mut().unwrap();
            let marker = Marker { kind: MarkerKind::Close, revision: 9 };
            totals.closing.fold(marker, Offset(totals.position.0));
            totals.position.0 += 1;
        }
        self.cache.put(budget, Some(combined(&partition_totals)));
        self.store.put(budget, partition_totals);
    }

    pub async fn get(&self, path: &str) -> TestResponse {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> TestResponse {
        self.send("GET", path, headers).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> TestResponse {
        self.send_body(method, path, headers, "").await
    }

    pub async fn send_body(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> TestResponse {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.respond(request.body(Body::from(body.to_owned())).unwrap()).await;
        let (partition_totals, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.into()).unwrap();
        TestResponse { status: partition_totals.status, headers: partition_totals.headers, text }
    }

    /// Sends a GET and returns the response with its body unread.
    pub async fn open(&self, path: &str) -> Response {
        self.open_with(path, &[]).await
    }

    /// Sends a GET with headers and returns the response with its body unread.
    pub async fn open_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.respond(request.body(Body::empty()).unwrap()).await
    }

    async fn respond(&self, mut request: Request<Body>) -> Response {
        request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("localhost"));
        let peer: SocketAddr = ([127, 0, 0, 1], 40_000).into();
        request.extensions_mut().insert(ConnectInfo(peer));
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Serves the routes on a TCP port, until `stop` is cancelled. Returns its address.
    pub fn serve(&self, stop: CancellationToken) -> SocketAddr {
        let listener = runtime::http::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (router, metrics) = (self.router.clone(), Metrics::new("http"));
        tokio::spawn(async move {
            let (config, proxies) = (HttpConfig::default(), TrustedProxies::default());
            runtime::http::serve(listener, router, &config, &proxies, &metrics, stop).await
        });
        address
    }

    pub async fn aggregate(&self, budget: &str) -> TestResponse {
        self.get(&format!("/v1/budgets/{budget}/aggregate")).await
    }

    /// Returns the value of one sample of `/metrics`; 0 when there is none.
    pub fn metric(&self, sample: &str) -> f64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// Extracts the paths of a router from its debug output. No other interface lists them.
fn router_paths(router: &Router) -> Vec<String> {
    let printed = format!("{router:?}");
    let quoted = printed.split('"').skip(1).step_by(2);
    let mut paths: Vec<String> =
        quoted.filter(|text| text.starts_with('/')).map(str::to_owned).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// Waits for a condition, at most a minute of the paused clock.
pub async fn wait_until(description: &str, condition: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("timed out waiting for: {description}");
}

/// Builds a budget of two categories.
pub fn budget(name: &str) -> Budget {
    let category = |slug: &str| Category {
        id: CategoryId::parse(slug).unwrap(),
        name: slug.to_uppercase(),
        description: None,
        color: None,
    };
    Budget {
        id: id(name),
        name: format!("The {name} budget"),
        categories: vec![category("health"), category("education")],
        opens_at: None,
        closes_at: None,
        results: ResultsVisibility::Live,
        minimum_people: 1,
        max_people: None,
        publish_step: 1,
        identity: IdentityRule::Required,
        presentation: Default::default(),
        revision: 1,
        frozen: true,
        closing: None,
        person_salt: PersonSaltState::Salted(PersonSalt::from_bytes([9; 32])),
    }
}

/// Builds the committed totals of people, each given by partition and shares; one record per person.
pub fn partition_totals(people: &[(u32, [u16; 2])]) -> Vec<Option<BudgetTotals>> {
    let mut partition_totals = vec![BudgetTotals::default(); 3];
    for (partition, shares) in people {
        count(&mut partition_totals[*partition as usize], *shares);
    }
    partition_totals.into_iter().map(Some).collect()
}

/// Builds the committed totals of people who are shown, and of more people whose submissions are pending.
pub fn pending_totals(
    shown: &[(u32, [u16; 2])],
    pending: &[(u32, [u16; 2])],
) -> Vec<Option<BudgetTotals>> {
    let mut partition_totals = partition_totals(shown);
    for (number, (partition, shares)) in (1..).zip(pending) {
        let totals = partition_totals[*partition as usize].as_mut().unwrap();
        let is_first = totals.people == 0;
        totals.hold_back(&PersonKey::from_bytes([number; 16]), PublishStep::MAX, is_first);
        count(totals, *shares);
    }
    partition_totals
}

/// Counts a person, by one record.
fn count(totals: &mut BudgetTotals, shares: [u16; 2]) {
    totals.position = Position(totals.position.0 + 1);
    totals.people += 1;
    totals.updated_at_ms = 1_795_212_000_000;
    totals.categories.resize(2, CategoryTotals::default());
    for (category, share) in totals.categories.iter_mut().zip(shares) {
        category.add_share(share);
    }
}

/// Combines what readers are shown, as the cache has it.
pub fn combined(partition_totals: &[Option<BudgetTotals>]) -> CombinedTotals {
    let shown = partition_totals.iter().cloned().map(|part| part.map(BudgetTotals::into_shown));
    CombinedTotals::merge(Term::FIRST, partitions(), &shown.collect::<Vec<_>>()).unwrap()
}

/// Builds a person row; `shares` is empty after a withdrawal.
pub fn row(person: PersonKey, budget: &str, offset: u64, shares: &[u16]) -> PersonRow {
    PersonRow {
        person,
        budget: id(budget),
        offset: Offset(offset),
        basis_points: shares.to_vec(),
        annulled: false,
        recent: [None; RECENT_SUBMISSIONS],
    }
}
