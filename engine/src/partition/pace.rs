//! When a commit or a round of person rows is due. Pure.
//!
//! All decisions of one iteration of the event loop use one reading of the clock. What is not due at that time gets an
//! alarm that is computed from the same time, so no work falls between two readings.

use std::time::Duration;

use tokio::time::Instant;

use super::DeadLetterThresholds;

/// Memory for buffered dead letters. Those of the commit in flight come on top.
const MAX_DEAD_LETTER_BYTES: usize = 16 << 20;

/// Totals in one commit. A commit is one batch, which cannot be split: ScyllaDB and Cassandra refuse batches of 1 MiB.
pub(super) const MAX_COMMIT_BYTES: usize = 512 << 10;

/// Intervals and bounds of one partition's owner.
#[derive(Debug, Clone, Copy)]
pub struct PartitionLimits {
    /// Minimum time between two commits.
    pub commit_interval: Duration,
    /// Time between two commits while the partition is far behind: fewer, larger commits.
    pub catch_up_commit_interval: Duration,
    /// A partition with more unread records than this is far behind.
    pub catch_up_lag: u64,
    /// Maximum number of records folded ahead of the commit.
    pub max_uncommitted: u64,
    /// Time between two rounds of person rows.
    pub rows_interval: Duration,
    /// Records a takeover would replay at which person rows are written even while far behind.
    pub max_replay: u64,
    /// How many rejected records halt the partition.
    pub dead_letters: DeadLetterThresholds,
}

/// The owner's outstanding work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workload {
    /// Whether the state differs from the committed checkpoint.
    pub has_changes: bool,
    /// Records folded ahead of the commit.
    pub uncommitted: u64,
    /// Memory that the dead letters among them take.
    pub dead_letter_bytes: usize,
    /// Size of the totals that they changed.
    pub changed_bytes: usize,
    /// Records in the log that are not folded yet.
    pub unread: u64,
    /// Records that a takeover would replay.
    pub replay: u64,
    /// Whether a person has changed since their row was written.
    pub people_changed: bool,
}

/// Decides what is due, from the limits and the times of the last commit and round.
#[derive(Debug)]
pub(super) struct Pace {
    limits: PartitionLimits,
    last_commit: Instant,
    last_round: Instant,
}

impl Pace {
    pub fn new(limits: PartitionLimits, claimed_at: Instant) -> Self {
        Self { limits, last_commit: claimed_at, last_round: claimed_at }
    }

    pub fn commit_started(&mut self, now: Instant) {
        self.last_commit = now;
    }

    pub fn round_completed(&mut self, now: Instant) {
        self.last_round = now;
    }

    pub fn last_commit(&self) -> Instant {
        self.last_commit
    }

    /// Whether more records may be folded before the next commit.
    pub fn may_fold(&self, work: &Workload) -> bool {
        work.uncommitted < self.limits.max_uncommitted
            && work.dead_letter_bytes < MAX_DEAD_LETTER_BYTES
            && work.changed_bytes < MAX_COMMIT_BYTES
    }

    /// Whether a commit begins, provided that none is in flight.
    ///
    /// Commits are grouped: a commit waits for the minimum interval and until every batch that has arrived is folded,
    /// but not longer than the catch-up interval. When no more records may be folded it does not wait.
    pub fn commit_is_due(&self, now: Instant, work: &Workload, inbox_is_empty: bool) -> bool {
        let waited = now.saturating_duration_since(self.last_commit);
        let group_is_complete = waited >= self.commit_interval(work)
            && (inbox_is_empty || waited >= self.limits.catch_up_commit_interval);
        work.has_changes && (group_is_complete || !self.may_fold(work))
    }

    /// Whether a round of person rows begins.
    pub fn round_is_due(&self, now: Instant, work: &Workload) -> bool {
        let since_last = now.saturating_duration_since(self.last_round);
        let idle_enough = !self.is_far_behind(work) && since_last >= self.limits.rows_interval;
        work.people_changed && (idle_enough || work.replay >= self.limits.max_replay)
    }

    /// Returns when time alone will make work due. Work that is due by `now` waits for another event.
    pub fn next_alarm(
        &self,
        now: Instant,
        work: &Workload,
        committing: bool,
        writing: bool,
    ) -> Option<Instant> {
        let commit_at = (!committing && work.has_changes)
            .then(|| self.last_commit + self.commit_interval(work));
        let rows_at =
            (!writing && work.people_changed).then(|| self.last_round + self.limits.rows_interval);
        [commit_at, rows_at].into_iter().flatten().filter(|at| *at > now).min()
    }

    fn is_far_behind(&self, work: &Workload) -> bool {
        work.unread > self.limits.catch_up_lag
    }

    fn commit_interval(&self, work: &Workload) -> Duration {
        if self.is_far_behind(work) {
            self.limits.catch_up_commit_interval
        } else {
            self.limits.commit_interval
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: PartitionLimits = PartitionLimits {
        commit_interval: Duration::from_millis(20),
        catch_up_commit_interval: Duration::from_millis(500),
        catch_up_lag: 100,
        max_uncommitted: 50,
        rows_interval: Duration::from_millis(200),
        max_replay: 1_000,
        dead_letters: DeadLetterThresholds { run: 1_000, percent: 20 },
    };

    prop_compose! {
        fn workloads()(
            has_changes: bool,
            people_changed: bool,
            uncommitted in 0..60_u64,
            dead_letter_bytes in 0..2 * MAX_DEAD_LETTER_BYTES,
            changed_bytes in 0..2 * MAX_COMMIT_BYTES,
            unread in 0..200_u64,
            replay in 0..1_100_u64,
        ) -> Workload {
            Workload {
                has_changes,
                uncommitted,
                dead_letter_bytes,
                changed_bytes,
                unread,
                replay,
                people_changed,
            }
        }
    }

    proptest! {
        #[test]
        fn changes_are_committed_now_or_have_an_alarm(
            work in workloads(),
            elapsed_us in 0..600_000_u64,
        ) {
            let claimed_at = Instant::now();
            let now = claimed_at + Duration::from_micros(elapsed_us);
            let pace = Pace::new(LIMITS, claimed_at);
            if work.has_changes {
                prop_assert!(
                    pace.commit_is_due(now, &work, true)
                        || pace.next_alarm(now, &work, false, true).is_some()
                );
            }
        }

        #[test]
        fn a_commit_is_due_at_once_when_no_more_records_may_be_folded(work in workloads(), inbox_is_empty: bool) {
            let claimed_at = Instant::now();
            let pace = Pace::new(LIMITS, claimed_at);
            if work.has_changes && !pace.may_fold(&work) {
                prop_assert!(pace.commit_is_due(claimed_at, &work, inbox_is_empty));
            }
        }

        #[test]
        fn uncommitted_records_dead_letters_and_totals_are_bounded_independently(work in workloads()) {
            let pace = Pace::new(LIMITS, Instant::now());
            let within = [
                work.uncommitted < LIMITS.max_uncommitted,
                work.dead_letter_bytes < MAX_DEAD_LETTER_BYTES,
                work.changed_bytes < MAX_COMMIT_BYTES,
            ];
            prop_assert_eq!(pace.may_fold(&work), within == [true; 3]);
        }

        #[test]
        fn a_commit_is_due_at_its_alarm(work in workloads()) {
            let claimed_at = Instant::now();
            let pace = Pace::new(LIMITS, claimed_at);
            if let Some(at) = pace.next_alarm(claimed_at, &work, false, true) {
                prop_assert!(pace.commit_is_due(at, &work, true));
            }
        }
    }
}
