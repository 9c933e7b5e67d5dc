//! The expected state: a naive fold of the whole log, computed before the run, and the checks against it.
//!
//! It recounts every person after every record and subtracts nothing, so it shares neither code nor method with the
//! engine's fold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use schemas::{
    BudgetId, BudgetTotals, CategoryTotals, Closing, CombinedTotals, HistoryInstant, HistoryPoint,
    HistoryStep, HistoryTotals, Offset, PartitionId, PeopleDigest, PersonKey, PersonRow, Position,
    PublishStep, SubmissionId, Term, record_fingerprint,
};
use storage::log::DeadLetter;
use storage::store::{RecordCounts, StoredPartition};

use crate::log::{Log, LogRecord, SimSubmission};

/// Submission ids remembered for each person, as specified.
const RECENT_IDS: usize = 3;

pub type CheckResult = Result<(), String>;

pub struct Oracle {
    partitions: Vec<History>,
}

/// The expected state of a partition at every position.
#[derive(Default)]
struct History {
    /// Indexed by position.
    tallies: Vec<RecordCounts>,
    fingerprints: Vec<u64>,
    /// Each budget's totals after each of its records.
    totals: BTreeMap<BudgetId, Vec<ExpectedTotals>>,
    /// Each person's row after each of their records.
    people: BTreeMap<PersonKey, Vec<PersonRow>>,
    /// Key and value of each rejected record.
    dead_letters: BTreeMap<Offset, (Vec<u8>, Vec<u8>)>,
}

/// A budget's totals after a record.
#[derive(Debug, PartialEq)]
struct ExpectedTotals {
    /// Everyone's current shares; nothing is pending in them.
    exact: BudgetTotals,
    /// What readers are shown.
    shown: BudgetTotals,
    /// Fingerprints of the people whose changes are not shown.
    pending: Vec<u64>,
}

impl ExpectedTotals {
    fn of_stored(totals: &BudgetTotals) -> Self {
        let pending =
            totals.pending.as_ref().map(|pending| pending.changed_fingerprints().to_vec());
        Self {
            exact: BudgetTotals { pending: None, ..totals.clone() },
            shown: totals.clone().into_shown(),
            pending: pending.unwrap_or_default(),
        }
    }
}

/// What readers are shown of a budget while changes are pending.
struct HeldBack {
    shown: BudgetTotals,
    changed: Vec<PersonKey>,
}

/// The state of the naive fold of one partition.
#[derive(Default)]
struct NaiveFold {
    categories: BTreeMap<BudgetId, usize>,
    ids: BTreeMap<PersonKey, Vec<u128>>,
    current: BTreeMap<PersonKey, SimSubmission>,
    updated_at_ms: BTreeMap<BudgetId, u64>,
    /// The latest revision of each budget's markers, and the offsets at which they changed whether it is closed.
    closings: BTreeMap<BudgetId, (u64, Vec<Offset>)>,
    /// The largest step of the records that changed a budget.
    steps: BTreeMap<BudgetId, u64>,
    held_back: BTreeMap<BudgetId, HeldBack>,
    annulled: BTreeSet<PersonKey>,
}

enum NaiveOutcome {
    Applied,
    Duplicate,
    /// An annulment that changes nobody.
    Unchanged,
    /// Behind a close marker, or a marker that is not later than another one.
    Ignored,
    Rejected,
}

impl Oracle {
    pub fn of(log: &Log) -> Self {
        Self { partitions: log.partitions.iter().map(|records| History::of(records)).collect() }
    }

    fn history(&self, partition: PartitionId) -> &History {
        &self.partitions[partition.0 as usize]
    }

    /// The number of rejected records.
    pub fn dead_letters(&self) -> usize {
        self.partitions.iter().map(|history| history.dead_letters.len()).sum()
    }

