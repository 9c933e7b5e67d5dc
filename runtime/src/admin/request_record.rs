//! The log line and counter of each request to an administrator route: who did what, with which outcome. Never a
//! token or an address.

use std::sync::Arc;

use axum::extract::RawPathParams;
use http::{Method, StatusCode};
use prometheus::{IntCounterVec, IntGauge};

use super::credentials::Principal;
use crate::http::RequestId;
use crate::metrics::{Metrics, MetricsError, method_label};

/// The log target of these lines.
const ADMIN_TARGET: &str = "admin";
/// Maximum characters of a resource in a log line.
const MAX_RESOURCE_LENGTH: usize = 128;
/// The role label of requests without a valid credential.
const NO_ROLE: &str = "none";

/// The outcome of a request, a label of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestOutcome {
    /// The route completed the request.
    Done,
    /// The route rejected the request, or failed.
    Failed,
    /// The request had no valid credential.
    Unauthorized,
    /// The credential does not allow the request, or the client is not local.
    Forbidden,
    /// A rate limit was exceeded.
    RateLimited,
    /// The client disconnected before the response. Other log lines show whether the request took effect.
    Unanswered,
}

impl RequestOutcome {
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

    /// Returns the outcome of a route's response.
    pub(super) fn from_response(status: StatusCode) -> Self {
        if status.is_client_error() || status.is_server_error() { Self::Failed } else { Self::Done }
    }

    /// Returns the outcome of a request refused before its route.
    pub(super) fn from_refusal(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited,
            _ => Self::Forbidden,
        }
    }
}

/// Metrics of administrator requests and of the tokens file.
#[derive(Debug, Clone)]
pub(super) struct AdminMetrics {
    requests: IntCounterVec,
    /// 1 while the tokens file is invalid.
    pub(super) tokens_file_wrong: IntGauge,
}

impl AdminMetrics {
    pub(super) fn register(metrics: &Metrics) -> Result<Self, MetricsError> {
        let requests = metrics.counter_vec(
            "admin_requests_total",
            "Requests to administrator routes by role (none: no valid credential) and outcome: done, failed, unauthorized, \
             forbidden, rate_limited, unanswered (the client disconnected).",
            &["role", "outcome"],
        )?;
        let tokens_file_wrong = metrics.gauge(
            "admin_tokens_file_wrong",
            "1 while the tokens file is missing or invalid and the previous administrator tokens stay in use.",
        )?;
        Ok(Self { requests, tokens_file_wrong })
    }
}

/// The record of one request, written exactly once, also if the client disconnects.
#[derive(Debug)]
pub(super) struct RequestRecord {
    pub(super) principal: Option<Principal>,
    pub(super) method: &'static str,
    pub(super) route: Arc<str>,
    pub(super) resource: Option<String>,
    pub(super) id: Option<RequestId>,
    pub(super) metrics: AdminMetrics,
    pub(super) written: bool,
}

impl RequestRecord {
    /// Creates the record of a request before its authorization.
    pub(super) fn new(
        metrics: &AdminMetrics,
        method: &Method,
        route: &str,
        id: Option<RequestId>,
    ) -> Self {
        Self {
            principal: None,
            method: method_label(method),
            route: route.into(),
            resource: None,
            id,
            metrics: metrics.clone(),
            written: false,
        }
    }

    /// Writes the log line and counts the request.
    pub(super) fn write(&mut self, outcome: RequestOutcome, status: Option<StatusCode>) {
        self.written = true;
        let role = self.principal.as_ref().map(|principal| principal.role().as_str());
        self.metrics.requests.with_label_values(&[role.unwrap_or(NO_ROLE), outcome.as_str()]).inc();
        tracing::info!(
            target: ADMIN_TARGET,
            name = self.principal.as_ref().map(Principal::name),
            role,
            method = self.method,
            route = &*self.route,
            resource = self.resource.as_deref(),
            status = status.map(|status| status.as_u16()),
            outcome = outcome.as_str(),
            id = self.id.as_ref().map(RequestId::as_str),
        );
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if !self.written {
            self.write(RequestOutcome::Unanswered, None);
        }
    }
}

/// Formats the path parameters for the log: `budget=taxes`.
///
/// Called for authorized requests only, so that other clients cannot write text into the log.
pub(super) fn resource(path: &RawPathParams) -> Option<String> {
    // The ids of all resources have these characters alone; a mail address or a path has others.
    let is_id = |value: &str| {
        value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    let shown = |value| if is_id(value) { value } else { "invalid" };
    let parts: Vec<String> =
        path.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
    (!parts.is_empty()).then(|| parts.join(" ").chars().take(MAX_RESOURCE_LENGTH).collect())
}
