//! The summary of a budget's signals for operators: a fold in bounded memory, which does not depend on the order of the
//! signals.
//!
//! A *new person* is one without an earlier signal in the time that is read, which begins a day before the earliest
//! hour that is compared. Where a bound is hit, numbers are too low, and [`Truncation`] says which.

mod groups;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use schemas::{
    BallotDigest, BudgetId, IdentityLevel, NetworkDigest, PersonKey, Signal, SignalAction,
};
use storage::log::ReadError;
use storage::signals::{SignalQuery, SignalReader};

pub use groups::GroupSummary;
use groups::Groups;

const HOUR_MS: u64 = 3_600_000;
/// Hours between an hour and the one that it is compared with.
const DAY_HOURS: u64 = 24;
/// Hours that are read before the earliest hour that is compared.
const LOOK_BACK_HOURS: u64 = 24;
/// Maximum number of hours of a summary: all that is read is kept still.
pub const MAX_HOURS: u32 = 120;
/// Hours of a summary that nobody has chosen.
pub const DEFAULT_HOURS: u32 = 24;
/// Networks and ballots that a summary lists.
pub const MAX_LISTED: usize = 20;

/// Bounds of a fold's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SummaryBounds {
    /// People that are told apart; about 60 bytes each.
    pub people: usize,
    /// Members of all networks, and of all ballots, that are told apart: people, networks, ballots and agents. At most
    /// about 120 bytes each.
    pub members: usize,
}

impl Default for SummaryBounds {
    /// About 150 MB.
    fn default() -> Self {
        Self { people: 1_000_000, members: 400_000 }
    }
}

/// The time that a summary is about: so many whole hours before an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SummaryWindow {
    until_ms: u64,
    hours: u32,
}

impl SummaryWindow {
    /// Creates a window; `None` unless it has 1 to [`MAX_HOURS`] hours.
    pub fn new(until_ms: u64, hours: u32) -> Option<Self> {
        (1..=MAX_HOURS).contains(&hours).then_some(Self { until_ms, hours })
    }

    /// Returns the times that the summary is about, in milliseconds since 1970.
    pub fn shown_ms(self) -> Range<u64> {
        self.hours_before_end(self.hours.into())..self.until_ms
    }

    /// Returns the times of the signals that the summary needs.
    pub fn read_ms(self) -> Range<u64> {
        let hours = u64::from(self.hours) + DAY_HOURS + LOOK_BACK_HOURS;
        self.hours_before_end(hours)..self.until_ms
    }

    fn hours_before_end(self, hours: u64) -> u64 {
        self.until_ms.saturating_sub(hours * HOUR_MS)
    }
}

/// The new people of one hour, and of the same hour a day before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewPeople {
    /// Start of the hour, in milliseconds since 1970.
    pub start_ms: u64,
    /// New people of the hour.
    pub people: u64,
    /// New people of the same hour a day before.
    pub people_day_before: u64,
}

/// People and submissions of one identity level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelSummary {
    /// The level.
    pub level: IdentityLevel,
    /// People with a submission of the level.
    pub people: u64,
    /// Submissions and withdrawals.
    pub submissions: u64,
}

/// Which numbers are too low because a bound was hit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Truncation {
    /// Those of people: new, in all, and by identity level.
    pub people: bool,
    /// Those of networks; small networks may be missing.
    pub networks: bool,
    /// Those of ballots; rare ballots may be missing.
    pub ballots: bool,
}

/// What the signals of a budget show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalSummary {
    /// The times that the summary is about, in milliseconds since 1970.
    pub shown_ms: Range<u64>,
    /// The times of the signals that were read.
    pub read_ms: Range<u64>,
    /// People with a submission or withdrawal.
    pub people: u64,
    /// Those of them with a submission or withdrawal from a known network.
    pub people_with_network: u64,
    /// Submissions and withdrawals.
    pub submissions: u64,
    /// Withdrawals.
    pub withdrawals: u64,
    /// Submissions and withdrawals from a network that is not known.
    pub without_network: u64,
    /// New people by hour, earliest first.
    pub new_people: Vec<NewPeople>,
    /// The networks of several people with the most people, at most [`MAX_LISTED`]. Their `others` are ballots.
    pub networks: Vec<GroupSummary<NetworkDigest>>,
    /// The ballots of several people with the most people, at most [`MAX_LISTED`]. Their `others` are networks.
    pub ballots: Vec<GroupSummary<BallotDigest>>,
    /// By identity level, only levels that occur.
    pub levels: Vec<LevelSummary>,
    /// Which numbers are too low.
    pub truncated: Truncation,
}

/// What is known of a person.
#[derive(Debug, Clone, Copy)]
struct Seen {
    first_ms: u64,
    last_ms: u64,
    /// A bit for each identity level of the time that is shown.
    levels: u8,
    /// Whether a network of the time that is shown is known.
    has_network: bool,
}

/// Folds the signals of one budget, in any order.
#[derive(Debug)]
pub struct SummaryFold {
    window: SummaryWindow,
    bounds: SummaryBounds,
    people: HashMap<PersonKey, Seen>,
    networks: Groups<NetworkDigest>,
    ballots: Groups<BallotDigest>,
    submissions: u64,
    withdrawals: u64,
    without_network: u64,
    submissions_by_level: [u64; IdentityLevel::ALL.len()],
    truncated_people: bool,
}

