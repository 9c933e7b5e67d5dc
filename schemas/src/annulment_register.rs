//! The annulments of a budget, for operators: one document for each budget in the control topic.
//!
//! Says who annulled how many people when, how and why, and what became of the annulment. Names no person. Who is
//! annulled is in the log alone.

use serde::{Deserialize, Serialize};

use crate::annulment_request::digits;
use crate::job::{Job, JobName};
use crate::stored::{self, StoredDocument};
use crate::{
    AnnulmentId, AnnulmentLock, AnnulmentPart, AnnulmentReason, AnnulmentSelection, BallotDigest,
    BudgetId, NetworkDigest, SignalSpan,
};

/// Maximum number of annulments that a budget's document lists, so that it is smaller than a message may be.
pub const MAX_LISTED_ANNULMENTS: usize = 500;

/// One annulment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnulmentEntry {
    /// Identifies the annulment.
    pub id: AnnulmentId,
    /// Name of the administrator.
    pub by: JobName,
    /// When the annulment began, in milliseconds since 1970.
    pub begun_at_ms: u64,
    /// How the people were selected.
    pub selection: SelectionSummary,
    /// Why.
    pub reason: AnnulmentReason,
    /// What became of the annulment.
    pub state: AnnulmentState,
    /// People selected, in the parts that are done.
    pub people: u64,
    /// Of these, people who counted before.
    pub changed: u64,
    /// Number of parts that are done.
    pub parts: u32,
    /// The restoration, once it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restoration>,
}

impl AnnulmentEntry {
    /// Returns whether the annulment or its restoration has not ended, and none of the jobs goes on with it: some of
    /// the people are annulled and others are not, until somebody resumes it.
    ///
    /// For a moment also while a command submits the next part.
    pub fn is_interrupted(&self, jobs: &[Job]) -> bool {
        let has_ended = match self.state {
            AnnulmentState::Running | AnnulmentState::Restoring => false,
            AnnulmentState::Done | AnnulmentState::Cancelled | AnnulmentState::Restored => true,
        };
        let goes_on = |job: &Job| !job.is_ended() && job.kind.changed_annulment() == Some(self.id);
        !has_ended && !jobs.iter().any(goes_on)
    }
}

/// The restoration of an annulment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoration {
    /// Name of the administrator.
    pub by: JobName,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// People restored: without those whom another annulment has annulled since.
    pub people: u64,
}

/// How the people of an annulment were selected.
///
/// A type of its own beside [`AnnulmentSelection`], whose keys of people must not get into the control topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum SelectionSummary {
    /// By their keys, which are not repeated here.
    Persons,
    /// By network and time span.
    Network {
        /// The network.
        #[serde(with = "digits")]
        network: NetworkDigest,
        /// The time span.
        #[serde(flatten)]
        span: SignalSpan,
    },
    /// By allocation and time span.
    Ballot {
        /// The allocation.
        #[serde(with = "digits")]
        ballot: BallotDigest,
        /// The time span.
        #[serde(flatten)]
        span: SignalSpan,
    },
}

impl From<&AnnulmentSelection> for SelectionSummary {
    fn from(selection: &AnnulmentSelection) -> Self {
        match selection {
            AnnulmentSelection::Persons { .. } | AnnulmentSelection::ErasedPersons { .. } => {
                Self::Persons
            }
            AnnulmentSelection::Network { network, span } => {
                Self::Network { network: *network, span: *span }
            }
            AnnulmentSelection::Ballot { ballot, span } => {
                Self::Ballot { ballot: *ballot, span: *span }
            }
        }
    }
}

/// What became of an annulment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnulmentState {
    /// People are being annulled, or the attempt was interrupted and may be resumed.
    Running,
    /// All people are annulled.
    Done,
    /// The annulment was cancelled before all people were annulled.
    Cancelled,
    /// People are being restored.
    Restoring,
    /// All people are restored, except those whom another annulment has annulled since.
    Restored,
}

impl AnnulmentState {
    /// Name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Restoring => "restoring",
            Self::Restored => "restored",
        }
    }
}

/// A change of a budget's annulments. Each has no effect if it is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnnulmentChange {
    /// A job takes the lock. Nothing changes while another one holds it, unless that is the one to replace.
    Lock {
        /// The new holder.
        holder: AnnulmentLock,
        /// A holder that no longer works.
        replaces: Option<AnnulmentLock>,
    },
    /// The holder gives the lock back.
    Unlock(AnnulmentLock),
    /// The first part begins, or a later one, or a cancelled annulment is resumed.
    Begin(AnnulmentEntry),
    /// A part is done.
    CompletePart {
        /// The annulment.
        id: AnnulmentId,
        /// The part.
        part: AnnulmentPart,
        /// People of the part.
        people: u64,
        /// Of these, people who counted before.
        changed: u64,
    },
    /// No further people are annulled.
    Cancel(AnnulmentId),
    /// The restoration begins: from here on, no part of the annulment may begin.
    BeginRestoration(AnnulmentId),
    /// All people are restored.
    CompleteRestoration(AnnulmentId, Restoration),
}

/// The annulments of one budget.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnulmentRegister {
    entries: Vec<AnnulmentEntry>,
    lock: Option<AnnulmentLock>,
}

/// A budget has too many annulments that have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{MAX_LISTED_ANNULMENTS} annulments of the budget are running: resume, cancel or restore some first"
)]
pub struct RegisterFull;

