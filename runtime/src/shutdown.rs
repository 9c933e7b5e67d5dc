//! Graceful shutdown on SIGTERM or SIGINT, signalled by a token.
//!
//! Each component decides what it finishes, and in which time.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Returns a token that the first SIGTERM or SIGINT cancels. The second signal exits at once.
///
/// Must be called inside a tokio runtime. If the handlers cannot be installed, an error is logged and the signals keep
/// their default effect.
pub fn listen() -> CancellationToken {
    let stop = CancellationToken::new();
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            let stop = stop.clone();
            tokio::spawn(async move {
                loop {
                    let (name, number) = tokio::select! {
                        _ = terminate.recv() => ("SIGTERM", 15),
                        _ = interrupt.recv() => ("SIGINT", 2),
                    };
                    if stop.is_cancelled() {
                        tracing::warn!(signal = name, "second signal received, exiting at once");
                        // Shells report 128 + signal for a process killed by a signal.
                        std::process::exit(128 + number);
                    }
                    tracing::info!(signal = name, "signal received, shutting down");
                    stop.cancel();
                }
            });
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "failed to install signal handlers, graceful shutdown is unavailable");
        }
    }
    stop
}
