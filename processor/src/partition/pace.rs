//! When to commit and when to write people's rows: pure decisions, all of one turn on one reading of the clock. What
//! is not due by it gets an alarm by it, so nothing falls between.

use std::time::Duration;

use tokio::time::Instant;

use super::StormLimits;

/// What the dead letters that wait for a commit may take in memory. Those of the commit under way come on top.
const MOST_LETTER_BYTES: usize = 16 << 20;

/// How an owner paces itself.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The least time between two commits.
    pub commit_interval: Duration,
    /// The time between two commits while the partition is far behind: fewer, larger steps.
    pub catch_up_commit_interval: Duration,
    /// From how many unread records on a partition counts as far behind.
    pub catch_up_lag: u64,
    /// How many records may be folded ahead of the commit.
    pub max_uncommitted: u64,
    /// The time between two rounds of people's rows.
    pub rows_interval: Duration,
    /// Rows are written even while far behind once a take-over would have to replay this many records.
    pub max_replay: u64,
    /// How many records that cannot be taken are too many.
    pub storm: StormLimits,
}

/// What an owner has before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workload {
    /// Whether anything is folded or written that the checkpoint does not say.
    pub has_news: bool,
    /// Records folded ahead of the commit.
    pub uncommitted: u64,
    /// What the dead letters among them take in memory.
    pub letter_bytes: usize,
    /// Records in the log that are not folded yet.
    pub unread: u64,
    /// Records that a take-over would replay.
    pub replay: u64,
    /// Whether anyone's row is older than their state.
    pub people_changed: bool,
}

/// An owner's limits, and when it last did what they limit.
#[derive(Debug)]
pub(super) struct Pace {
    limits: Limits,
    last_commit: Instant,
    last_round: Instant,
}

impl Pace {
    pub fn new(limits: Limits, claimed_at: Instant) -> Self {
        Self { limits, last_commit: claimed_at, last_round: claimed_at }
    }

    pub fn committing(&mut self, now: Instant) {
        self.last_commit = now;
    }

    pub fn round_is_through(&mut self, now: Instant) {
        self.last_round = now;
    }

    pub fn last_commit(&self) -> Instant {
        self.last_commit
    }

    /// Whether more may be folded before something is committed.
    pub fn has_room(&self, work: &Workload) -> bool {
        work.uncommitted < self.limits.max_uncommitted && work.letter_bytes < MOST_LETTER_BYTES
    }

    /// Commits are grouped: one follows the last when that is done, the least interval has passed, and what has
    /// already arrived is folded or waits too long. Where nothing more can be folded there is nothing to wait for.
    pub fn commit_is_due(&self, now: Instant, work: &Workload, nothing_waits: bool) -> bool {
        let waited = now.saturating_duration_since(self.last_commit);
        let group_is_whole = waited >= self.commit_pause(work)
            && (nothing_waits || waited >= self.limits.catch_up_commit_interval);
        work.has_news && (group_is_whole || !self.has_room(work))
    }

    /// Whether a round of people's rows begins.
    pub fn round_is_due(&self, now: Instant, work: &Workload) -> bool {
        let since_last = now.saturating_duration_since(self.last_round);
        let calm = !self.is_far_behind(work) && since_last >= self.limits.rows_interval;
        work.people_changed && (calm || work.replay >= self.limits.max_replay)
    }

    /// When the clock alone will make something due. What is overdue by `now` waits for something else.
    pub fn next_alarm(
        &self,
        now: Instant,
        work: &Workload,
        committing: bool,
        writing: bool,
    ) -> Option<Instant> {
        let commit_at =
            (!committing && work.has_news).then(|| self.last_commit + self.commit_pause(work));
        let rows_at =
            (!writing && work.people_changed).then(|| self.last_round + self.limits.rows_interval);
        [commit_at, rows_at].into_iter().flatten().filter(|at| *at > now).min()
    }

    fn is_far_behind(&self, work: &Workload) -> bool {
        work.unread > self.limits.catch_up_lag
    }

    fn commit_pause(&self, work: &Workload) -> Duration {
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

    const LIMITS: Limits = Limits {
        commit_interval: Duration::from_millis(20),
        catch_up_commit_interval: Duration::from_millis(500),
        catch_up_lag: 100,
        max_uncommitted: 50,
        rows_interval: Duration::from_millis(200),
        max_replay: 1_000,
        storm: StormLimits { run: 1_000, percent: 20 },
    };

    prop_compose! {
        fn workloads()(
            has_news: bool,
            people_changed: bool,
            uncommitted in 0..60_u64,
            letter_bytes in 0..2 * MOST_LETTER_BYTES,
            unread in 0..200_u64,
            replay in 0..1_100_u64,
        ) -> Workload {
            Workload { has_news, uncommitted, letter_bytes, unread, replay, people_changed }
        }
    }

    proptest! {
        #[test]
        fn news_is_committed_now_or_has_an_alarm(
            work in workloads(),
            elapsed_us in 0..600_000_u64,
        ) {
            let claimed_at = Instant::now();
            let now = claimed_at + Duration::from_micros(elapsed_us);
            let pace = Pace::new(LIMITS, claimed_at);
            if work.has_news {
                prop_assert!(
                    pace.commit_is_due(now, &work, true)
                        || pace.next_alarm(now, &work, false, true).is_some()
                );
            }
        }

        #[test]
        fn what_cannot_grow_is_committed_at_once(work in workloads(), nothing_waits: bool) {
            let claimed_at = Instant::now();
            let pace = Pace::new(LIMITS, claimed_at);
            if work.has_news && !pace.has_room(&work) {
                prop_assert!(pace.commit_is_due(claimed_at, &work, nothing_waits));
            }
        }

        #[test]
        fn records_and_the_bytes_of_letters_are_bounded_each_by_itself(work in workloads()) {
            let pace = Pace::new(LIMITS, Instant::now());
            let within = [
                work.uncommitted < LIMITS.max_uncommitted,
                work.letter_bytes < MOST_LETTER_BYTES,
            ];
            prop_assert_eq!(pace.has_room(&work), within == [true, true]);
        }

        #[test]
        fn at_its_alarm_a_commit_is_due(work in workloads()) {
            let claimed_at = Instant::now();
            let pace = Pace::new(LIMITS, claimed_at);
            if let Some(at) = pace.next_alarm(claimed_at, &work, false, true) {
                prop_assert!(pace.commit_is_due(at, &work, true));
            }
        }
    }
}