impl AnnulmentRegister {
    /// The annulments, oldest first.
    pub fn entries(&self) -> &[AnnulmentEntry] {
        &self.entries
    }

    /// Which job may annul or restore people of the budget; `None` if no job does.
    pub fn lock(&self) -> Option<AnnulmentLock> {
        self.lock
    }

    /// Returns an annulment, unless it is too old to be listed.
    pub fn get(&self, id: AnnulmentId) -> Option<&AnnulmentEntry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    /// Applies a change. Returns whether something changed.
    ///
    /// # Errors
    /// When another annulment begins, and none of those listed has ended.
    pub fn apply(&mut self, change: &AnnulmentChange) -> Result<bool, RegisterFull> {
        use AnnulmentState::{Cancelled, Done, Restored, Restoring, Running};
        let id = match change {
            AnnulmentChange::Lock { holder, replaces } => {
                let is_free = self.lock.is_none() || self.lock == *replaces;
                return Ok(is_free && self.lock.replace(*holder) != Some(*holder));
            }
            AnnulmentChange::Unlock(holder) => {
                return Ok(self.lock.take_if(|current| current == holder).is_some());
            }
            AnnulmentChange::Begin(entry) => {
                if self.get(entry.id).is_none() {
                    self.make_room()?;
                    self.entries.push(entry.clone());
                    return Ok(true);
                }
                entry.id
            }
            AnnulmentChange::CompletePart { id, .. }
            | AnnulmentChange::Cancel(id)
            | AnnulmentChange::BeginRestoration(id)
            | AnnulmentChange::CompleteRestoration(id, _) => *id,
        };
        // An annulment that is no longer listed may still be restored.
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) else {
            return Ok(false);
        };
        match (change, entry.state) {
            (AnnulmentChange::Begin(_), Cancelled) => entry.state = Running,
            (AnnulmentChange::CompletePart { part, people, changed, .. }, Running)
                if part.number == entry.parts =>
            {
                entry.people = entry.people.saturating_add(*people);
                entry.changed = entry.changed.saturating_add(*changed);
                entry.parts = entry.parts.saturating_add(1);
                if part.is_last {
                    entry.state = Done;
                }
            }
            (AnnulmentChange::Cancel(_), Running) => entry.state = Cancelled,
            (AnnulmentChange::BeginRestoration(_), Running | Done | Cancelled) => {
                entry.state = Restoring;
            }
            (AnnulmentChange::CompleteRestoration(_, restoration), Restoring) => {
                entry.state = Restored;
                entry.restored = Some(restoration.clone());
            }
            (
                AnnulmentChange::Lock { .. }
                | AnnulmentChange::Unlock(_)
                | AnnulmentChange::Begin(_)
                | AnnulmentChange::CompletePart { .. }
                | AnnulmentChange::Cancel(_)
                | AnnulmentChange::BeginRestoration(_)
                | AnnulmentChange::CompleteRestoration(..),
                Running | Done | Cancelled | Restoring | Restored,
            ) => return Ok(false),
        }
        Ok(true)
    }

    /// Drops the oldest annulment that has ended, if the document is full.
    fn make_room(&mut self) -> Result<(), RegisterFull> {
        use AnnulmentState::{Cancelled, Done, Restored};
        if self.entries.len() < MAX_LISTED_ANNULMENTS {
            return Ok(());
        }
        let has_ended = |entry: &AnnulmentEntry| matches!(entry.state, Done | Cancelled | Restored);
        let oldest = self.entries.iter().position(has_ended).ok_or(RegisterFull)?;
        self.entries.remove(oldest);
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    budget: BudgetId,
    annulments: Vec<AnnulmentEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock: Option<AnnulmentLock>,
}

/// The annulments of one budget, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredAnnulments {
    /// This release understands the whole document.
    Understood(AnnulmentRegister),
    /// A newer release wrote more than this one understands. Shown, but not changed.
    PartlyUnderstood(AnnulmentRegister),
    /// Damaged, or usable by a newer release only.
    Unreadable,
}

impl Default for StoredAnnulments {
    /// Returns what is stored before the first annulment.
    fn default() -> Self {
        Self::Understood(AnnulmentRegister::default())
    }
}

impl StoredAnnulments {
    /// Parses the document of a budget.
    pub fn parse(budget: &BudgetId, json: &[u8]) -> Self {
        match stored::read::<Document>(json, &[]) {
            Ok(StoredDocument { value, .. }) if value.budget != *budget => Self::Unreadable,
            Ok(StoredDocument { value, not_understood }) => {
                let Document { annulments: entries, lock, .. } = value;
                let register = AnnulmentRegister { entries, lock };
                if not_understood.is_empty() {
                    Self::Understood(register)
                } else {
                    Self::PartlyUnderstood(register)
                }
            }
            Err(_) => Self::Unreadable,
        }
    }

    /// Serializes the document of a budget.
    pub fn document(budget: &BudgetId, register: &AnnulmentRegister) -> String {
        let AnnulmentRegister { entries, lock } = register.clone();
        let document = Document { budget: budget.clone(), annulments: entries, lock };
        // Only numbers, strings and lists under string keys: serialization cannot fail.
        serde_json::to_string(&document).unwrap_or_default()
    }

    /// Returns the annulments; `None` if the document is unreadable.
    pub fn register(&self) -> Option<&AnnulmentRegister> {
        match self {
            Self::Understood(register) | Self::PartlyUnderstood(register) => Some(register),
            Self::Unreadable => None,
        }
    }
}

#[cfg(test)]
mod tests;
