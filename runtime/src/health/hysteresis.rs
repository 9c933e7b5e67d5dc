//! The one decision of readiness: has a check been bad, or good again, for long enough to count?

use tokio::time::Instant;

use super::HealthConfig;

/// What a check was last told, since when, and what it says to the outside.
#[derive(Debug, Clone)]
pub(super) struct Hysteresis {
    well: bool,
    since: Instant,
    says_ready: bool,
    was_ever_ready: bool,
}

impl Hysteresis {
    pub(super) fn unready_at_first(now: Instant) -> Self {
        Self { well: false, since: now, says_ready: false, was_ever_ready: false }
    }

    /// Takes what the check was told. Being told the same again does not restart the time.
    pub(super) fn set(&mut self, well: bool, now: Instant, config: &HealthConfig) {
        // What was due before this moment is settled first, even if nobody looked.
        self.settle(now, config);
        if well != self.well {
            self.well = well;
            self.since = now;
        }
        if well && !self.was_ever_ready {
            self.says_ready = true;
            self.was_ever_ready = true;
        }
    }

    /// What the check says at a moment.
    pub(super) fn ready(&mut self, now: Instant, config: &HealthConfig) -> bool {
        self.settle(now, config);
        self.says_ready
    }

    /// What it was last told, without hysteresis.
    pub(super) fn is_well(&self) -> bool {
        self.well
    }

    fn settle(&mut self, now: Instant, config: &HealthConfig) {
        let needed = if self.well { config.ready_after } else { config.unready_after };
        if self.well != self.says_ready && now.saturating_duration_since(self.since) >= needed {
            self.says_ready = self.well;
        }
    }
}
