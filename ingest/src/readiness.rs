//! Keeps the health checks of ingest up to date, and says whether the log is full.

use std::sync::Arc;
use std::time::Duration;

use runtime::health::Health;
use runtime::metrics::{Metrics, MetricsError};
use storage::control::BudgetDefinitions;
use storage::log::{AppendError, LogWriter};
use tokio_util::sync::CancellationToken;

/// Polling is cheap, and the check has its own hysteresis.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Updates the checks `log` and `definitions` until `stop` is cancelled.
///
/// # Errors
/// When a metric name is already registered.
pub fn watch_readiness(
    log: Arc<dyn LogWriter>,
    definitions: Arc<dyn BudgetDefinitions>,
    health: Health,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + use<>, MetricsError> {
    let full = metrics.gauge(
        "ingest_log_full",
        "1 while submissions are refused because the log has reached its configured size.",
    )?;
    Ok(async move {
        let log_check = health.check("log");
        let definitions_check = health.check("definitions");
        loop {
            let available = log.available();
            full.set(i64::from(matches!(available, Err(AppendError::Full { .. }))));
            match available {
                Ok(()) => log_check.set_ready(),
                Err(error) => log_check.set_unready(error.to_string()),
            }
            if definitions.is_loaded() {
                definitions_check.set_ready();
            } else {
                definitions_check.set_unready("the budget definitions are not loaded yet");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    })
}
