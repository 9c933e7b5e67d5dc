//! What is kept of each request of an administrator, or of somebody who would be one: a log line that says who did what
//! and how it went, and a count. Never a token.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::RawPathParams;
use http::{Method, StatusCode};
use prometheus::{IntCounterVec, IntGauge};

use super::credentials::Principal;
use crate::http::RequestId;
use crate::metrics::{Metrics, MetricsError, method_label};

/// The target of the line that each request writes.
const ADMIN: &str = "admin";
/// The most characters of a resource in a log line.
const RESOURCE_MAX: usize = 128;
/// The label of those who showed no valid credential.
const NOBODY: &str = "none";

/// How a request went: the label of its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was carried out.
    Done,
    /// The route refused it, or failed.
    Failed,
    /// It had no valid credential.
    Unauthorized,
    /// Its credential does not allow it, or it comes from elsewhere.
    Forbidden,
    /// A limit was reached.
    RateLimited,
    /// Nobody waited for its answer: whether it was carried out, other lines say.
    Unanswered,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::Unanswered => "unanswered",
        }
    }

    /// Of a route that was asked.
    pub(super) fn of_answer(status: StatusCode) -> Self {
        if status.is_client_error() || status.is_server_error() { Self::Failed } else { Self::Done }
    }

    /// Of a request that did not come that far.
    pub(super) fn of_refusal(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited,
            _ => Self::Forbidden,
        }
    }
}

/// The counts of requests.
#[derive(Debug, Clone)]
pub(super) struct AdminMetrics {
    requests: IntCounterVec,
    /// 1 while the tokens' file is wrong.
    pub(super) tokens_file_wrong: IntGauge,
}

impl AdminMetrics {
    pub(super) fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        let requests = metrics.counter_vec(
            "admin_requests_total",
            "Requests to administrators' routes by the role of who asked (none without a valid credential) and outcome: \
             done, failed, unauthorized, forbidden, rate_limited, unanswered (the client went away).",
            &["role", "outcome"],
        )?;
        let tokens_file_wrong = metrics.gauge(
            "admin_tokens_file_wrong",
            "1 while the file of administrators' tokens cannot be read or is wrong: those that were read before hold.",
        )?;
        Ok(Self { requests, tokens_file_wrong })
    }
}

/// The record of one request: written exactly once, whatever becomes of it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) principal: Option<Principal>,
    pub(super) client: IpAddr,
    pub(super) method: &'static str,
    pub(super) route: Arc<str>,
    pub(super) resource: Option<String>,
    pub(super) id: Option<RequestId>,
    pub(super) metrics: AdminMetrics,
    pub(super) written: bool,
}

impl Record {
    /// A record of a request that is not let in yet.
    pub(super) fn new(
        metrics: &AdminMetrics,
        client: IpAddr,
        method: &Method,
        route: &str,
        id: Option<RequestId>,
    ) -> Self {
        Self {
            principal: None,
            client,
            method: method_label(method),
            route: route.into(),
            resource: None,
            id,
            metrics: metrics.clone(),
            written: false,
        }
    }

    /// Writes it.
    pub(super) fn write(&mut self, outcome: Outcome, status: Option<StatusCode>) {
        self.written = true;
        let role = self.principal.as_ref().map(|principal| principal.role().as_str());
        self.metrics.requests.with_label_values(&[role.unwrap_or(NOBODY), outcome.as_str()]).inc();
        tracing::info!(
            target: ADMIN,
            name = self.principal.as_ref().map(Principal::name),
            role,
            method = self.method,
            route = &*self.route,
            resource = self.resource.as_deref(),
            status = status.map(|status| status.as_u16()),
            outcome = outcome.as_str(),
            client = %self.client,
            id = self.id.as_ref().map(RequestId::as_str),
        );
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.written {
            self.write(Outcome::Unanswered, None);
        }
    }
}

/// The variable parts of a path, as a log line holds them: `budget=taxes`. Only of who is let in: anybody else could
/// have anything written into the log.
pub(super) fn resource(path: &RawPathParams) -> Option<String> {
    let parts: Vec<String> = path.iter().map(|(name, value)| format!("{name}={value}")).collect();
    (!parts.is_empty()).then(|| parts.join(" ").chars().take(RESOURCE_MAX).collect())
}
