//! The ingest router on in-memory fakes that fail on demand. Its client calls it without a socket.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use identity::Admission;
use ingest::{IngestConfig, IngestDeps};
use runtime::admin::{AdminConfig, AdminGuard};
use runtime::config::Settings;
use runtime::health::Health;
use runtime::http::HttpConfig;
use runtime::limits::{LimitsConfig, LocalCounters, RequestLimits};
use runtime::metrics::Metrics;
use runtime::principal::IdentityConfig;
use schemas::{
    Budget, BudgetId, ClientReceipt, LogNumber, Offset, PartitionCount, PartitionId, PersonId,
    PersonKey, PersonKeyHasher, Receipt, ReceiptProof, RecordDecoder, StoredBudget, SubmissionId,
    default_budgets, partition_for,
};
use serde_json::Value;
use storage::control::{BudgetDefinitions, Catalog, Change, DefinitionError, Deletion};
use storage::idempotency::{BeginOutcome, Idempotency, IdempotentSubmission};
use storage::log::{AppendError, LogWriter, NewRecord};
use tokio::sync::{Notify, watch};
use tower::ServiceExt;

pub const PARTITIONS: u64 = 4;
pub const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
pub const SUBMISSIONS: &str = "/v1/budgets/taxes/submissions";
pub const BATCH: &str = "/v1/budgets/taxes/submissions/batch";
pub const GOOD: &str =
    r#"{"person":"p-1","allocation":{"health":40,"education":35.5,"defence":24.5}}"#;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the fake log responds to appends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogMode {
    /// Appends succeed.
    #[default]
    Accepts,
    /// The log reports itself as unavailable.
    Unavailable,
    /// The log reports itself as available, and every append fails.
    RejectsAppends,
    /// Appends succeed, but the writer reports an unknown outcome.
    OutcomeUnknown,
}

#[derive(Default)]
pub struct FakeLog {
    pub mode: Mutex<LogMode>,
    pub records: Mutex<Vec<NewRecord>>,
    /// While set, appends wait for `resume`.
    pub paused: AtomicBool,
    pub waiting_appends: AtomicUsize,
    pub resume: Notify,
    /// Whether the log recognises submission ids, as the embedded log does.
    pub knows_ids: AtomicBool,
}

fn partition_of(record: &NewRecord) -> PartitionId {
    partition_for(&record.key, PartitionCount::new(PARTITIONS).unwrap())
}

impl FakeLog {
    pub fn set_mode(&self, mode: LogMode) {
        *lock(&self.mode) = mode;
    }

    fn unavailable() -> AppendError {
        AppendError::Unavailable("injected fault".into())
    }

    /// Returns why a record is not appended if an earlier one has its submission id.
    fn known(&self, record: &NewRecord) -> Option<AppendError> {
        let (mut decoder, mut earlier) = (RecordDecoder::default(), RecordDecoder::default());
        let view = decoder.decode(record.key.as_bytes(), &record.value).ok()?;
        let log = lock(&self.records);
        let mut offsets = HashMap::new();
        for other in log.iter() {
            let partition = partition_of(other);
            let offset = offsets.entry(partition.0).or_insert(0_u64);
            let address = Receipt { log: LogNumber::FIRST, partition, offset: Offset(*offset) };
            *offset += 1;
            let other = earlier.decode(other.key.as_bytes(), &other.value).ok()?;
            if other.submission_id == view.submission_id {
                return Some(match other.content_digest() == view.content_digest() {
                    true => AppendError::Repeated(address),
                    false => AppendError::IdReused,
                });
            }
        }
        None
    }
}

#[async_trait]
impl LogWriter for FakeLog {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<Receipt, AppendError>> {
        if self.paused.load(Ordering::SeqCst) {
            self.waiting_appends.fetch_add(1, Ordering::SeqCst);
            self.resume.notified().await;
        }
        let mode = *lock(&self.mode);
        let mut log = lock(&self.records);
        records
            .into_iter()
            .map(|record| {
                let partition = partition_of(&record);
                let offset =
                    log.iter().filter(|record| partition_of(record) == partition).count() as u64;
                let receipt = Receipt { log: LogNumber::FIRST, partition, offset: Offset(offset) };
                match mode {
                    LogMode::Unavailable | LogMode::RejectsAppends => {
                        return Err(Self::unavailable());
                    }
                    LogMode::Accepts | LogMode::OutcomeUnknown => log.push(record),
                }
                match mode {
                    LogMode::OutcomeUnknown => Err(AppendError::Unknown("injected fault".into())),
                    _ => Ok(receipt),
                }
            })
            .collect()
    }

    async fn append_once_per_id(
        &self,
        records: Vec<NewRecord>,
    ) -> Vec<Result<Receipt, AppendError>> {
        if !self.knows_ids.load(Ordering::SeqCst) {
            return self.append(records).await;
        }
        let mut results = Vec::new();
        for record in records {
            results.push(match self.known(&record) {
                Some(known) => Err(known),
                None => self.append(vec![record]).await.remove(0),
            });
        }
        results
    }

