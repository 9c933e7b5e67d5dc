//! The instants of a history: full minutes, hours and days in UTC.

use std::fmt;
use std::str::FromStr;

use crate::BudgetTotals;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The distance between two instants of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HistoryStep {
    /// Full minutes, kept for two days.
    Minute,
    /// Full hours, kept for a year.
    Hour,
    /// Full days in UTC, kept for ever.
    Day,
}

/// A text is not the name of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be `minute`, `hour` or `day`")]
pub struct HistoryStepFault;

impl HistoryStep {
    /// All steps, shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Returns the length of the step, in milliseconds.
    pub const fn ms(self) -> u64 {
        match self {
            Self::Minute => MINUTE_MS,
            Self::Hour => HOUR_MS,
            Self::Day => DAY_MS,
        }
    }

    /// Returns how long instants are kept, in milliseconds; `None`: for ever.
    pub const fn retention_ms(self) -> Option<u64> {
        match self {
            Self::Minute => Some(2 * DAY_MS),
            Self::Hour => Some(366 * DAY_MS),
            Self::Day => None,
        }
    }

    /// Returns the number by which the step is stored.
    pub const fn number(self) -> u8 {
        match self {
            Self::Minute => 1,
            Self::Hour => 2,
            Self::Day => 3,
        }
    }

    /// Returns the name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Returns the first instant after a time.
    pub fn next_instant(self, at_ms: u64) -> HistoryInstant {
        self.last_instant(at_ms).next()
    }

    /// Returns the last instant at or before a time.
    pub fn last_instant(self, at_ms: u64) -> HistoryInstant {
        // Stored as a signed 32-bit integer. No record has a time beyond it.
        let instant = (at_ms / self.ms()).min(i32::MAX as u64 - 1);
        HistoryInstant(instant as u32)
    }

    /// Returns the oldest instant that is kept at a time.
    pub fn oldest_kept(self, now_ms: u64) -> HistoryInstant {
        match self.retention_ms() {
            Some(retention_ms) => self.next_instant(now_ms.saturating_sub(retention_ms)),
            None => HistoryInstant::FIRST,
        }
    }

    /// Returns the first instant at which a partition's totals of a budget hold.
    ///
    /// Totals without a submission hold from the beginning.
    pub fn first_instant_of(self, totals: &BudgetTotals) -> HistoryInstant {
        match totals.updated_at_ms {
            0 => HistoryInstant::FIRST,
            updated_at_ms => self.next_instant(updated_at_ms),
        }
    }
}

impl fmt::Display for HistoryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for HistoryStep {
    type Err = HistoryStepFault;

    fn from_str(text: &str) -> Result<Self, HistoryStepFault> {
        Self::ALL.into_iter().find(|step| step.as_str() == text).ok_or(HistoryStepFault)
    }
}

/// An instant of a history: the number of its steps since 1970.
///
/// The numbers at an instant count what was accepted before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HistoryInstant(pub u32);

impl HistoryInstant {
    /// 1970-01-01T00:00:00Z.
    pub const FIRST: Self = Self(0);

    /// Returns the next instant.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns its time in milliseconds since 1970.
    pub fn at_ms(self, step: HistoryStep) -> u64 {
        u64::from(self.0) * step.ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_of_a_record_has_an_instant_that_fits_the_stored_integer() {
        for step in HistoryStep::ALL {
            for at_ms in [0, 100_000_000_000_000, u64::MAX] {
                assert!(i32::try_from(step.next_instant(at_ms).0).is_ok());
            }
            assert_eq!(step.as_str().parse(), Ok(step));
        }
    }
}