    /// Checks a stored partition at its own position.
    pub fn check_stored(&self, partition: PartitionId, stored: &StoredPartition) -> CheckResult {
        let (history, checkpoint) = (self.history(partition), &stored.checkpoint);
        let position = checkpoint.position;
        require(checkpoint.rows_position <= position, || {
            "the rows position is beyond the position".into()
        })?;
        let tally =
            history.tallies.get(position.0 as usize).ok_or("the position is beyond the log")?;
        same("tally", &checkpoint.tally, tally)?;
        same("records", tally.applied + tally.duplicates + tally.dead_lettered, position.0)?;
        let stored_last =
            checkpoint.last_record.map(|record| (record.offset.next(), record.fingerprint));
        let last = position.0.checked_sub(1).map(|last| history.fingerprints[last as usize]);
        same("last record", stored_last, last.map(|fingerprint| (position, fingerprint)))?;
        let expected: Vec<_> = history
            .totals
            .iter()
            .filter_map(|(budget, after)| Some((budget, newest(after, position)?)))
            .collect();
        let of_stored = |(_, totals): &(_, _)| ExpectedTotals::of_stored(totals);
        let found: Vec<_> = stored.totals.iter().map(of_stored).collect();
        let budgets = stored.totals.iter().map(|(budget, _)| budget);
        same("totals", budgets.zip(&found).collect::<Vec<_>>(), expected)?;
        for (budget, totals) in &stored.totals {
            let sum: u64 = totals.categories.iter().map(|category| category.basis_points).sum();
            require(sum == totals.people * 10_000, || format!("{budget}: the sum is {sum}"))?;
        }
        Ok(())
    }

    /// Checks one budget's totals at their own position.
    pub fn check_totals(
        &self,
        partition: PartitionId,
        budget: &BudgetId,
        totals: &BudgetTotals,
    ) -> CheckResult {
        same("published totals", totals, &self.shown_at(partition, budget, totals.position))
    }

    fn shown_at(&self, partition: PartitionId, budget: &BudgetId, at: Position) -> BudgetTotals {
        let after = self.history(partition).totals.get(budget);
        after.and_then(|after| newest(after, at)).map(|it| it.shown.clone()).unwrap_or_default()
    }

    /// Checks a person row at its own offset.
    pub fn check_row(&self, partition: PartitionId, row: &PersonRow) -> CheckResult {
        let rows =
            self.history(partition).people.get(&row.person).ok_or("a row of an unknown person")?;
        let expected = rows.iter().find(|expected| expected.offset == row.offset);
        same("row", Some(row), expected)
    }

    /// Returns every person's row as of a position.
    pub fn people_at(
        &self,
        partition: PartitionId,
        position: Position,
    ) -> impl Iterator<Item = &PersonRow> {
        let people = self.history(partition).people.values();
        people.filter_map(move |rows| rows.iter().rfind(|row| position.includes(row.offset)))
    }

    /// Checks that a dead letter has its record's bytes.
    pub fn check_dead_letter(&self, letter: &DeadLetter) -> CheckResult {
        let bytes = self.history(letter.source.partition).dead_letters.get(&letter.source.offset);
        same("dead letter", Some(&(letter.key.clone(), letter.value.clone())), bytes)
    }

    /// Returns the offsets of the rejected records below a position.
    pub fn rejected_below(
        &self,
        partition: PartitionId,
        position: Position,
    ) -> impl Iterator<Item = Offset> {
        self.history(partition).dead_letters.range(..Offset(position.0)).map(|(offset, _)| *offset)
    }

    /// Checks that a history point has the totals of all its instants, and that they are over.
    pub fn check_history(
        &self,
        partition: PartitionId,
        budget: &BudgetId,
        point: &HistoryPoint,
    ) -> CheckResult {
        let after = self.history(partition).totals.get(budget).ok_or("a history of nothing")?;
        let last_ms = HistoryInstant(point.end.0 - 1).at_ms(point.step);
        let is_over = after.iter().any(|totals| totals.exact.updated_at_ms >= last_ms);
        require(is_over, || format!("{budget}: {point:?} is not over"))?;
        for at_ms in [point.first.at_ms(point.step), last_ms] {
            let expected = totals_before(after, at_ms);
            same("history", &point.totals, &expected)?;
        }
        Ok(())
    }

