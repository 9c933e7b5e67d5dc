//! What must be true: a naive fold of the whole log, made before anything runs, and the checks against it.
//!
//! It adds everyone up anew after every record and subtracts nothing, so it shares neither code nor method with the
//! processor's fold.

use std::collections::BTreeMap;
use std::fmt::Debug;

use schemas::{
    BudgetId, BudgetTotals, CategoryTotals, CombinedTotals, Offset, PartitionId, PersonKey,
    PersonRow, Position, SubmissionId, Term, record_fingerprint,
};
use storage::log::DeadLetter;
use storage::store::{StoredPartition, Tally};

use crate::log::{Log, LogRecord, Said};

/// As the specification has it: a person's latest three submissions are remembered.
const REMEMBERED: usize = 3;

pub type Checked = Result<(), String>;

pub struct Oracle {
    partitions: Vec<History>,
}

/// Everything that was ever true of a partition.
#[derive(Default)]
struct History {
    /// By position.
    tallies: Vec<Tally>,
    fingerprints: Vec<u64>,
    /// Each budget's totals after each record about it.
    totals: BTreeMap<BudgetId, Vec<BudgetTotals>>,
    /// Each person's row after each of their records.
    people: BTreeMap<PersonKey, Vec<PersonRow>>,
    /// Key and value of what cannot be taken.
    dead: BTreeMap<Offset, (Vec<u8>, Vec<u8>)>,
}

/// What the naive fold keeps while it goes through a partition.
#[derive(Default)]
struct Fold {
    categories: BTreeMap<BudgetId, usize>,
    ids: BTreeMap<PersonKey, Vec<u128>>,
    current: BTreeMap<PersonKey, Said>,
    updated_at_ms: BTreeMap<BudgetId, u64>,
}

enum Outcome {
    Applied,
    Duplicate,
    Dead,
}

impl Oracle {
    pub fn of(log: &Log) -> Self {
        Self { partitions: log.partitions.iter().map(|records| History::of(records)).collect() }
    }

    fn history(&self, partition: PartitionId) -> &History {
        &self.partitions[partition.0 as usize]
    }

    /// How many records nobody can take.
    pub fn dead_letters(&self) -> usize {
        self.partitions.iter().map(|history| history.dead.len()).sum()
    }

    /// Everything that a stored partition says, at whatever position it is.
    pub fn check_stored(&self, partition: PartitionId, stored: &StoredPartition) -> Checked {
        let (history, checkpoint) = (self.history(partition), &stored.checkpoint);
        let position = checkpoint.position;
        require(checkpoint.state_position <= position, || "rows beyond the position".into())?;
        let tally = history.tallies.get(position.0 as usize).ok_or("a position beyond the log")?;
        same("tally", &checkpoint.tally, tally)?;
        same("records", tally.applied + tally.duplicates + tally.dead_lettered, position.0)?;
        let mark = checkpoint.last_record.map(|mark| (mark.offset.next(), mark.fingerprint));
        let last = position.0.checked_sub(1).map(|last| history.fingerprints[last as usize]);
        same("mark", mark, last.map(|fingerprint| (position, fingerprint)))?;
        let expected: Vec<_> = history
            .totals
            .iter()
            .filter_map(|(budget, after)| Some((budget.clone(), newest(after, position)?.clone())))
            .collect();
        same("totals", &stored.totals, &expected)?;
        for (budget, totals) in &stored.totals {
            let sum: u64 = totals.categories.iter().map(|category| category.basis_points).sum();
            require(sum == totals.people * 10_000, || format!("{budget}: the sum is {sum}"))?;
        }
        Ok(())
    }

    /// One budget's totals, which say themselves of which prefix they are.
    pub fn check_totals(
        &self,
        partition: PartitionId,
        budget: &BudgetId,
        totals: &BudgetTotals,
    ) -> Checked {
        same("published totals", totals, &self.totals_at(partition, budget, totals.position))
    }

    fn totals_at(&self, partition: PartitionId, budget: &BudgetId, at: Position) -> BudgetTotals {
        let after = self.history(partition).totals.get(budget);
        after.and_then(|after| newest(after, at)).cloned().unwrap_or_default()
    }

    /// A row, which says itself of which prefix it is.
    pub fn check_row(&self, partition: PartitionId, row: &PersonRow) -> Checked {
        let rows = self.history(partition).people.get(&row.person).ok_or("a row of nobody")?;
        let expected = rows.iter().find(|expected| expected.offset == row.offset);
        same("row", Some(row), expected)
    }

    /// Everyone's row as of a position.
    pub fn people_at(
        &self,
        partition: PartitionId,
        position: Position,
    ) -> impl Iterator<Item = &PersonRow> {
        let people = self.history(partition).people.values();
        people.filter_map(move |rows| rows.iter().rfind(|row| position.includes(row.offset)))
    }

    /// A letter: the record's own bytes.
    pub fn check_letter(&self, letter: &DeadLetter) -> Checked {
        let bytes = self.history(letter.place.partition).dead.get(&letter.place.offset);
        same("letter", Some(&(letter.key.clone(), letter.value.clone())), bytes)
    }