    fn available(&self) -> Result<(), AppendError> {
        match *lock(&self.mode) {
            LogMode::Unavailable => Err(Self::unavailable()),
            _ => Ok(()),
        }
    }
}

pub struct FakeDefinitions {
    pub catalog: Mutex<Arc<Catalog>>,
    pub loaded: AtomicBool,
    pub failing: AtomicBool,
    pub changes: AtomicUsize,
    /// Applied just before the next change, as a concurrent writer would.
    pub concurrent_change: Mutex<Option<Budget>>,
    /// Applied just before the next confirmation is read, as a processor would.
    pub before_confirmation: Mutex<Option<Budget>>,
    /// The control topic cannot be read to its end.
    pub unconfirmed: AtomicBool,
    /// Reading the control topic to its end takes for ever.
    pub confirmation_hangs: AtomicBool,
    pub confirmations: AtomicUsize,
    changed: watch::Sender<()>,
}

impl FakeDefinitions {
    pub fn put(&self, budget: Budget) {
        let mut catalog = lock(&self.catalog);
        *catalog = Arc::new(catalog.with(Arc::new(budget)));
    }

    /// Adds a definition as another release stored it.
    pub fn put_stored(&self, json: &str) {
        let id = StoredBudget::id(json.as_bytes()).unwrap();
        let mut catalog = lock(&self.catalog);
        *catalog = Arc::new(catalog.with_stored(&id, StoredBudget::parse(json.as_bytes())));
    }

    pub fn get(&self, id: &str) -> Option<Arc<Budget>> {
        lock(&self.catalog).get(id).cloned()
    }
}

#[async_trait]
impl BudgetDefinitions for FakeDefinitions {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&lock(&self.catalog))
    }

    fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::SeqCst)
    }

    async fn confirmed(&self) -> Result<Arc<Catalog>, DefinitionError> {
        self.confirmations.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        if self.confirmation_hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.unconfirmed.load(Ordering::SeqCst) {
            return Err(DefinitionError::Unavailable("injected fault".into()));
        }
        if let Some(budget) = lock(&self.before_confirmation).take() {
            self.put(budget);
        }
        Ok(self.catalog())
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    async fn change(
        &self,
        id: &BudgetId,
        decide: &Change<'_>,
    ) -> Result<Arc<Budget>, DefinitionError> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        // The real implementations yield too, so that other tasks interleave.
        tokio::task::yield_now().await;
        if self.failing.load(Ordering::SeqCst) {
            return Err(DefinitionError::Unavailable("injected fault".into()));
        }
        if let Some(budget) = lock(&self.concurrent_change).take() {
            self.put(budget);
        }
        let current = lock(&self.catalog).changeable(id.as_str())?.cloned();
        match decide(current.as_deref())? {
            Some(next) => {
                let next = self.catalog().numbered(next);
                self.put(next);
                Ok(self.get(id.as_str()).unwrap())
            }
            None => Ok(current.unwrap()),
        }
    }

    async fn delete(&self, id: &BudgetId, decide: &Deletion<'_>) -> Result<(), DefinitionError> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(DefinitionError::Unavailable("injected fault".into()));
        }
        let mut catalog = lock(&self.catalog);
        let current = catalog.changeable(id.as_str())?.cloned();
        decide(current.as_deref())?;
        *catalog = Arc::new(catalog.without(id, current.unwrap().revision + 1));
        Ok(())
    }
}

/// A content digest, and the receipt once the submission is accepted.
type KnownSubmission = (u64, Option<Receipt>);

#[derive(Default)]
pub struct FakeIdempotency {
    known: Mutex<HashMap<(BudgetId, SubmissionId), KnownSubmission>>,
    pub begun: AtomicUsize,
}

impl FakeIdempotency {
    /// Forgets every id, as a restart does.
    pub fn forget_all(&self) {
        lock(&self.known).clear();
    }
}

#[async_trait]
impl Idempotency for FakeIdempotency {
    async fn begin(&self, attempts: &[IdempotentSubmission]) -> Vec<BeginOutcome> {
        self.begun.fetch_add(attempts.len(), Ordering::SeqCst);
        let mut known = lock(&self.known);
        attempts
            .iter()
            .map(|attempt| {
                let key = (attempt.budget.clone(), attempt.submission);
                match known.get(&key) {
                    None => {
                        known.insert(key, (attempt.digest, None));
                        BeginOutcome::First
                    }
                    Some((digest, _)) if *digest != attempt.digest => BeginOutcome::Reused,
                    Some((_, Some(receipt))) => BeginOutcome::Repeat(*receipt),
                    Some((_, None)) => BeginOutcome::InFlight,
                }
            })
            .collect()
    }

    async fn finish(&self, outcomes: &[(IdempotentSubmission, Option<Receipt>)]) {
        let mut known = lock(&self.known);
        for (attempt, receipt) in outcomes {
            let key = (attempt.budget.clone(), attempt.submission);
            match receipt {
                Some(_) => known.insert(key, (attempt.digest, *receipt)),
                None => known.remove(&key),
            };
        }
    }
}