    /// Checks that the days of a partition's history have no gap up to a position.
    pub fn check_history_is_complete(
        &self,
        partition: PartitionId,
        position: Position,
        stored: &[(BudgetId, HistoryPoint)],
    ) -> CheckResult {
        for (budget, after) in &self.history(partition).totals {
            let Some(newest) = newest(after, position) else { continue };
            let mut next = HistoryInstant::FIRST;
            for (_, point) in stored.iter().filter(|(of, _)| of == budget) {
                same("history", (budget, point.first), (budget, next))?;
                next = point.end;
            }
            let last_ms = newest.exact.updated_at_ms;
            require(last_ms == 0 || next > HistoryStep::Day.last_instant(last_ms), || {
                format!("{budget}: the history ends before {next:?}, the totals at {last_ms} ms")
            })?;
        }
        Ok(())
    }

    /// Checks combined totals at their own positions.
    pub fn check_combined(&self, budget: &BudgetId, combined: &CombinedTotals) -> CheckResult {
        same(
            "combined totals",
            combined,
            &self.combined_at(budget, &combined.positions, combined.term),
        )
    }

    /// Returns the combined totals as of these positions.
    pub fn combined_at(
        &self,
        budget: &BudgetId,
        positions: &[Position],
        term: Term,
    ) -> CombinedTotals {
        let partitions: Vec<_> = (0..)
            .map(PartitionId)
            .zip(positions)
            .map(|(partition, position)| self.shown_at(partition, budget, *position))
            .collect();
        let width = partitions.iter().map(|totals| totals.categories.len()).max().unwrap_or(0);
        let mut categories = vec![CategoryTotals::default(); width];
        for totals in &partitions {
            for (sum, category) in categories.iter_mut().zip(&totals.categories) {
                sum.basis_points += category.basis_points;
                for (bin, people) in category.people_by_percent.iter().enumerate() {
                    sum.people_by_percent[bin] += people;
                }
            }
        }
        CombinedTotals {
            term,
            positions: partitions.iter().map(|totals| totals.position).collect(),
            people: partitions.iter().map(|totals| totals.people).sum(),
            updated_at_ms: partitions.iter().map(|totals| totals.updated_at_ms).max().unwrap_or(0),
            categories,
            closed_partitions: partitions.iter().filter(|it| it.closing.is_closed()).count() as u32,
            annulled: partitions.iter().map(|totals| totals.annulled).sum(),
        }
    }
}

impl History {
    fn of(records: &[LogRecord]) -> Self {
        let (mut history, mut fold) = (Self::default(), NaiveFold::default());
        let mut tally = RecordCounts::default();
        history.tallies.push(tally);
        for (offset, record) in (0..).map(Offset).zip(records) {
            let outcome = record
                .submission
                .as_ref()
                .map_or(NaiveOutcome::Rejected, |submission| fold.fold(submission, offset));
            match (&record.submission, outcome) {
                (Some(submission), NaiveOutcome::Applied) if submission.marker.is_some() => {
                    tally.applied += 1;
                    history.add_totals(&fold, &submission.budget, offset);
                }
                (Some(submission), NaiveOutcome::Ignored) if submission.marker.is_some() => {
                    tally.applied += 1;
                }
                (Some(_), NaiveOutcome::Ignored) => tally.duplicates += 1,
                (Some(submission), NaiveOutcome::Unchanged) => {
                    tally.applied += 1;
                    history.add_totals(&fold, &submission.budget, offset);
                }
                (Some(submission), NaiveOutcome::Applied) => {
                    tally.applied += 1;
                    let rows = history.people.entry(submission.person).or_default();
                    rows.push(fold.row(submission, offset));
                    history.add_totals(&fold, &submission.budget, offset);
                }
                (Some(submission), NaiveOutcome::Duplicate) => {
                    tally.duplicates += 1;
                    history.add_totals(&fold, &submission.budget, offset);
                }
                _ => {
                    tally.dead_lettered += 1;
                    history.dead_letters.insert(offset, (record.key.clone(), record.value.clone()));
                }
            }
            history.tallies.push(tally);
            history.fingerprints.push(record_fingerprint(&record.key, &record.value));
        }
        history
    }

