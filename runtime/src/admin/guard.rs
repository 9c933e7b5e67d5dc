//! The middleware of administrator routes: authorizes, applies the rate limits and writes the request record.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use http::request::Parts;

use super::authorize::{Refusal, authorize, bearer_token};
use super::config::AdminConfig;
use super::credentials::{Credentials, LOCAL_NAME, Principal};
use super::limits::Limits;
use super::local_client::is_local;
use super::request_record::{AdminMetrics, RequestOutcome, RequestRecord, resource};
use super::role::Role;
use super::tokens_file::TokensFile;
use crate::client::TrustedProxies;
use crate::http::RequestId;
use crate::limits::Verdict;
use crate::metrics::{Metrics, MetricsError};
use crate::problem::{Problem, ProblemKind};

const TOO_MANY_FAILURES: &str = "too many attempts with a wrong token or code from this address";

/// Credentials and rate limits of all administrator routes of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AdminGuard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` if no credentials are configured, which never changes at runtime.
    credentials: ArcSwapOption<Credentials>,
    /// Path of the tokens file, and its text at the start.
    tokens_file: Option<(Arc<PathBuf>, String)>,
    requests_per_minute: NonZeroU32,
    failures_per_minute: NonZeroU32,
    trusted_proxies: TrustedProxies,
    limits: Limits,
    metrics: AdminMetrics,
}

impl AdminGuard {
    /// Creates the guard from its settings.
    ///
    /// # Errors
    /// If a metric name is taken.
    pub fn new(config: &AdminConfig, metrics: &Metrics) -> Result<Self, MetricsError> {
        let AdminConfig { tokens, requests_per_minute, failures_per_minute, .. } = config;
        let credentials = |file: &TokensFile| Arc::new(file.credentials.clone());
        let file = |file: &TokensFile| (Arc::new(file.path.clone()), file.text.clone());
        Ok(Self(Arc::new(Inner {
            credentials: ArcSwapOption::new(tokens.as_ref().map(credentials)),
            tokens_file: tokens.as_ref().map(file),
            requests_per_minute: *requests_per_minute,
            failures_per_minute: *failures_per_minute,
            trusted_proxies: config.trusted_proxies.clone(),
            limits: Limits::new(*requests_per_minute, *failures_per_minute),
            metrics: AdminMetrics::register(metrics)?,
        })))
    }

    /// Returns the requests allowed per administrator, minute and process.
    pub fn requests_per_minute(&self) -> NonZeroU32 {
        self.0.requests_per_minute
    }

    /// Returns the attempts with a wrong token allowed per client address, minute and process.
    pub fn failures_per_minute(&self) -> NonZeroU32 {
        self.0.failures_per_minute
    }

    /// Counts an attempt with a wrong token or code from an address, on any route of this process.
    ///
    /// # Errors
    /// If the address has made too many.
    pub(crate) fn count_failure(&self, address: IpAddr) -> Result<(), Problem> {
        self.0.count_failure(address)
    }

    /// Returns the proxies whose `X-Forwarded-For` is trusted.
    pub fn trusted_proxies(&self) -> &TrustedProxies {
        &self.0.trusted_proxies
    }

    /// Whether a request has a valid token, or comes from the same machine: limits of the public do not apply to it.
    pub fn trusts(&self, request: &Parts) -> bool {
        let has_token = || {
            let credentials = self.0.credentials.load();
            let token = bearer_token(&request.headers);
            let credentials = credentials.as_deref();
            credentials
                .zip(token)
                .is_some_and(|(known, token)| known.find_by_token(token).is_some())
        };
        is_local(request) || has_token()
    }

    /// Returns all administrators, with the number of requests each has left now.
    pub fn remaining_requests(&self) -> Vec<(Principal, u32)> {
        let with_remaining = |principal: Principal| {
            let remaining = self.0.limits.remaining_requests(principal.slot);
            (principal, remaining)
        };
        match self.0.credentials.load().as_deref() {
            None => vec![with_remaining(Principal::local())],
            Some(credentials) => credentials
                .0
                .iter()
                .map(|(principal, _)| with_remaining(principal.clone()))
                .collect(),
        }
    }

    /// Returns the holder of a token, if it is a credential.
    pub fn find_by_token(&self, token: &[u8]) -> Option<Principal> {
        self.0.credentials.load().as_deref()?.find_by_token(token).cloned()
    }

