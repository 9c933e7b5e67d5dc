//! The one signal that ends a process in order: SIGTERM or SIGINT, told to everyone by a token.
//!
//! What has to be finished, and in which time, is each part's own business.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The token is cancelled at the first SIGTERM or SIGINT; the second ends the process at once.
///
/// Must be called inside a tokio runtime. Should the system refuse the handlers, that is logged and the signals keep
/// their usual effect.
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
                        tracing::warn!(signal = name, "second signal: ending at once");
                        // 128 + signal is what a shell reports for a process ended by it.
                        std::process::exit(128 + number);
                    }
                    tracing::info!(signal = name, "ending in order");
                    stop.cancel();
                }
            });
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "no signal handlers: the process will not end in order");
        }
    }
    stop
}
