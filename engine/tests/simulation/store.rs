//! The store server, which checks every write when it takes effect. Its client is `store_client`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use schemas::{BudgetId, HistoryPoint, HistoryStep, PartitionId, PersonKey, PersonRow, Position};
use storage::store::memory::{MemoryStore, PartitionSnapshot};
use storage::store::{
    CasOutcome, Checkpoints, Commit, Epoch, Histories, PartitionRef, People, StoreError,
    StoredPartition,
};

use crate::dead_letters::DeadLetterServer;
use crate::oracle::{CheckResult, require};
use crate::world::{InjectedBug, World};

/// Percentage of commits that are lost in a run whose store loses commits.
const LOST_COMMIT_PERCENT: u32 = 4;

/// Percentage of writes after which a snapshot is taken, in a run whose store goes back.
const SNAPSHOT_PERCENT: u32 = 20;

/// What a store that goes back to earlier moments has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoesBack {
    /// Commits and person rows since the same moment.
    Together,
    /// Commits since one moment, and person rows since another one.
    Independently,
    /// Only commits: the rows are ahead of the totals.
    CommitsOnly,
    /// Only person rows: lost ones, and old ones in the place of later ones.
    RowsOnly,
}

pub struct StoreServer {
    pub tables: MemoryStore,
    dead_letters: Arc<DeadLetterServer>,
    world: Arc<World>,
    /// The highest acknowledged position of each partition.
    acknowledged: Mutex<BTreeMap<PartitionRef, Position>>,
    /// Earlier moments of each partition, in order.
    snapshots: Mutex<BTreeMap<PartitionRef, Vec<PartitionSnapshot>>>,
    /// People whose row was lost, or replaced by an older one. A commit may state that it is stored until the next takeover notices.
    lost: Mutex<BTreeSet<(PartitionId, PersonKey)>>,
}

impl StoreServer {
    pub fn new(world: Arc<World>, dead_letters: Arc<DeadLetterServer>) -> Self {
        Self {
            tables: MemoryStore::new(),
            dead_letters,
            world,
            acknowledged: Mutex::default(),
            snapshots: Mutex::default(),
            lost: Mutex::default(),
        }
    }

    /// Reads a partition without the simulated network.
    pub async fn stored(&self, id: PartitionRef) -> Option<StoredPartition> {
        self.tables.read_partition(id).await.unwrap()
    }

    /// The acknowledged position of a partition: nothing beyond it may be written or published.
    pub fn acknowledged(&self, partition: PartitionRef) -> Position {
        self.acknowledged.lock().get(&partition).copied().unwrap_or_default()
    }

    /// Checks that every person's row equals the oracle's.
    pub async fn check_all_rows(&self, id: PartitionRef, end: Position) -> CheckResult {
        for expected in self.world.oracle.people_at(id.partition, end) {
            let found = self.tables.person(id, &expected.person).await.unwrap();
            require(found.as_ref() == Some(expected), || {
                format!("row at {}: found {found:?}, expected {expected:?}", id.partition)
            })?;
        }
        Ok(())
    }

    /// Loses person rows below the rows position: at least one of a person who counts, so that the totals show it, and
    /// of the others a third.
    pub async fn lose_rows(&self, id: PartitionRef) {
        let Some(stored) = self.stored(id).await else { return };
        let rows_position = stored.checkpoint.rows_position;
        let (mut counts_one, world) = (false, &self.world);
        let lost = self.tables.lose_people(id, |row| {
            if !rows_position.includes(row.offset) {
                return false;
            }
            let counts = !row.basis_points.is_empty();
            let is_lost = (counts && !counts_one) || (counts_one && world.chance(33));
            counts_one |= counts;
            if is_lost {
                self.lost.lock().insert((id.partition, row.person));
            }
            is_lost
        });
        world.note(format_args!("{}: the store loses {lost} rows", id.partition));
        world.count(|counts| counts.lost_rows += lost as u64);
    }

    /// Brings back earlier moments of a partition. Claims go back with the commits: an epoch may be used again.
    pub fn go_back(&self, id: PartitionRef) {
        let world = &self.world;
        let kind = world.draw(|rng| match rng.u32(0..4) {
            0 => GoesBack::Together,
            1 => GoesBack::Independently,
            2 => GoesBack::CommitsOnly,
            _ => GoesBack::RowsOnly,
        });
        let (snapshots, now) = (self.snapshots.lock(), self.tables.snapshot(id));
        let Some(snapshots) = snapshots.get(&id) else { return };
        let draw = || &snapshots[world.draw(|rng| rng.usize(0..snapshots.len()))];
        let (commits, rows) = match kind {
            GoesBack::Together => {
                let one = draw();
                (one, one)
            }
            GoesBack::Independently => (draw(), draw()),
            GoesBack::CommitsOnly => (draw(), &now),
            GoesBack::RowsOnly => (&now, draw()),
        };
        let changed = self.tables.go_back(id, commits, rows);
        world.note(format_args!("{}: {kind:?}, {} rows change", id.partition, changed.len()));
        world.count(|counts| match kind {
            GoesBack::Together => counts.back_together += 1,
            GoesBack::Independently => counts.back_independently += 1,
            GoesBack::CommitsOnly => counts.back_commits += 1,
            GoesBack::RowsOnly => counts.back_rows += 1,
        });
        self.lost.lock().extend(changed.into_iter().map(|person| (id.partition, person)));
    }