    /// Returns the administrator that clients on the same machine are; `None` if credentials are configured.
    pub(crate) fn local_administrator(&self) -> Option<Principal> {
        self.0.credentials.load().is_none().then(Principal::local)
    }

    /// Returns the name of the service that clients on the same machine are; `None` if a submitter's token is
    /// configured.
    pub(crate) fn local_service(&self) -> Option<&'static str> {
        let credentials = self.0.credentials.load();
        let has_submitter = credentials.as_deref().is_some_and(Credentials::has_submitter);
        (!has_submitter).then_some(LOCAL_NAME)
    }

    /// Returns the path of the tokens file, and its text at the start.
    pub(super) fn tokens_file(&self) -> Option<(Arc<PathBuf>, String)> {
        self.0.tokens_file.clone()
    }

    /// Replaces the credentials.
    pub(super) fn replace_credentials(&self, credentials: Credentials) {
        let previous = self.0.credentials.load_full();
        let next = match &previous {
            Some(previous) => credentials.keep_slots_of(previous),
            None => credentials,
        };
        self.0.credentials.store(Some(Arc::new(next)));
    }

    /// Exports whether the tokens file is invalid.
    pub(super) fn set_tokens_file_wrong(&self, wrong: bool) {
        self.0.metrics.tokens_file_wrong.set(i64::from(wrong));
    }
}

impl Inner {
    /// Authorizes a request and counts it against the rate limits.
    ///
    /// # Errors
    /// The problem to respond with.
    fn admit(
        &self,
        request: &Parts,
        client: IpAddr,
        required: Role,
        record: &mut RequestRecord,
    ) -> Result<Verdict, Problem> {
        let credentials = self.credentials.load();
        let refusal = match authorize(credentials.as_deref(), request, required) {
            // A valid token is accepted from any address: others behind the same one may have guessed.
            Ok(principal) => {
                let quota = self.count(&principal);
                record.principal = Some(principal);
                return quota;
            }
            Err(refusal) => refusal,
        };
        match &refusal {
            Refusal::InsufficientRole(principal, _) => {
                record.principal = Some(principal.clone());
                self.count(principal)?;
            }
            Refusal::WrongToken => {
                self.count_failure(client)?;
            }
            // No guess: a page of another site can make a browser send these.
            Refusal::NoToken | Refusal::NotLocal => {}
        }
        Err(refusal.problem())
    }

    fn count_failure(&self, address: IpAddr) -> Result<(), Problem> {
        self.limits.count_failure(address).map_err(|problem| problem.detail(TOO_MANY_FAILURES))
    }

    fn count(&self, principal: &Principal) -> Result<Verdict, Problem> {
        self.limits.count_request(principal.slot).map_err(|problem| {
            problem.detail(format!("{} sent too many requests in one minute", principal.name))
        })
    }
}

/// The guard of one route.
#[derive(Debug, Clone)]
pub(super) struct RouteGuard {
    pub(super) guard: AdminGuard,
    pub(super) required: Role,
}

/// Runs the route if the guard admits the request. The body is not read before.
pub(super) async fn enforce(
    State(route_guard): State<RouteGuard>,
    request: Request,
    next: Next,
) -> Response {
    let inner = &route_guard.guard.0;
    let (mut head, body) = request.into_parts();
    let client = inner.trusted_proxies.client(&head).address();
    let route = head.extensions.get::<MatchedPath>().cloned();
    let mut record = RequestRecord::new(
        &inner.metrics,
        &head.method,
        route.as_ref().map_or("", MatchedPath::as_str),
        head.extensions.get::<RequestId>().copied(),
    );
    let quota = match inner.admit(&head, client, route_guard.required, &mut record) {
        Ok(quota) => quota,
        Err(problem) => {
            record.write(RequestOutcome::from_refusal(problem.status()), Some(problem.status()));
            return problem.into_response();
        }
    };
    // The route itself rejects a malformed path.
    let path = RawPathParams::from_request_parts(&mut head, &()).await;
    record.resource = path.ok().as_ref().and_then(resource);
    if let Some(principal) = record.principal.clone() {
        head.extensions.insert(principal);
    }
    let mut response = next.run(Request::from_parts(head, body)).await;
    record.write(RequestOutcome::from_response(response.status()), Some(response.status()));
    quota.add_to(response.headers_mut());
    // Responses are private and must not be cached.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Extracts the authenticated administrator. Fails on a route without the guard, which authenticates no client.
impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!("administrator route has no guard");
            Problem::new(ProblemKind::Internal)
        })
    }
}