    fn add_totals(&mut self, fold: &NaiveFold, budget: &BudgetId, offset: Offset) {
        let (people, content) = self.digests(budget);
        let (people_digest, content_digest) = (Some(people), Some(content));
        let position = offset.next();
        let exact = BudgetTotals { position, people_digest, content_digest, ..fold.count(budget) };
        let (shown, changed) = match fold.held_back.get(budget) {
            None => (exact.clone().into_shown(), [].as_slice()),
            Some(HeldBack { shown, changed }) => {
                let BudgetTotals { position, closing, publish_step, .. } = exact.clone();
                (
                    BudgetTotals { position, closing, publish_step, ..shown.clone() },
                    changed.as_slice(),
                )
            }
        };
        let fingerprint = |person: &PersonKey| {
            let bytes = person.as_bytes();
            bytes[..8].iter().fold(0, |fingerprint, byte| fingerprint << 8 | u64::from(*byte))
        };
        let pending = changed.iter().map(fingerprint).collect();
        let totals = ExpectedTotals { exact, shown, pending };
        self.totals.entry(budget.clone()).or_default().push(totals);
    }
}

impl History {
    /// The digests of everyone's latest row, and of what is in it beside shares.
    fn digests(&self, budget: &BudgetId) -> (PeopleDigest, PeopleDigest) {
        let (mut people, mut content) = (PeopleDigest::default(), PeopleDigest::default());
        let latest = self.people.values().filter_map(|rows| rows.last());
        for row in latest.filter(|row| row.budget == *budget) {
            people.add(&row.person, row.offset);
            row.recent.iter().flatten().for_each(|id| content.add_submission(&row.person, *id));
            if row.annulled {
                content.add_annulled(&row.person);
            }
        }
        (people, content)
    }
}

impl NaiveFold {
    fn fold(&mut self, submission: &SimSubmission, offset: Offset) -> NaiveOutcome {
        let before = self.count(&submission.budget);
        let (latest, changes) = self.closings.entry(submission.budget.clone()).or_default();
        if let Some(marker) = submission.marker {
            if marker.revision <= *latest {
                return NaiveOutcome::Ignored;
            }
            *latest = marker.revision;
            if marker.closes == changes.len().is_multiple_of(2) {
                changes.push(offset);
            }
            if !changes.len().is_multiple_of(2) {
                self.held_back.remove(&submission.budget);
            }
            return NaiveOutcome::Applied;
        }
        let is_closed = !changes.len().is_multiple_of(2);
        if let Some(annuls) = submission.annuls {
            return self.annul(submission, annuls, before, is_closed);
        }
        if is_closed {
            return NaiveOutcome::Ignored;
        }
        if let Some(shares) = &submission.shares {
            let categories =
                *self.categories.entry(submission.budget.clone()).or_insert(shares.len());
            if categories != shares.len() {
                return NaiveOutcome::Rejected;
            }
        }
        let updated = self.updated_at_ms.entry(submission.budget.clone()).or_default();
        *updated = submission.accepted_at_ms.max(*updated);
        let ids = self.ids.entry(submission.person).or_default();
        if ids.iter().rev().take(RECENT_IDS).any(|id| *id == submission.id) {
            return NaiveOutcome::Duplicate;
        }
        ids.push(submission.id);
        let former = self.contribution(&submission.person);
        self.current.insert(submission.person, submission.clone());
        if former != self.contribution(&submission.person) {
            self.hold_back(submission, before);
        }
        NaiveOutcome::Applied
    }

    /// Annuls or restores a person who has submitted, also in a closed budget.
    fn annul(
        &mut self,
        record: &SimSubmission,
        annuls: bool,
        before: BudgetTotals,
        is_closed: bool,
    ) -> NaiveOutcome {
        let SimSubmission { budget, person, accepted_at_ms, .. } = record;
        let updated = self.updated_at_ms.entry(budget.clone()).or_default();
        *updated = (*accepted_at_ms).max(*updated);
        if !self.current.contains_key(person) || self.annulled.contains(person) == annuls {
            return NaiveOutcome::Unchanged;
        }
        let former = self.contribution(person);
        if annuls {
            self.annulled.insert(*person);
        } else {
            self.annulled.remove(person);
        }
        if former != self.contribution(person) {
            self.hold_back(record, before);
        }
        if is_closed {
            self.held_back.remove(budget);
        }
        NaiveOutcome::Applied
    }

