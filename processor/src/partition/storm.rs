//! When bad records are no accident any more: somebody else writes into the topic, or this release cannot read what a
//! newer one writes. Then the partition stops, and its log waits for an operator instead of draining into the dead
//! letters.

/// Records over which the share is taken.
const WINDOW: u64 = 10_000;

/// How many bad records are too many.
#[derive(Debug, Clone, Copy)]
pub struct StormLimits {
    /// So many in a row.
    pub run: u64,
    /// More than this share of ten thousand.
    pub percent: u64,
}

/// Bad records are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Storm {
    /// One after the other.
    #[error("{0} records in a row cannot be taken")]
    Run(u64),
    /// Among good ones.
    #[error("{bad} of {records} records cannot be taken")]
    Share {
        /// The bad ones.
        bad: u64,
        /// Of so many.
        records: u64,
    },
}

/// Watches one partition's records go by, from its claim on.
#[derive(Debug)]
pub(super) struct StormWatch {
    limits: StormLimits,
    run: u64,
    bad: u64,
    records: u64,
}

impl StormWatch {
    pub fn new(limits: StormLimits) -> Self {
        Self { limits, run: 0, bad: 0, records: 0 }
    }

    /// A record that was taken.
    pub fn good(&mut self) {
        self.run = 0;
        self.count(0);
    }

    /// One that cannot be taken.
    ///
    /// # Errors
    /// When it is one too many.
    pub fn bad(&mut self) -> Result<(), Storm> {
        self.run += 1;
        self.count(1);
        if self.run >= self.limits.run {
            return Err(Storm::Run(self.run));
        }
        if self.bad * 100 > WINDOW * self.limits.percent {
            return Err(Storm::Share { bad: self.bad, records: self.records });
        }
        Ok(())
    }

    fn count(&mut self, bad: u64) {
        if self.records == WINDOW {
            (self.bad, self.records) = (0, 0);
        }
        self.records += 1;
        self.bad += bad;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds records until a storm.
    fn storm(limits: StormLimits, bad: impl IntoIterator<Item = bool>) -> Option<Storm> {
        let mut watch = StormWatch::new(limits);
        for is_bad in bad {
            if !is_bad {
                watch.good();
            } else if let Err(storm) = watch.bad() {
                return Some(storm);
            }
        }
        None
    }

    #[test]
    fn a_run_is_a_storm_and_one_good_record_ends_it() {
        let limits = StormLimits { run: 5, percent: 100 };
        assert_eq!(storm(limits, [true; 5]), Some(Storm::Run(5)));
        let broken = [true, true, true, true, false];
        assert_eq!(storm(limits, broken.repeat(2_000)), None);
    }

    #[test]
    fn more_than_the_share_of_a_window_is_a_storm_however_the_bad_ones_are_spread() {
        let limits = StormLimits { run: u64::MAX, percent: 20 };
        let every = |n| (0..50_000).map(move |record: u64| record.is_multiple_of(n));
        assert_eq!(storm(limits, every(5)), None);
        assert_eq!(storm(limits, every(4)), Some(Storm::Share { bad: 2_001, records: 8_001 }));
    }

    proptest! {
        #[test]
        fn what_is_within_both_limits_is_never_a_storm(
            records in prop::collection::vec(prop::bool::weighted(0.1), 0..3_000),
        ) {
            let limits = StormLimits { run: 3_001, percent: 30 };
            prop_assert_eq!(storm(limits, records), None);
        }
    }
}