    /// The letters of a prefix.
    pub fn dead_below(
        &self,
        partition: PartitionId,
        position: Position,
    ) -> impl Iterator<Item = Offset> {
        self.history(partition).dead.range(..Offset(position.0)).map(|(offset, _)| *offset)
    }

    /// An answer over all partitions, which says itself of which prefixes it is.
    pub fn check_combined(&self, budget: &BudgetId, shown: &CombinedTotals) -> Checked {
        same("answer", shown, &self.combined_at(budget, &shown.positions))
    }

    /// The answer that reflects the whole log up to these positions.
    pub fn combined_at(&self, budget: &BudgetId, positions: &[Position]) -> CombinedTotals {
        let parts: Vec<_> = (0..)
            .map(PartitionId)
            .zip(positions)
            .map(|(partition, position)| self.totals_at(partition, budget, *position))
            .collect();
        let width = parts.iter().map(|part| part.categories.len()).max().unwrap_or(0);
        let mut categories = vec![CategoryTotals::default(); width];
        for part in &parts {
            for (sum, category) in categories.iter_mut().zip(&part.categories) {
                sum.basis_points += category.basis_points;
                for (bin, people) in category.people_by_percent.iter().enumerate() {
                    sum.people_by_percent[bin] += people;
                }
            }
        }
        CombinedTotals {
            term: Term::FIRST,
            positions: parts.iter().map(|part| part.position).collect(),
            people: parts.iter().map(|part| part.people).sum(),
            updated_at_ms: parts.iter().map(|part| part.updated_at_ms).max().unwrap_or(0),
            categories,
        }
    }
}

impl History {
    fn of(records: &[LogRecord]) -> Self {
        let (mut history, mut fold) = (Self::default(), Fold::default());
        let mut tally = Tally::default();
        history.tallies.push(tally);
        for (offset, record) in (0..).map(Offset).zip(records) {
            let outcome = record.said.as_ref().map_or(Outcome::Dead, |said| fold.take(said));
            match (&record.said, outcome) {
                (Some(said), Outcome::Applied) => {
                    tally.applied += 1;
                    let rows = history.people.entry(said.person).or_default();
                    rows.push(fold.row(said, offset));
                    history.add_totals(&fold, &said.budget, offset);
                }
                (Some(said), Outcome::Duplicate) => {
                    tally.duplicates += 1;
                    history.add_totals(&fold, &said.budget, offset);
                }
                _ => {
                    tally.dead_lettered += 1;
                    history.dead.insert(offset, (record.key.clone(), record.value.clone()));
                }
            }
            history.tallies.push(tally);
            history.fingerprints.push(record_fingerprint(&record.key, &record.value));
        }
        history
    }

    fn add_totals(&mut self, fold: &Fold, budget: &BudgetId, offset: Offset) {
        let totals = BudgetTotals { position: offset.next(), ..fold.count(budget) };
        self.totals.entry(budget.clone()).or_default().push(totals);
    }
}

impl Fold {
    fn take(&mut self, said: &Said) -> Outcome {
        if let Some(shares) = &said.shares {
            let categories = *self.categories.entry(said.budget.clone()).or_insert(shares.len());
            if categories != shares.len() {
                return Outcome::Dead;
            }
        }
        let updated = self.updated_at_ms.entry(said.budget.clone()).or_default();
        *updated = said.accepted_at_ms.max(*updated);
        let ids = self.ids.entry(said.person).or_default();
        if ids.iter().rev().take(REMEMBERED).any(|id| *id == said.id) {
            return Outcome::Duplicate;
        }
        ids.push(said.id);
        self.current.insert(said.person, said.clone());
        Outcome::Applied
    }

    fn row(&self, said: &Said, offset: Offset) -> PersonRow {
        let mut recent = [None; REMEMBERED];
        for (place, id) in recent.iter_mut().zip(self.ids[&said.person].iter().rev()) {
            *place = Some(SubmissionId(uuid::Uuid::from_u128(*id)).fingerprint());
        }
        let basis_points = said.shares.clone().unwrap_or_default();
        PersonRow { person: said.person, budget: said.budget.clone(), offset, basis_points, recent }
    }

    /// Everyone who counts in a budget now, added up from nothing.
    fn count(&self, budget: &BudgetId) -> BudgetTotals {
        let width = self.categories.get(budget).copied().unwrap_or(0);
        let mut totals = BudgetTotals {
            updated_at_ms: self.updated_at_ms[budget],
            categories: vec![CategoryTotals::default(); width],
            ..BudgetTotals::default()
        };
        let said = self.current.values().filter(|said| said.budget == *budget);
        for shares in said.filter_map(|said| said.shares.as_ref()) {
            totals.people += 1;
            for (category, share) in totals.categories.iter_mut().zip(shares) {
                category.basis_points += u64::from(*share);
                category.people_by_percent[usize::from(share / 100)] += 1;
            }
        }
        totals
    }
}

/// The totals as of a position: after the last record below it.
fn newest(after: &[BudgetTotals], at: Position) -> Option<&BudgetTotals> {
    after.iter().rfind(|totals| totals.position <= at)
}

pub fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Checked {
    require(found == expected, || format!("{what}: found {found:?}, expected {expected:?}"))
}
