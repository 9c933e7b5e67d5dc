//! Whether ingest should be sent submissions.

use std::sync::Arc;
use std::time::Duration;

use runtime::health::Health;
use storage::definitions::Definitions;
use storage::log::LogWriter;
use tokio_util::sync::CancellationToken;

/// Asking costs nothing, and the check has a hysteresis of its own.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Keeps the checks `log` and `definitions` up to date until it is told to stop.
pub async fn watch_readiness(
    log: Arc<dyn LogWriter>,
    definitions: Arc<dyn Definitions>,
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
            definitions_check.set_unready("the budgets' definitions are not loaded yet");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
