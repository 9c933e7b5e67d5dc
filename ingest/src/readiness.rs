//! Keeps the health checks of ingest up to date.

use std::sync::Arc;
use std::time::Duration;

use runtime::health::Health;
use storage::control::BudgetDefinitions;
use storage::log::LogWriter;
use tokio_util::sync::CancellationToken;

/// Polling is cheap, and the check has its own hysteresis.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Updates the checks `log` and `definitions` until `stop` is cancelled.
pub async fn watch_readiness(
    log: Arc<dyn LogWriter>,
    definitions: Arc<dyn BudgetDefinitions>,
    health: Health,
    stop: CancellationToken,
) {
    let log_check = health.check("log");
    let definitions_check = health.check("definitions");
    loop {
        match log.available() {
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
}