pub struct Harness {
    pub log: Arc<FakeLog>,
    pub definitions: Arc<FakeDefinitions>,
    pub idempotency: Arc<FakeIdempotency>,
    pub metrics: Metrics,
    pub admission: Admission,
    router: Router,
}

pub struct TestResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Harness {
    pub fn new() -> Self {
        Self::with(1_000, &[])
    }

    /// Builds the router with an in-flight limit and admin settings.
    pub fn with(max_in_flight_records: usize, admin: &[(&str, &str)]) -> Self {
        let definitions = Arc::new(FakeDefinitions {
            catalog: Mutex::default(),
            loaded: AtomicBool::new(true),
            failing: AtomicBool::new(false),
            changes: AtomicUsize::new(0),
            concurrent_change: Mutex::default(),
            before_confirmation: Mutex::default(),
            unconfirmed: AtomicBool::new(false),
            confirmation_hangs: AtomicBool::new(false),
            confirmations: AtomicUsize::new(0),
            changed: watch::Sender::new(()),
        });
        for budget in default_budgets().unwrap() {
            definitions.put(Budget { revision: 1, ..budget });
        }
        let log = Arc::new(FakeLog::default());
        let idempotency = Arc::new(FakeIdempotency::default());
        let config = IngestConfig { listen: ([127, 0, 0, 1], 0).into(), max_in_flight_records };
        let metrics = Metrics::new("ingest");
        let admin = admin.iter().map(|(name, text)| ((*name).into(), (*text).into()));
        let settings = Settings::from_pairs(admin);
        let mut reader = settings.reader();
        let (admin, limits) =
            (AdminConfig::read(&mut reader), LimitsConfig::read(&mut reader).unwrap());
        let identity = IdentityConfig::read(&mut reader);
        let (admin, identity) = reader.finish(admin.zip(identity)).unwrap();
        let admin = AdminGuard::new(&admin, &metrics).unwrap();
        let admission = Admission::new(&identity, &hasher(), admin.clone(), &metrics).unwrap();
        let counters = Arc::<LocalCounters>::default();
        let limits = RequestLimits::new(&limits, admin.clone(), counters, &metrics).unwrap();
        let deps = IngestDeps {
            log: log.clone(),
            definitions: definitions.clone(),
            idempotency: idempotency.clone(),
            hasher: hasher(),
            admin,
            limits,
            admission: admission.clone(),
        };
        let routes = ingest::routes(&config, deps, &metrics).unwrap();
        let http = HttpConfig::default();
        let router = runtime::http::router("ingest", routes, &metrics, &Health::default(), &http);
        Self { log, definitions, idempotency, metrics, admission, router }
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
        let headers: HashMap<&str, &str> = headers.iter().copied().collect();
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
        let records = lock(&self.log.records);
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

pub fn hasher() -> PersonKeyHasher {
    PersonKeyHasher::new(SECRET).unwrap()
}

pub fn key(person: &str) -> PersonKey {
    hasher().key(&BudgetId::parse("taxes").unwrap(), &PersonId::parse(person).unwrap())
}

impl TestResponse {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Checks that the response is a complete problem of this kind and returns its detail.
    #[track_caller]
    pub fn problem(&self, status: u16, slug: &str) -> String {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{text}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert!(self.header("x-request-id").is_some());
        let problem = self.json();
        check_problem(&problem, status, slug);
        assert_eq!(problem["instance"].as_str(), self.header("x-request-id"));
        problem["detail"].as_str().unwrap().to_owned()
    }

    /// The pointers of the problem's faults.
    pub fn pointers(&self) -> Vec<String> {
        pointers(&self.json())
    }

    /// Checks the response to an accepted submission and returns its receipt.
    #[track_caller]
    pub fn accepted(&self) -> Receipt {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), 202, "{text}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body = self.json();
        assert_eq!(body["status"], "accepted");
        let receipt = check_receipt(&body);
        assert_eq!(self.header("consistency-token"), body["receipt"].as_str());
        receipt
    }
}

#[track_caller]
pub fn check_problem(problem: &Value, status: u16, slug: &str) {
    assert_eq!(problem["type"], format!("/problems/{slug}"), "{problem}");
    assert_eq!(problem["status"], status);
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
}

pub fn pointers(problem: &Value) -> Vec<String> {
    let errors = problem["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

/// Returns the receipt of an accepted submission after checking that the body's fields agree.
#[track_caller]
pub fn check_receipt(body: &Value) -> Receipt {
    let text = body["receipt"].as_str().unwrap();
    let presented: ClientReceipt = text.parse().unwrap();
    let taxes = BudgetId::parse("taxes").unwrap();
    assert_eq!(hasher().receipt_signer().proof(&taxes, presented), ReceiptProof::Signed);
    let receipt = presented.address;
    assert_eq!(body["budget"], "taxes");
    assert_eq!(body["partition"], receipt.partition.0);
    assert_eq!(body["offset"], receipt.offset.0);
    assert_eq!(body["submission_id"].as_str().unwrap().len(), 36);
    receipt
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