    /// What a person adds to the totals: shares, or one to the annulled people.
    fn contribution(&self, person: &PersonKey) -> (Option<Vec<u16>>, bool) {
        let shares = self.current.get(person).and_then(|current| current.shares.clone());
        match self.annulled.contains(person) {
            true => (None, shares.is_some()),
            false => (shares, false),
        }
    }

    /// Decides whether a change is shown: not before as many people as the step have changed.
    fn hold_back(&mut self, change: &SimSubmission, before: BudgetTotals) {
        let SimSubmission { budget, person, .. } = change;
        let step = self.steps.entry(budget.clone()).or_insert(1);
        *step = change.step.max(*step);
        let held_back = self
            .held_back
            .entry(budget.clone())
            .or_insert_with(|| HeldBack { shown: before, changed: Vec::new() });
        if !held_back.changed.contains(person) {
            held_back.changed.push(*person);
        }
        if held_back.changed.len() as u64 >= *step {
            self.held_back.remove(budget);
        }
    }

    fn row(&self, submission: &SimSubmission, offset: Offset) -> PersonRow {
        let mut recent = [None; RECENT_IDS];
        for (slot, id) in recent.iter_mut().zip(self.ids[&submission.person].iter().rev()) {
            *slot = Some(SubmissionId(uuid::Uuid::from_u128(*id)).fingerprint());
        }
        let basis_points = self.current[&submission.person].shares.clone().unwrap_or_default();
        PersonRow {
            person: submission.person,
            budget: submission.budget.clone(),
            offset,
            basis_points,
            annulled: self.annulled.contains(&submission.person),
            recent,
        }
    }

    /// Recounts a budget from every person's current submission.
    fn count(&self, budget: &BudgetId) -> BudgetTotals {
        let width = self.categories.get(budget).copied().unwrap_or(0);
        let mut totals = BudgetTotals {
            updated_at_ms: self.updated_at_ms.get(budget).copied().unwrap_or(0),
            closing: self
                .closings
                .get(budget)
                .and_then(|(revision, changes)| Closing::new(*revision, changes.clone()))
                .unwrap_or_default(),
            categories: vec![CategoryTotals::default(); width],
            publish_step: PublishStep::nearest(self.steps.get(budget).copied().unwrap_or(1)),
            ..BudgetTotals::default()
        };
        let submissions = self.current.values().filter(|submission| submission.budget == *budget);
        for SimSubmission { person, shares, .. } in submissions {
            let Some(shares) = shares else { continue };
            if self.annulled.contains(person) {
                totals.annulled += 1;
                continue;
            }
            totals.people += 1;
            for (category, share) in totals.categories.iter_mut().zip(shares) {
                category.basis_points += u64::from(*share);
                category.people_by_percent[usize::from(share / 100)] += 1;
            }
        }
        totals
    }
}

/// Returns the totals as of a time: after the last record whose log time is before it.
fn totals_before(after: &[ExpectedTotals], at_ms: u64) -> HistoryTotals {
    let newest = after.iter().rfind(|totals| totals.exact.updated_at_ms < at_ms);
    newest.map(|totals| HistoryTotals::of(&totals.shown)).unwrap_or_default()
}

/// Returns the totals as of a position: after the last record below it.
fn newest(after: &[ExpectedTotals], at: Position) -> Option<&ExpectedTotals> {
    after.iter().rfind(|totals| totals.exact.position <= at)
}

pub fn require(holds: bool, otherwise: impl FnOnce() -> String) -> CheckResult {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> CheckResult {
    require(found == expected, || format!("{what}: found {found:?}, expected {expected:?}"))
}
