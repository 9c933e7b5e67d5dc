//! The one signal that ends a process in order: SIGTERM or SIGINT, told to everyone by a token.
//!
//! What has to be finished, and in which time, is each part's own business.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Tells all parts of a process to end. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Ends the process in order at the first SIGTERM or SIGINT, and at once at the second.
    ///
    /// Must be called inside a tokio runtime. Should the system refuse the handlers, that is logged and the signals
    /// keep their usual effect.
    pub fn listen() -> Self {
        let shutdown = Self::manual();
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(mut terminate), Ok(mut interrupt)) => {
                let token = shutdown.token.clone();
                tokio::spawn(async move {
                    loop {
                        let (name, number) = tokio::select! {
                            _ = terminate.recv() => ("SIGTERM", 15),
                            _ = interrupt.recv() => ("SIGINT", 2),
                        };
                        if token.is_cancelled() {
                            tracing::warn!(signal = name, "second signal: ending at once");
                            // 128 + signal is what a shell reports for a process ended by it.
                            std::process::exit(128 + number);
                        }
                        tracing::info!(signal = name, "ending in order");
                        token.cancel();
                    }
                });
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "no signal handlers: the process will not end in order");
            }
        }
        shutdown
    }

    /// A shutdown that no signal triggers: for tests, and for a process inside another.
    pub fn manual() -> Self {
        Self::default()
    }

    /// Cancelled when the process has to end.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Ends the process in order from inside, as the first signal would.
    pub fn trigger(&self) {
        self.token.cancel();
    }
}
