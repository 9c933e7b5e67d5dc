//! Which of a producer's two clients each partition's records go through, and which partitions are refused. Pure: the
//! caller passes the time.
//!
//! A client can forget only all of its records at once. So when a partition does not acknowledge, all other partitions
//! move to the other lane. After a delivery timeout, each of their records in the former lane was acknowledged or has
//! failed, and that lane is purged. The unresponsive partition stays in its lane: whatever a broker still does with its
//! former records, the broker does before the later records of the same connection.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One of the two clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    First,
    Second,
}

impl Lane {
    pub const ALL: [Self; 2] = [Self::First, Self::Second];

    fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

const FIRST_RETRY_DELAY: Duration = Duration::from_millis(250);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(4);

/// A partition that has not acknowledged a record in time.
#[derive(Debug)]
struct Unresponsive {
    lane: Lane,
    /// Doubled with each failure until a record is acknowledged.
    delay: Duration,
    retry_at: Instant,
    /// Its leader responds again: records are sent, and the next results decide.
    on_trial: bool,
}

/// The lanes of all partitions.
#[derive(Debug)]
pub(super) struct Lanes {
    /// The lane of every partition that is not unresponsive.
    current: Lane,
    /// The lane that the others have left, until it is purged.
    draining: Option<Lane>,
    /// The current lane is to be left, too, once the other one is purged.
    leave_again: bool,
    unresponsive: BTreeMap<u32, Unresponsive>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            current: Lane::First,
            draining: None,
            leave_again: false,
            unresponsive: BTreeMap::new(),
        }
    }
}

impl Lanes {
    pub fn current(&self) -> Lane {
        self.current
    }

    /// The lane of a partition's next record; `None` if the partition is refused.
    pub fn lane_of(&self, partition: u32) -> Option<Lane> {
        match self.unresponsive.get(&partition) {
            None => Some(self.current),
            Some(unresponsive) => unresponsive.on_trial.then_some(unresponsive.lane),
        }
    }

    /// Records that a partition has acknowledged.
    pub fn acknowledged(&mut self, partition: u32) {
        if self.unresponsive.get(&partition).is_some_and(|unresponsive| unresponsive.on_trial) {
            self.unresponsive.remove(&partition);
        }
    }

    /// Records that a partition has not acknowledged a record that was sent through a lane. Refuses it from now on.
    pub fn failed(&mut self, partition: u32, lane: Lane, now: Instant) {
        match self.unresponsive.get_mut(&partition) {
            // Another batch of the same time has said so.
            Some(unresponsive) if !unresponsive.on_trial => {}
            Some(unresponsive) => {
                unresponsive.on_trial = false;
                unresponsive.delay = (unresponsive.delay * 2).min(MAX_RETRY_DELAY);
                unresponsive.retry_at = now + unresponsive.delay;
            }
            None => {
                let retry_at = now + FIRST_RETRY_DELAY;
                let unresponsive =
                    Unresponsive { lane, delay: FIRST_RETRY_DELAY, retry_at, on_trial: false };
                self.unresponsive.insert(partition, unresponsive);
            }
        }
    }

    /// Makes the healthy partitions leave a lane that has unacknowledged records. Returns whether the lane is to be
    /// purged after a delivery timeout; if not, another purge comes first.
    pub fn leave(&mut self, lane: Lane) -> bool {
        if self.draining.is_some() {
            self.leave_again |= lane == self.current;
            return false;
        }
        self.draining = Some(lane);
        if lane == self.current {
            self.current = lane.other();
        }
        true
    }

    /// Records that the draining lane is purged. Returns the lane to be purged next.
    pub fn purged(&mut self) -> Option<Lane> {
        self.draining = None;
        let lane = self.current;
        (std::mem::take(&mut self.leave_again) && self.leave(lane)).then_some(lane)
    }

    /// The refused partitions.
    pub fn refused(&self) -> Vec<u32> {
        let refused = self.unresponsive.iter().filter(|(_, unresponsive)| !unresponsive.on_trial);
        refused.map(|(partition, _)| *partition).collect()
    }

    /// The refused partitions whose leaders are to be probed again.
    pub fn due(&self, now: Instant) -> Vec<u32> {
        // A record that is sent into a draining lane would be purged with it.
        let may_send = |lane| self.draining != Some(lane);
        let is_due = |unresponsive: &Unresponsive| {
            !unresponsive.on_trial && unresponsive.retry_at <= now && may_send(unresponsive.lane)
        };
        let due = self.unresponsive.iter().filter(|(_, unresponsive)| is_due(unresponsive));
        due.map(|(partition, _)| *partition).collect()
    }

    /// Records the probe of a refused partition's leader.
    pub fn probed(&mut self, partition: u32, responds: bool, now: Instant) {
        if let Some(unresponsive) = self.unresponsive.get_mut(&partition) {
            unresponsive.on_trial = responds;
            unresponsive.retry_at = now + unresponsive.delay;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unresponsive_partition_is_refused_alone_and_the_others_leave_its_lane() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.failed(7, Lane::First, now);
        assert!(lanes.leave(Lane::First));
        assert_eq!((lanes.lane_of(7), lanes.lane_of(8)), (None, Some(Lane::Second)));
        assert_eq!(lanes.refused(), [7]);
        assert_eq!(lanes.purged(), None);
        assert_eq!(lanes.lane_of(8), Some(Lane::Second));
    }

    #[test]
    fn a_unresponsive_partition_is_tried_again_in_its_own_lane_until_it_acknowledges() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.failed(7, Lane::First, now);
        lanes.leave(Lane::First);
        let later = now + FIRST_RETRY_DELAY;
        assert!(lanes.due(later).is_empty(), "its lane is about to be purged");
        lanes.purged();
        assert_eq!((lanes.due(now), lanes.due(later)), (vec![], vec![7]));
        lanes.probed(7, false, later);
        assert_eq!((lanes.due(later), lanes.lane_of(7)), (vec![], None));
        lanes.acknowledged(7);
        assert_eq!(lanes.lane_of(7), None, "a late answer says nothing about the next record");
        lanes.probed(7, true, later);
        assert_eq!(lanes.lane_of(7), Some(Lane::First));
        lanes.acknowledged(7);
        assert_eq!(lanes.lane_of(7), Some(Lane::Second));
    }

    #[test]
    fn a_failed_trial_purges_its_lane_and_doubles_the_delay() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.failed(7, Lane::First, now);
        lanes.leave(Lane::First);
        lanes.purged();
        lanes.probed(7, true, now);
        lanes.failed(7, Lane::First, now);
        lanes.failed(7, Lane::First, now);
        assert!(lanes.leave(Lane::First));
        assert_eq!((lanes.current(), lanes.purged()), (Lane::Second, None));
        assert!(lanes.due(now + FIRST_RETRY_DELAY).is_empty());
        assert_eq!(lanes.due(now + 2 * FIRST_RETRY_DELAY), [7]);
    }

    #[test]
    fn a_lane_is_not_left_for_one_that_is_about_to_be_purged() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.failed(7, Lane::First, now);
        lanes.leave(Lane::First);
        lanes.failed(8, Lane::Second, now);
        assert!(!lanes.leave(Lane::Second));
        assert_eq!((lanes.lane_of(8), lanes.lane_of(9)), (None, Some(Lane::Second)));
        assert!(!lanes.leave(Lane::First), "its purge is due already");
        assert_eq!(lanes.purged(), Some(Lane::Second));
        assert_eq!(lanes.lane_of(9), Some(Lane::First));
        assert_eq!(lanes.purged(), None);
    }
}
