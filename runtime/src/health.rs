//! Liveness (`/livez`) and readiness (`/readyz`) of a process.
//!
//! A process is ready when all its named checks are. Checks have hysteresis: a short failure of a backend must not take
//! the process out of service, and a flapping backend must not make readiness flap. Liveness depends only on the
//! process itself. This module does not perform the checks; their owners set them.

mod gauges;
mod hysteresis;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{defaults, parse, settings};
use crate::metrics::Metrics;
use gauges::Gauges;
use hysteresis::Hysteresis;

settings! {
    /// Hysteresis of readiness.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct HealthConfig {
        /// How long a dependency must fail before `/readyz` answers 503.
        pub unready_after: Duration = "health.unready_after_ms", default "3000",
            unit "ms", parse parse::duration_ms;
        /// How long a failed dependency must work again before `/readyz` answers 200; no wait the first time.
        pub ready_after: Duration = "health.ready_after_ms", default "500",
            unit "ms", parse parse::duration_ms;
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        defaults(Self::read)
    }
}

/// The readiness of a process. Cheap to clone; clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    config: HealthConfig,
    checks: Mutex<Vec<Arc<Slot>>>,
    drained: CancellationToken,
    stop: OnceLock<CancellationToken>,
}

#[derive(Debug)]
struct Slot {
    name: &'static str,
    config: HealthConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    hysteresis: Hysteresis,
    /// The reason of the current or the last failure.
    reason: String,
}

impl Health {
    /// Creates a readiness without checks. It is not ready until it has a check, and all checks are ready.
    pub fn new(config: &HealthConfig) -> Self {
        Self { shared: Arc::new(Shared { config: *config, ..Shared::default() }) }
    }

    /// Registers a check, initially not ready. Registering a name again returns the same check.
    pub fn check(&self, name: &'static str) -> Check {
        let mut checks = self.shared.checks.lock();
        let slot = match checks.iter().find(|slot| slot.name == name) {
            Some(slot) => Arc::clone(slot),
            None => {
                let slot = Arc::new(Slot {
                    name,
                    config: self.shared.config,
                    state: Mutex::new(State {
                        hysteresis: Hysteresis::initially_unready(Instant::now()),
                        reason: "starting".to_owned(),
                    }),
                });
                checks.push(Arc::clone(&slot));
                slot
            }
        };
        Check { slot }
    }

    /// Makes the process unready for good, without hysteresis, because it shuts down.
    pub fn drain(&self) {
        self.shared.drained.cancel();
    }

    /// Calls [`drain`](Self::drain) once the token is cancelled. Only the first token counts.
    pub fn drain_on(&self, stop: CancellationToken) {
        let _ = self.shared.stop.set(stop);
    }

    /// Registers gauges that export the state of `/readyz`.
    ///
    /// # Errors
    /// If the metric names are taken: a bug.
    pub fn expose(&self, metrics: &Metrics) -> Result<(), prometheus::Error> {
        metrics.registry().register(Box::new(Gauges::of(self.clone())?))
    }

    /// Whether the process should receive requests.
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    fn is_draining(&self) -> bool {
        let stop = self.shared.stop.get();
        self.shared.drained.is_cancelled() || stop.is_some_and(CancellationToken::is_cancelled)
    }

    fn report(&self) -> Report {
        let now = Instant::now();
        let checks: Vec<CheckReport> =
            self.shared.checks.lock().iter().map(|slot| slot.report(now)).collect();
        let draining = self.is_draining();
        let all_ready = !checks.is_empty() && checks.iter().all(|check| check.ready);
        Report { ready: !draining && all_ready, draining, checks }
    }

    /// Responds to `GET /readyz`: 200 or 503, with all checks.
    pub(crate) fn readyz(&self) -> Response {
        let report = self.report();
        let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, [(CACHE_CONTROL, "no-store")], Json(report)).into_response()
    }
}

/// Responds to `GET /livez`: 200 as long as the process responds at all.
pub(crate) fn livez() -> Response {
    #[derive(Serialize)]
    struct Live {
        live: bool,
    }
    ([(CACHE_CONTROL, "no-store")], Json(Live { live: true })).into_response()
}

/// A named check, set by its owner. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Check {
    slot: Arc<Slot>,
}

impl Check {
    /// Marks the check as healthy.
    pub fn set_ready(&self) {
        let mut state = self.slot.state.lock();
        state.hysteresis.set(true, Instant::now(), &self.slot.config);
    }

    /// Marks the check as failing. `/readyz` shows the reason, which must not contain a secret.
    pub fn set_unready(&self, reason: impl Into<String>) {
        let mut state = self.slot.state.lock();
        state.hysteresis.set(false, Instant::now(), &self.slot.config);
        state.reason = reason.into();
    }
}

impl Slot {
    fn report(&self, now: Instant) -> CheckReport {
        let mut state = self.state.lock();
        let ready = state.hysteresis.ready(now, &self.config);
        let healthy = state.hysteresis.is_healthy();
        CheckReport {
            name: self.name,
            ready,
            // The reason is also shown while the hysteresis delays a change.
            reason: (!ready || !healthy).then(|| {
                if healthy {
                    format!("recovering from: {}", state.reason)
                } else {
                    state.reason.clone()
                }
            }),
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    ready: bool,
    draining: bool,
    checks: Vec<CheckReport>,
}

#[derive(Debug, Serialize)]
struct CheckReport {
    name: &'static str,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}
