//! The API over fakes, behind the whole HTTP stack, and small builders of what it reads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiConfig, ApiParts};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use runtime::admin::{AdminConfig, AdminGuard};
use runtime::config::Settings;
use runtime::health::{Health, HealthConfig};
use runtime::http::HttpConfig;
use runtime::metrics::Metrics;
use schemas::*;
use serde_json::Value;
use storage::exports::Exports;
use storage::store::Store;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::fakes::*;

/// The budgets of every world: the default one and three more.
pub const BUDGETS: [&str; 4] = ["taxes", "town", "park", "school"];

#[derive(Clone)]
pub struct World {
    pub cache: Arc<FakeCache>,
    pub store: Arc<FakeStore>,
    pub definitions: Arc<FakeDefinitions>,
    pub jobs: Arc<FakeJobs>,
    pub letters: Arc<FakeLetters>,
    /// The folder of exports.
    pub exports: Arc<TempDir>,
    pub hasher: PersonKeyHasher,
    pub health: Health,
    pub metrics: Metrics,
    /// The templates of all paths.
    pub paths: Vec<String>,
    router: Router,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The tier that the answer says it is from, with `stale` for memory's last resort.
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

impl World {
    /// A world in which everything works and nobody has submitted anything.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// A world with some settings.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::build(settings, |store| store)
    }

    /// A world whose store is reached in another way.
    pub fn through(way: impl FnOnce(Arc<FakeStore>) -> Arc<dyn Store>) -> Self {
        Self::build(&[], way)
    }

    fn build(
        settings: &[(&str, &str)],
        way: impl FnOnce(Arc<FakeStore>) -> Arc<dyn Store>,
    ) -> Self {
        let pairs = settings.iter().map(|(name, text)| ((*name).into(), (*text).into()));
        let settings = Settings::from_pairs(pairs);
        let mut reader = settings.reader();
        let (config, admin) = (ApiConfig::read(&mut reader), AdminConfig::read(&mut reader));
        let (config, admin) = reader.finish(config.zip(admin)).unwrap();

        let (cache, store) = (Arc::<FakeCache>::default(), Arc::<FakeStore>::default());
        let definitions = Arc::<FakeDefinitions>::default();
        for budget in BUDGETS {
            definitions.put(self::budget(budget));
            store.put(budget, vec![Some(BudgetTotals::default()); 3]);
        }
        let exports = Arc::new(TempDir::new().unwrap());
        let (jobs, letters) = (Arc::<FakeJobs>::default(), Arc::<FakeLetters>::default());
        let hasher = PersonKeyHasher::new(&[7; 32]).unwrap();
        let health = Health::new(&HealthConfig::default());
        let metrics = Metrics::new("api");
        let parts = ApiParts {
            store: way(Arc::clone(&store)),
            cache: cache.clone(),
            definitions: definitions.clone(),
            hasher: hasher.clone(),
            jobs: jobs.clone(),
            letters: Arc::new(OpenedBy(letters.clone())),
            exports: Exports::new(exports.path()),
            admin: AdminGuard::new(&admin, &metrics).unwrap(),
        };
        let stop = CancellationToken::new();
        let routes = api::routes(&config, parts, &metrics, &health, stop).unwrap();
        let paths = paths_of(&routes);
        // The server measures by the real clock, which the test's own leaves behind.
        let http =
            HttpConfig { request_timeout: Duration::from_secs(86_400), ..HttpConfig::default() };
        let router = runtime::http::router("api", routes, &metrics, &health, &http);
        Self {
            cache,
            store,
            definitions,
            jobs,
            letters,
            exports,
            hasher,
            health,
            metrics,
            paths,
            router,
        }
    }

    /// Lets the background task take its first look at everything.
    pub async fn settled(self) -> Self {
        until("ready", || self.health.is_ready()).await;
        self
    }

    /// The same people in the copy and in the committed totals, without news.
    pub fn commit(&self, budget: &str, people: &[(u32, [u16; 2])]) {
        let parts = parts(people);
        self.cache.put(budget, Some(merged(&parts)));
        self.store.put(budget, parts);
    }

    pub async fn get(&self, path: &str) -> Got {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Got {
        self.send("GET", path, headers).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Got {
        self.send_body(method, path, headers, "").await
    }

    pub async fn send_body(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Got {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.answer(request.body(Body::from(body.to_owned())).unwrap()).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.into()).unwrap();
        Got { status: parts.status, headers: parts.headers, text }
    }

    /// An answer whose body nobody has read yet.
    pub async fn open(&self, path: &str) -> Response {
        self.answer(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn answer(&self, mut request: Request<Body>) -> Response {
        let peer: SocketAddr = ([127, 0, 0, 1], 40_000).into();
        request.extensions_mut().insert(ConnectInfo(peer));
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn aggregate(&self, budget: &str) -> Got {
        self.get(&format!("/v1/budgets/{budget}/aggregate")).await
    }

    /// The value of one sample of `/metrics`; 0 when there is none.
    pub fn metric(&self, sample: &str) -> f64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// The paths of a router, which it tells of only where it prints itself.
fn paths_of(router: &Router) -> Vec<String> {
    let printed = format!("{router:?}");
    let quoted = printed.split('"').skip(1).step_by(2);
    let mut paths: Vec<String> =
        quoted.filter(|text| text.starts_with('/')).map(str::to_owned).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// Waits for a condition, at most a minute of the test's own time.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never {what}");
}

/// A budget of two categories.
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
        results: Results::Live,
        minimum_people: 1,
        identity: Identity::Required,
        revision: 1,
        frozen: true,
    }
}

/// The committed totals of people, each given by partition and shares; each is one record.
pub fn parts(people: &[(u32, [u16; 2])]) -> Vec<Option<BudgetTotals>> {
    let mut parts = vec![BudgetTotals::default(); 3];
    for (partition, shares) in people {
        let totals = &mut parts[*partition as usize];
        totals.position = Position(totals.position.0 + 1);
        totals.people += 1;
        totals.updated_at_ms = 1_795_212_000_000;
        totals.categories.resize(2, CategoryTotals::default());
        for (category, share) in totals.categories.iter_mut().zip(shares) {
            category.basis_points += u64::from(*share);
            category.people_by_percent[usize::from(share / 100)] += 1;
        }
    }
    parts.into_iter().map(Some).collect()
}

pub fn merged(parts: &[Option<BudgetTotals>]) -> CombinedTotals {
    CombinedTotals::merge(Term::FIRST, partitions(), parts).unwrap()
}

/// A person's row; `shares` is empty after a withdrawal.
pub fn row(person: PersonKey, budget: &str, offset: u64, shares: &[u16]) -> PersonRow {
    PersonRow {
        person,
        budget: id(budget),
        offset: Offset(offset),
        basis_points: shares.to_vec(),
        recent: [None; RECENT_SUBMISSIONS],
    }
}