    /// Takes a snapshot now and then; the first one is of a partition that nobody has claimed.
    fn take_snapshot(&self, id: PartitionRef) {
        if !self.world.plan.goes_back {
            return;
        }
        let mut snapshots = self.snapshots.lock();
        let of_partition = snapshots.entry(id).or_default();
        if of_partition.is_empty() || self.world.chance(SNAPSHOT_PERCENT) {
            of_partition.push(self.tables.snapshot(id));
        }
    }

    pub async fn claim(
        self: Arc<Self>,
        id: PartitionRef,
        expected: Option<Epoch>,
        next: Epoch,
        owner: String,
    ) -> Result<CasOutcome, StoreError> {
        self.take_snapshot(id);
        let outcome = self.tables.claim(id, expected, next, &owner).await;
        let (partition, epoch) = (id.partition, next.0);
        self.world.note(format_args!("{partition}: {owner} claims epoch {epoch}: {outcome:?}"));
        if outcome == Ok(CasOutcome::Applied) {
            self.world.count(|counts| counts.takeovers += 1);
            *self.world.takeovers.lock().entry(partition).or_default() += 1;
        }
        outcome
    }

    pub async fn commit(
        self: Arc<Self>,
        id: PartitionRef,
        mut commit: Commit,
    ) -> Result<CasOutcome, StoreError> {
        self.take_snapshot(id);
        let (partition, before) = (id.partition, self.stored(id).await);
        if let Some(before) = &before
            && self.world.plan.bug == Some(InjectedBug::UnconditionalCommits)
        {
            (commit.epoch, commit.from) = (before.epoch, before.checkpoint.position);
        }
        let Commit { epoch, from, checkpoint, .. } = &commit;
        let to = checkpoint.position;
        let holds = before
            .as_ref()
            .is_some_and(|stored| (stored.epoch, stored.checkpoint.position) == (*epoch, *from));
        let loses = self.world.plan.loses_commits
            && holds
            && to > *from
            && !self.world.is_healed()
            && self.world.chance(LOST_COMMIT_PERCENT);
        let outcome =
            if loses { Ok(CasOutcome::Applied) } else { self.tables.commit(id, &commit).await };
        self.world.note(format_args!(
            "{partition}: commit under {} from {from} to {to}, rows to {}: {outcome:?}{}",
            epoch.0,
            checkpoint.rows_position,
            if loses { ", lost" } else { "" }
        ));
        if outcome == Ok(CasOutcome::Applied) {
            let mut acknowledged = self.acknowledged.lock();
            let highest = acknowledged.entry(id).or_default();
            if *from < *highest && !loses {
                self.world.count(|counts| counts.went_back += 1);
            }
            *highest = to.max(*highest);
        }
        if loses {
            self.world.count(|counts| counts.forgotten_commits += 1);
        } else if outcome == Ok(CasOutcome::Applied) {
            self.world.count(|counts| counts.commits += 1);
            let checked = self.check_commit(id, before.as_ref()).await;
            self.world.check(checked.map_err(|failure| format!("after a commit: {failure}")));
        }
        outcome
    }

    async fn check_commit(
        &self,
        id: PartitionRef,
        before: Option<&StoredPartition>,
    ) -> CheckResult {
        let stored =
            self.stored(id).await.ok_or("a commit to a partition that was never claimed")?;
        let checkpoint = &stored.checkpoint;
        let (from, to) = (before.map(|before| before.checkpoint.position), checkpoint.position);
        require(from.is_none_or(|from| from <= to), || format!("back from {from:?} to {to}"))?;
        self.world.oracle.check_stored(id.partition, &stored)?;
        for expected in self.world.oracle.people_at(id.partition, checkpoint.rows_position) {
            let row = self.tables.person(id, &expected.person).await.unwrap();
            let is_lost = self.lost.lock().contains(&(id.partition, expected.person));
            let is_stored = row.is_some_and(|row| row.offset >= expected.offset);
            require(is_stored || is_lost, || {
                format!(
                    "rows are stated to be stored up to {}, but the row of {} is not",
                    checkpoint.rows_position, expected.offset
                )
            })?;
        }
        let mut history = Vec::new();
        let mut add = |budget, point| history.push((budget, point));
        self.tables.scan_history(id, HistoryStep::Day, &mut add).await.unwrap();
        self.world.oracle.check_history_is_complete(id.partition, to, &history)?;
        self.dead_letters.check_complete(id.partition, to)
    }

    pub async fn write_history(
        self: Arc<Self>,
        id: PartitionRef,
        points: Vec<(BudgetId, HistoryPoint)>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        for (budget, point) in &points {
            self.world.check(self.world.oracle.check_history(id.partition, budget, point));
        }
        self.world.note(format_args!("{}: {} history points", id.partition, points.len()));
        self.tables.write_history(id, &points, now_ms).await
    }

    pub async fn write_people(
        self: Arc<Self>,
        id: PartitionRef,
        rows: Vec<PersonRow>,
    ) -> Result<(), StoreError> {
        self.take_snapshot(id);
        let acknowledged = self.acknowledged(id);
        for row in &rows {
            self.world.check(self.world.oracle.check_row(id.partition, row));
            self.world.check(require(acknowledged.includes(row.offset), || {
                format!(
                    "the row of {} is written, but only {acknowledged} is acknowledged",
                    row.offset
                )
            }));
        }
        let offsets: Vec<_> = rows.iter().map(|row| row.offset.0).collect();
        self.world.note(format_args!("{}: rows {offsets:?}", id.partition));
        if self.world.plan.bug == Some(InjectedBug::LostRows) {
            return Ok(());
        }
        self.tables.write_people(id, &rows).await
    }
}