impl SummaryFold {
    /// Creates an empty fold.
    pub fn new(window: SummaryWindow, bounds: SummaryBounds) -> Self {
        Self {
            window,
            bounds,
            people: HashMap::new(),
            networks: Groups::new(bounds.members),
            ballots: Groups::new(bounds.members),
            submissions: 0,
            withdrawals: 0,
            without_network: 0,
            submissions_by_level: Default::default(),
            truncated_people: false,
        }
    }

    /// Returns how many people are told apart so far.
    pub fn known_people(&self) -> usize {
        self.people.len()
    }

    /// Returns how many members of networks and ballots the fold holds, each group with its overhead.
    pub fn known_members(&self) -> usize {
        self.networks.members() + self.ballots.members()
    }

    /// Adds a signal of the budget. One outside of the window changes nothing.
    pub fn add(&mut self, signal: &Signal) {
        let at_ms = signal.accepted_at_ms;
        if !self.window.read_ms().contains(&at_ms) {
            return;
        }
        let is_shown = self.window.shown_ms().contains(&at_ms);
        let (level, network) = (signal.origin.identity, signal.origin.network);
        let levels = if is_shown { bit_of(level) } else { 0 };
        let has_network = is_shown && network.is_some();
        let seen = Seen { first_ms: at_ms, last_ms: at_ms, levels, has_network };
        self.add_person(signal.person, seen);
        if !is_shown {
            return;
        }
        self.submissions += 1;
        for (counted, submissions) in IdentityLevel::ALL.iter().zip(&mut self.submissions_by_level)
        {
            *submissions += u64::from(*counted == level);
        }
        let ballot = match signal.action {
            SignalAction::Allocate(ballot) => Some(ballot),
            SignalAction::Withdraw => None,
        };
        self.withdrawals += u64::from(ballot.is_none());
        self.without_network += u64::from(network.is_none());
        if let Some(network) = network {
            self.networks.add(network, signal, ballot.map(|ballot| ballot.0));
        }
        if let Some(ballot) = ballot {
            self.ballots.add(ballot, signal, network.map(|network| network.0));
        }
    }

    fn add_person(&mut self, person: PersonKey, now: Seen) {
        let is_full = self.people.len() >= self.bounds.people;
        match self.people.entry(person) {
            Entry::Occupied(mut entry) => {
                let seen = entry.get_mut();
                seen.first_ms = seen.first_ms.min(now.first_ms);
                seen.last_ms = seen.last_ms.max(now.last_ms);
                seen.levels |= now.levels;
                seen.has_network |= now.has_network;
            }
            Entry::Vacant(_) if is_full => self.truncated_people = true,
            Entry::Vacant(entry) => {
                entry.insert(now);
            }
        }
    }

    /// Returns the summary of all signals that were added.
    pub fn finish(self) -> SignalSummary {
        let shown_ms = self.window.shown_ms();
        let is_shown = |seen: &&Seen| seen.last_ms >= shown_ms.start;
        let people_of = |level: IdentityLevel| {
            self.people.values().filter(|seen| seen.levels & bit_of(level) != 0).count() as u64
        };
        let levels = IdentityLevel::ALL
            .into_iter()
            .zip(self.submissions_by_level)
            .filter(|(_, submissions)| *submissions > 0)
            .map(|(level, submissions)| LevelSummary {
                level,
                people: people_of(level),
                submissions,
            })
            .collect();
        SignalSummary {
            people: self.people.values().filter(is_shown).count() as u64,
            people_with_network: self.people.values().filter(|seen| seen.has_network).count()
                as u64,
            new_people: self.new_people(),
            levels,
            submissions: self.submissions,
            withdrawals: self.withdrawals,
            without_network: self.without_network,
            truncated: Truncation {
                people: self.truncated_people,
                networks: self.networks.is_truncated(),
                ballots: self.ballots.is_truncated(),
            },
            networks: self.networks.largest(MAX_LISTED),
            ballots: self.ballots.largest(MAX_LISTED),
            read_ms: self.window.read_ms(),
            shown_ms,
        }
    }

    fn new_people(&self) -> Vec<NewPeople> {
        let SummaryWindow { until_ms, hours } = self.window;
        // By hours before the end.
        let mut by_age: HashMap<u64, u64> = HashMap::new();
        for seen in self.people.values() {
            let age_ms = until_ms.saturating_sub(seen.first_ms).saturating_sub(1);
            *by_age.entry(age_ms / HOUR_MS).or_default() += 1;
        }
        let people = |age: u64| by_age.get(&age).copied().unwrap_or_default();
        let row = |age: u64| NewPeople {
            start_ms: self.window.hours_before_end(age + 1),
            people: people(age),
            people_day_before: people(age + DAY_HOURS),
        };
        (0..u64::from(hours)).rev().map(row).collect()
    }
}

fn bit_of(level: IdentityLevel) -> u8 {
    let index = IdentityLevel::ALL.iter().position(|other| *other == level).unwrap_or_default();
    1 << index
}

/// Reads and folds the signals of a budget. `progress` is called with the records that were read and are to be read.
///
/// Dropping the future ends the reading.
///
/// # Errors
/// When the signals cannot be read.
pub async fn summarize(
    signals: &dyn SignalReader,
    budget: &BudgetId,
    window: SummaryWindow,
    progress: impl Fn(u64, u64),
) -> Result<SignalSummary, ReadError> {
    let mut fold = SummaryFold::new(window, SummaryBounds::default());
    let query = SignalQuery { budget: Some(budget.clone()), accepted_ms: window.read_ms() };
    let mut batches = signals.read(query);
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        batch.signals.iter().for_each(|signal| fold.add(signal));
        progress(batch.done, batch.total);
    }
    Ok(fold.finish())
}
