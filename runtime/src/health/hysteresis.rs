//! Hysteresis of one check: how long it must fail, or work again, before its readiness changes.

use tokio::time::Instant;

use super::HealthConfig;

/// The last state set by the check's owner, its start, and the readiness shown.
#[derive(Debug, Clone)]
pub(super) struct Hysteresis {
    healthy: bool,
    since: Instant,
    shown_ready: bool,
    was_ever_ready: bool,
}

impl Hysteresis {
    pub(super) fn initially_unready(now: Instant) -> Self {
        Self { healthy: false, since: now, shown_ready: false, was_ever_ready: false }
    }

    /// Sets the check's state. Setting the same state again does not restart the time.
    pub(super) fn set(&mut self, healthy: bool, now: Instant, config: &HealthConfig) {
        // A change due before this moment counts, even if no reader observed it.
        self.settle(now, config);
        if healthy != self.healthy {
            self.healthy = healthy;
            self.since = now;
        }
        if healthy && !self.was_ever_ready {
            self.shown_ready = true;
            self.was_ever_ready = true;
        }
    }

    /// Returns the readiness at a moment.
    pub(super) fn ready(&mut self, now: Instant, config: &HealthConfig) -> bool {
        self.settle(now, config);
        self.shown_ready
    }

    /// Returns the last state set, without hysteresis.
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy
    }

    fn settle(&mut self, now: Instant, config: &HealthConfig) {
        let needed = if self.healthy { config.ready_after } else { config.unready_after };
        if self.healthy != self.shown_ready && now.saturating_duration_since(self.since) >= needed {
            self.shown_ready = self.healthy;
        }
    }
}
