//! When rejected records are too many to be accidents: another program writes into the topic, or this release cannot
//! decode what a newer one writes. The partition then halts, and its log waits for an operator instead of draining into
//! the dead letters.

/// Number of records over which the rejected share is computed.
const WINDOW_RECORDS: u64 = 10_000;

/// How many rejected records halt a partition.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetterThresholds {
    /// This many in a row.
    pub run: u64,
    /// More than this percentage of ten thousand records.
    pub percent: u64,
}

/// A threshold of rejected records is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterLimitExceeded {
    /// Too many in a row.
    #[error("{0} records in a row were rejected")]
    Run(u64),
    /// Too large a share of a window.
    #[error("{rejected} of {records} records were rejected")]
    Share {
        /// Rejected records in the window.
        rejected: u64,
        /// All records in the window so far.
        records: u64,
    },
}

/// Counts accepted and rejected records of one partition since its claim.
#[derive(Debug)]
pub(super) struct DeadLetterLimit {
    thresholds: DeadLetterThresholds,
    run: u64,
    rejected: u64,
    records: u64,
}

impl DeadLetterLimit {
    pub fn new(thresholds: DeadLetterThresholds) -> Self {
        Self { thresholds, run: 0, rejected: 0, records: 0 }
    }

    /// Counts an accepted record.
    pub fn record_accepted(&mut self) {
        self.run = 0;
        self.count(0);
    }

    /// Counts a rejected record.
    ///
    /// # Errors
    /// When a threshold is exceeded.
    pub fn record_rejected(&mut self) -> Result<(), DeadLetterLimitExceeded> {
        self.run += 1;
        self.count(1);
        if self.run >= self.thresholds.run {
            return Err(DeadLetterLimitExceeded::Run(self.run));
        }
        if self.rejected * 100 > WINDOW_RECORDS * self.thresholds.percent {
            return Err(DeadLetterLimitExceeded::Share {
                rejected: self.rejected,
                records: self.records,
            });
        }
        Ok(())
    }

    fn count(&mut self, rejected: u64) {
        if self.records == WINDOW_RECORDS {
            (self.rejected, self.records) = (0, 0);
        }
        self.records += 1;
        self.rejected += rejected;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts records until a threshold is exceeded.
    fn exceeded(
        thresholds: DeadLetterThresholds,
        rejected: impl IntoIterator<Item = bool>,
    ) -> Option<DeadLetterLimitExceeded> {
        let mut limit = DeadLetterLimit::new(thresholds);
        for is_rejected in rejected {
            if !is_rejected {
                limit.record_accepted();
            } else if let Err(exceeded) = limit.record_rejected() {
                return Some(exceeded);
            }
        }
        None
    }

    #[test]
    fn a_run_of_rejected_records_exceeds_the_limit_and_one_accepted_record_ends_the_run() {
        let thresholds = DeadLetterThresholds { run: 5, percent: 100 };
        assert_eq!(exceeded(thresholds, [true; 5]), Some(DeadLetterLimitExceeded::Run(5)));
        let interrupted = [true, true, true, true, false];
        assert_eq!(exceeded(thresholds, interrupted.repeat(2_000)), None);
    }

    #[test]
    fn a_rejected_share_above_the_percentage_exceeds_the_limit_however_it_is_spread() {
        let thresholds = DeadLetterThresholds { run: u64::MAX, percent: 20 };
        let every = |n| (0..50_000).map(move |record: u64| record.is_multiple_of(n));
        assert_eq!(exceeded(thresholds, every(5)), None);
        let share = DeadLetterLimitExceeded::Share { rejected: 2_001, records: 8_001 };
        assert_eq!(exceeded(thresholds, every(4)), Some(share));
    }

    proptest! {
        #[test]
        fn records_within_both_thresholds_never_exceed_the_limit(
            records in prop::collection::vec(prop::bool::weighted(0.1), 0..3_000),
        ) {
            let thresholds = DeadLetterThresholds { run: 3_001, percent: 30 };
            prop_assert_eq!(exceeded(thresholds, records), None);
        }
    }
}
