//! Whether a process lives (`/livez`) and whether it should be sent requests (`/readyz`).
//!
//! Readiness is the sum of named checks, each set by the part that knows. It has hysteresis: one slow moment of a
//! server behind us must not take a process out of service, and a flapping one must not come and go with each beat.
//! Liveness depends on nothing but this process answering. How a check is made is not decided here.

mod gauges;
mod hysteresis;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Key, KeyDoc, Reader, parse};
use crate::metrics::Metrics;
use gauges::Gauges;
use hysteresis::Hysteresis;

/// How long a check must be bad, or good again, before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthConfig {
    /// How long a ready check must be bad before it is unready.
    pub unready_after: Duration,
    /// How long an unready check must be good before it is ready again; the first time it is at once.
    pub ready_after: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { unready_after: Duration::from_secs(3), ready_after: Duration::from_millis(500) }
    }
}

impl HealthConfig {
    const UNREADY_AFTER_MS: Key<Duration> = Key::new(
        "health.unready_after_ms",
        Some("3000"),
        "ms",
        "How long something behind a process must fail before `/readyz` says 503.",
        parse::duration_ms,
    );
    const READY_AFTER_MS: Key<Duration> = Key::new(
        "health.ready_after_ms",
        Some("500"),
        "ms",
        "How long it must work again before `/readyz` says 200.",
        parse::duration_ms,
    );

    /// The settings of this module.
    pub const KEYS: &[KeyDoc] =
        &[Self::UNREADY_AFTER_MS.describe(), Self::READY_AFTER_MS.describe()];

    /// Reads them; `None` once a fault was noted.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let unready_after = reader.read(&Self::UNREADY_AFTER_MS);
        let ready_after = reader.read(&Self::READY_AFTER_MS);
        Some(Self { unready_after: unready_after?, ready_after: ready_after? })
    }
}

/// The readiness of a process. Cheap to clone; all clones are one.
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
    /// Why the check is, or last was, bad.
    reason: String,
}

impl Health {
    /// No checks yet, so nobody can say that it is ready: it is not, until the first check is there and well.
    pub fn new(config: &HealthConfig) -> Self {
        Self { shared: Arc::new(Shared { config: *config, ..Shared::default() }) }
    }

    /// Registers a check, not ready at first. The same name again is the same check.
    pub fn check(&self, name: &'static str) -> Check {
        let mut checks = lock(&self.shared.checks);
        let slot = match checks.iter().find(|slot| slot.name == name) {
            Some(slot) => Arc::clone(slot),
            None => {
                let slot = Arc::new(Slot {
                    name,
                    config: self.shared.config,
                    state: Mutex::new(State {
                        hysteresis: Hysteresis::unready_at_first(Instant::now()),
                        reason: "starting".to_owned(),
                    }),
                });
                checks.push(Arc::clone(&slot));
                slot
            }
        };
        Check { slot }
    }

    /// From now on unready, without hysteresis: the process is ending.
    pub fn drain(&self) {
        self.shared.drained.cancel();
    }

    /// As [`drain`](Self::drain), from the moment that the token is cancelled. Only the first token counts.
    pub fn drain_with(&self, stop: CancellationToken) {
        let _ = self.shared.stop.set(stop);
    }

    /// Shows at `/metrics` what `/readyz` says.
    ///
    /// # Errors
    /// If something else is registered under these names: a mistake of ours.
    pub fn expose(&self, metrics: &Metrics) -> Result<(), prometheus::Error> {
        metrics.registry().register(Box::new(Gauges::of(self.clone())?))
    }

    /// Whether the process should be sent requests.
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
            lock(&self.shared.checks).iter().map(|slot| slot.report(now)).collect();
        let draining = self.is_draining();
        let all_well = !checks.is_empty() && checks.iter().all(|check| check.ready);
        Report { ready: !draining && all_well, draining, checks }
    }

    /// The answer to `GET /readyz`: 200 or 503, listing every check.
    pub(crate) fn readyz(&self) -> Response {
        let report = self.report();
        let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, [(CACHE_CONTROL, "no-store")], Json(report)).into_response()
    }
}

/// The answer to `GET /livez`: 200 for as long as the process answers at all.
pub(crate) fn livez() -> Response {
    #[derive(Serialize)]
    struct Live {
        live: bool,
    }
    ([(CACHE_CONTROL, "no-store")], Json(Live { live: true })).into_response()
}

/// One named check, in the hands of the part that knows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Check {
    slot: Arc<Slot>,
}

impl Check {
    /// What this check stands for is well.
    pub fn set_ready(&self) {
        let mut state = lock(&self.slot.state);
        state.hysteresis.set(true, Instant::now(), &self.slot.config);
    }

    /// It is not; the reason is shown by `/readyz` and must hold no secret.
    pub fn set_unready(&self, reason: impl Into<String>) {
        let mut state = lock(&self.slot.state);
        state.hysteresis.set(false, Instant::now(), &self.slot.config);
        state.reason = reason.into();
    }
}

impl Slot {
    fn report(&self, now: Instant) -> CheckReport {
        let mut state = lock(&self.state);
        let ready = state.hysteresis.ready(now, &self.config);
        let well = state.hysteresis.is_well();
        CheckReport {
            name: self.name,
            ready,
            // Ready and already failing, or well and not yet trusted again: both are worth seeing.
            reason: (!ready || !well).then(|| {
                if well {
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

/// A panic of another holder leaves nothing half-done in what is locked here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
