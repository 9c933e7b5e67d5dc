//! The ingest router on in-memory fakes that fail on demand. Its client calls it without a socket.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::expect_used)]

mod codes;
mod definitions;
mod idempotency;
mod log;
mod people;
mod response;
mod signals;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Method, Request};
use http_body_util::BodyExt;
use identity::Authorizer;
use ingest::{CountedPeople, EmailConfig, IngestConfig, IngestDeps};
use runtime::admin::{AdminConfig, AdminGuard};
use runtime::config::Settings;
use runtime::health::Health;
use runtime::http::HttpConfig;
use runtime::limits::{LimitsConfig, LocalCounters, RequestLimits};
use runtime::metrics::Metrics;
use runtime::principal::IdentityConfig;
use schemas::{
    Budget, PersonId, PersonKey, PersonSalt, PersonSaltState, PersonSecret, RecordDecoder,
    RevokedCodes, default_budgets,
};
use storage::log::NewRecord;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub use codes::FakeCodes;
pub use definitions::FakeDefinitions;
pub use idempotency::FakeIdempotency;
pub use log::{FakeLog, LogMode};
pub use people::FakePeople;
pub use response::{TestResponse, check_problem, check_receipt, pointers};
pub use signals::FakeSignals;

pub const PARTITIONS: u64 = 4;
pub const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
pub const SUBMISSIONS: &str = "/v1/budgets/taxes/submissions";
pub const BATCH: &str = "/v1/budgets/taxes/submissions/batch";
pub const GOOD: &str =
    r#"{"person":"p-1","allocation":{"health":40,"education":35.5,"defence":24.5}}"#;

pub struct Harness {
    pub log: Arc<FakeLog>,
    pub definitions: Arc<FakeDefinitions>,
    pub idempotency: Arc<FakeIdempotency>,
    pub signals: Arc<FakeSignals>,
    pub codes: Arc<FakeCodes>,
    pub people: FakePeople,
    pub metrics: Metrics,
    pub authorizer: Authorizer,
    pub revoked: watch::Sender<RevokedCodes>,
    router: Router,
}

impl Harness {
    pub fn new() -> Self {
        Self::with(2_000, &[])
    }

    /// Builds the router with an in-flight limit, and settings of limits, administrators, persons, mails and HTTP.
    pub fn with(max_in_flight_records: usize, admin: &[(&str, &str)]) -> Self {
        let definitions = Arc::<FakeDefinitions>::default();
        for budget in default_budgets().unwrap() {
            definitions.put(Budget { revision: 1, person_salt: person_salt(), ..budget });
        }
        let log = Arc::new(FakeLog::default());
        let idempotency = Arc::new(FakeIdempotency::default());
        let signals = Arc::<FakeSignals>::default();
        let config = IngestConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            max_in_flight_records,
            signals_enabled: true,
        };
        let metrics = Metrics::new("ingest");
        let admin = admin.iter().map(|(name, text)| ((*name).into(), (*text).into()));
        let settings = Settings::from_pairs(admin);
        let mut reader = settings.reader();
        let (admin, limits) =
            (AdminConfig::read(&mut reader), LimitsConfig::read(&mut reader).unwrap());
        let identity = IdentityConfig::read(&mut reader);
        let email = EmailConfig::read(&mut reader).unwrap();
        let http = HttpConfig::read(&mut reader).unwrap();
        let (admin, identity) = reader.finish(admin.zip(identity)).unwrap();
        let admin = AdminGuard::new(&admin, &metrics).unwrap();
        let revoked = watch::Sender::new(RevokedCodes::none());
        let authorizer = Authorizer::new(
            &identity,
            &person_secret(),
            revoked.subscribe(),
            admin.clone(),
            &metrics,
        )
        .unwrap();
        let counters = Arc::<LocalCounters>::default();
        let authenticator = authorizer.authenticator().clone();
        let limits =
            RequestLimits::new(&limits, http.max_requests, authenticator, counters, &metrics)
                .unwrap();
        let codes = Arc::new(FakeCodes::default());
        let stop = CancellationToken::new();
        let email =
            ingest::email_sign_in(&email, &person_secret(), codes.clone(), &metrics, stop).unwrap();
        let people = FakePeople::default();
        let deps = IngestDeps {
            log: log.clone(),
            definitions: definitions.clone(),
            idempotency: idempotency.clone(),
            person_secret: person_secret(),
            signals: signals.clone(),
            people: Arc::new(people.counted()),
            admin,
            limits,
            authorizer: authorizer.clone(),
            email,
        };
        let (routes, _pending_signals) = ingest::routes(&config, deps, &metrics).unwrap();
        let router = runtime::http::router("ingest", routes, &metrics, &Health::default(), &http);
        Self {
            log,
            definitions,
            idempotency,
            signals,
            codes,
            people,
            metrics,
            authorizer,
            revoked,
            router,
        }
    }

    /// Changes the default budget.
    pub fn edit_budget(&self, change: impl FnOnce(&mut Budget)) {
        let mut budget = Budget::clone(&self.definitions.get("taxes").unwrap());
        change(&mut budget);
        self.definitions.put(budget);
    }

    pub async fn post(&self, path: &str, body: impl Into<Body>) -> TestResponse {
        self.post_with(path, &[], body).await
    }

    pub async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> TestResponse {
        let json = [("content-type", "application/json")];
        let headers = [&json[..], headers].concat();
        self.send(Method::POST, path, &headers, body).await
    }

    pub async fn delete(&self, path: &str, headers: &[(&str, &str)]) -> TestResponse {
        self.send(Method::DELETE, path, headers, Body::empty()).await
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> TestResponse {
        let mut request = Request::builder().method(method).uri(path);
        // A later header replaces an earlier one of the same name.
        let headers: HashMap<&str, &str> =
            [("host", "localhost")].iter().chain(headers).copied().collect();
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(body.into()).unwrap();
        let peer: SocketAddr = ([127, 0, 0, 1], 40_000).into();
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        TestResponse { status: parts.status, headers: parts.headers, body }
    }

    /// Person and shares of each record in the log. A withdrawal has no shares.
    pub fn logged(&self) -> Vec<(PersonKey, Vec<u32>)> {
        let mut decoder = RecordDecoder::default();
        let records = self.log.records.lock();
        let read = |record: &NewRecord| {
            let view = decoder.decode(record.key.as_bytes(), &record.value).unwrap();
            assert_eq!(view.budget, "taxes");
            (view.person, view.basis_points.to_vec())
        };
        records.iter().map(read).collect()
    }

    /// The value of `allocator_ingest_submissions_total` for one outcome.
    pub fn counted(&self, outcome: &str) -> u64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let name = format!("allocator_ingest_submissions_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
    }
}

pub fn person_secret() -> PersonSecret {
    PersonSecret::new(SECRET).unwrap()
}

/// The secret of the default budget's persons.
fn person_salt() -> PersonSaltState {
    PersonSaltState::Salted(PersonSalt::from_bytes([9; 32]))
}

pub fn key(person: &str) -> PersonKey {
    key_of(&PersonId::parse(person).unwrap())
}

/// Derives the key of a person in the default budget.
pub fn key_of(person: &PersonId) -> PersonKey {
    let budget = Budget { person_salt: person_salt(), ..default_budgets().unwrap().remove(0) };
    person_secret().for_budget(&budget).unwrap().key(person)
}

/// Waits until a condition holds.
pub async fn until(condition: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the condition never held");
}
