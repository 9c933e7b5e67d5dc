//! The guard before each route of administrators: lets in who may, as often as they may, and keeps the record.

use std::sync::Arc;

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
use crate::http::RequestId;
use crate::metrics::{Metrics, MetricsError};
use crate::problem::{Problem, ProblemKind};

/// Who may pass, and how often. One for all routes of a process; cheap to clone.
#[derive(Debug, Clone)]
pub struct AdminGuard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    credentials: Option<Credentials>,
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
        // Without credentials there is one administrator: whoever is on this machine.
        let principals = config.credentials.as_ref().map_or(1, Credentials::count);
        Ok(Self(Arc::new(Inner {
            credentials: config.credentials.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            limits: Limits::new(principals, config.requests_per_minute, config.failures_per_minute),
            metrics: AdminMetrics::register(metrics)?,
        })))
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
        if self.credentials.is_some() {
            self.limits.may_try(record.client).map_err(|exceeded| {
                exceeded.problem("too many attempts without a valid token came from this address")
            })?;
        }
        match decide(self.credentials.as_ref(), request, needed) {
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
