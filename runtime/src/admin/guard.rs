//! The guard before each route of administrators: lets in who may, as often as they may, and keeps the record.

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

use super::client_address::TrustedProxies;
use super::config::AdminConfig;
use super::credentials::{Credentials, Principal};
use super::decision::{Refusal, decide};
use super::limits::{Limits, Standing};
use super::record::{AdminMetrics, Outcome, Record, resource};
use super::role::Role;
use super::tokens_file::{CREDENTIALS_MAX, TokensFile};
use crate::http::RequestId;
use crate::metrics::{Metrics, MetricsError};
use crate::problem::{Problem, ProblemKind};

/// Who may pass, and how often. One for all routes of a process; cheap to clone.
#[derive(Debug, Clone)]
pub struct AdminGuard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Whether there are any never changes.
    credentials: ArcSwapOption<Credentials>,
    /// Where they are read from, and what stood there at the start.
    tokens_file: Option<(Arc<PathBuf>, String)>,
    requests_per_minute: NonZeroU32,
    failures_per_minute: NonZeroU32,
    trusted_proxies: TrustedProxies,
    limits: Limits,
    metrics: AdminMetrics,
}

impl AdminGuard {
    /// A guard as it is configured.
    ///
    /// # Errors
    /// When the metric's name is taken.
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
            // A place for each that there ever can be.
            limits: Limits::new(CREDENTIALS_MAX, *requests_per_minute, *failures_per_minute),
            metrics: AdminMetrics::register(metrics)?,
        })))
    }

    /// Requests that each administrator may make of this process in a minute.
    pub fn requests_per_minute(&self) -> NonZeroU32 {
        self.0.requests_per_minute
    }

    /// Attempts without a valid token that each client address may make of this process in a minute.
    pub fn failures_per_minute(&self) -> NonZeroU32 {
        self.0.failures_per_minute
    }

    /// Every administrator, with how many requests they may make now.
    pub fn standings(&self) -> Vec<(Principal, u32)> {
        let left = |principal: Principal| {
            let left = self.0.limits.left(principal.place);
            (principal, left)
        };
        match self.0.credentials.load().as_deref() {
            // Whoever is on this machine.
            None => vec![left(Principal::local())],
            Some(credentials) => {
                credentials.0.iter().map(|(principal, _)| left(principal.clone())).collect()
            }
        }
    }

    /// Where credentials are read from, and what stood there at the start.
    pub(super) fn tokens_file(&self) -> Option<(Arc<PathBuf>, String)> {
        self.0.tokens_file.clone()
    }

    /// These are the credentials from now on.
    pub(super) fn take(&self, credentials: Credentials) {
        let before = self.0.credentials.load_full();
        let next = match &before {
            Some(before) => credentials.placed_after(before),
            None => credentials,
        };
        self.0.credentials.store(Some(Arc::new(next)));
    }

    /// Whether the file that credentials are read from is wrong.
    pub(super) fn tokens_are_wrong(&self, wrong: bool) {
        self.0.metrics.tokens_file_wrong.set(i64::from(wrong));
    }
}

impl Inner {
    /// Decides whether a request is let in, and counts it.
    ///
    /// # Errors
    /// What to answer if it is not.
    fn admit(
        &self,
        request: &Parts,
        needed: Role,
        record: &mut Record,
    ) -> Result<Standing, Problem> {
        // Whoever guesses is not told whether the guess was right. Where there is no token, there is nothing to guess,
        // and a web page that fails from this machine must not shut its owner out.
        let credentials = self.credentials.load();
        if credentials.is_some() {
            self.limits.may_try(record.client).map_err(|exceeded| {
                exceeded.problem("too many attempts without a valid token came from this address")
            })?;
        }
        match decide(credentials.as_deref(), request, needed) {
            Ok(principal) => {
                let standing = self.count(&principal);
                record.principal = Some(principal);
                standing
            }
            Err(refusal) => {
                if let Refusal::RoleTooSmall(principal, _) = &refusal {
                    record.principal = Some(principal.clone());
                    self.count(principal)?;
                } else {
                    self.limits.failed(record.client);
                }
                Err(refusal.problem())
            }
        }
    }

    fn count(&self, principal: &Principal) -> Result<Standing, Problem> {
        self.limits.request(principal.place).map_err(|exceeded| {
            exceeded.problem(&format!("{} made too many requests in a minute", principal.name))
        })
    }
}

/// The guard before one route.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    pub(super) guard: AdminGuard,
    pub(super) needed: Role,
}

/// The guard at work: nothing of a request but its head is looked at before it is let in.
pub(super) async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let inner = &gate.guard.0;
    let (mut head, body) = request.into_parts();
    let route = head.extensions.get::<MatchedPath>().cloned();
    let mut record = Record::new(
        &inner.metrics,
        inner.trusted_proxies.client_address(&head),
        &head.method,
        route.as_ref().map_or("", MatchedPath::as_str),
        head.extensions.get::<RequestId>().copied(),
    );
    let standing = match inner.admit(&head, gate.needed, &mut record) {
        Ok(standing) => standing,
        Err(problem) => {
            record.write(Outcome::of_refusal(problem.status()), Some(problem.status()));
            return problem.into_response();
        }
    };
    // A path that cannot be read is the route's to refuse.
    let path = RawPathParams::from_request_parts(&mut head, &()).await;
    record.resource = path.ok().as_ref().and_then(resource);
    if let Some(principal) = record.principal.clone() {
        head.extensions.insert(principal);
    }
    let mut answer = next.run(Request::from_parts(head, body)).await;
    record.write(Outcome::of_answer(answer.status()), Some(answer.status()));
    standing.note(answer.headers_mut());
    // What administrators see is for them, and for now.
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Who asks, for a route behind the guard. A route that is not is refused: nobody asked who it is.
impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!("an administrators' route stands before no guard");
            Problem::new(ProblemKind::Internal)
        })
    }
}
