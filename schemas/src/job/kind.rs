//! The kinds of jobs and their arguments.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{AnnulmentEffect, AnnulmentId, AnnulmentRequest, BudgetId, RecordAddress};

/// What a job does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobKind {
    /// Derives all totals from the log as a new generation and switches to it.
    Rebuild {
        /// Compares the new generation with the active one, but does not switch.
        dry_run: bool,
    },
    /// Compares all derived data with the log.
    Audit,
    /// Publishes all committed totals to the cache.
    WarmCaches,
    /// Writes everyone's current allocation in a budget to a file, without personal data.
    Export {
        /// The budget.
        budget: BudgetId,
        /// File format.
        format: ExportFormat,
        /// Publishes the export, in place of the one published before.
        publish: bool,
    },
    /// Writes the report of a budget to files: results, people over time, and the verdict of an audit.
    Report {
        /// The budget.
        budget: BudgetId,
    },
    /// Copies the committed part of the log into its archive.
    Archive,
    /// Appends the record of a dead letter again, to the partition of its key.
    ReplayDeadLetter {
        /// Address of the dead letter's record.
        #[serde(rename = "letter")]
        dead_letter: RecordAddress,
        /// Resumes a replay that another process has begun and abandoned.
        resume: bool,
    },
    /// Marks a dead letter as dropped.
    DropDeadLetter {
        /// Address of the dead letter's record.
        #[serde(rename = "letter")]
        dead_letter: RecordAddress,
    },
    /// Annuls people of a budget, or computes what that would change.
    Annul {
        /// Which people, and why.
        annulment: Box<AnnulmentRequest>,
    },
    /// Restores the people of an annulment, or computes what that would change.
    RestoreAnnulment {
        /// The budget.
        budget: BudgetId,
        /// The annulment.
        annulment: AnnulmentId,
        /// Only computes what would change.
        dry_run: bool,
    },
}

impl JobKind {
    /// Names of all kinds, for metrics that show each kind from the start.
    pub const NAMES: [&str; 10] = [
        "rebuild",
        "audit",
        "warm_caches",
        "export",
        "report",
        "archive",
        "replay_dead_letter",
        "drop_dead_letter",
        "annul",
        "restore_annulment",
    ];

    /// Name in JSON and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rebuild { .. } => "rebuild",
            Self::Audit => "audit",
            Self::WarmCaches => "warm_caches",
            Self::Export { .. } => "export",
            Self::Report { .. } => "report",
            Self::Archive => "archive",
            Self::ReplayDeadLetter { .. } => "replay_dead_letter",
            Self::DropDeadLetter { .. } => "drop_dead_letter",
            Self::Annul { .. } => "annul",
            Self::RestoreAnnulment { .. } => "restore_annulment",
        }
    }

    /// Returns the annulment that is carried out or restored; `None` of other kinds, and of a dry run.
    pub fn changed_annulment(&self) -> Option<AnnulmentId> {
        match self {
            Self::Annul { annulment } => (!annulment.dry_run).then_some(annulment.id),
            Self::RestoreAnnulment { annulment, dry_run, .. } => (!dry_run).then_some(*annulment),
            _ => None,
        }
    }

    /// Returns what is kept of a job that has ended for good: no key of a person.
    pub fn without_person_keys(&self) -> Self {
        match self {
            Self::Annul { annulment } => {
                let selection = annulment.selection.without_person_keys();
                let annulment =
                    AnnulmentRequest { selection, ..AnnulmentRequest::clone(annulment) };
                Self::Annul { annulment: Box::new(annulment) }
            }
            others => others.clone(),
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Rebuild { dry_run: true } => f.write_str(" (dry run)"),
            Self::Export { budget, format, publish } => {
                let published = if *publish { ", published" } else { "" };
                write!(f, " ({budget}, {format}{published})")
            }
            Self::Report { budget } => write!(f, " ({budget})"),
            Self::ReplayDeadLetter { dead_letter, .. } | Self::DropDeadLetter { dead_letter } => {
                write!(f, " ({dead_letter})")
            }
            Self::Annul { annulment } => {
                let AnnulmentRequest { budget, selection, dry_run, .. } = &**annulment;
                write!(f, " ({budget}, {selection}{})", dry_run_suffix(*dry_run))
            }
            Self::RestoreAnnulment { budget, annulment, dry_run } => {
                write!(f, " ({budget}, {annulment}{})", dry_run_suffix(*dry_run))
            }
            Self::Rebuild { dry_run: false } | Self::Audit | Self::WarmCaches | Self::Archive => {
                Ok(())
            }
        }
    }
}

/// The checkpoint of a job that annuls or restores people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnulmentCheckpoint {
    /// What the job changes, as computed before its first record.
    pub effect: AnnulmentEffect,
}

fn dry_run_suffix(dry_run: bool) -> &'static str {
    if dry_run { ", dry run" } else { "" }
}

/// File format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// A column for each category, percentages with two decimals.
    Csv,
    /// A JSON object a line for each person, without categories of zero percent.
    Ndjson,
    /// Pabulib, vote type `cumulative`: categories are projects, basis points are points.
    Pb,
    /// Apache Parquet: a column of basis points for each category.
    Parquet,
}

impl ExportFormat {
    /// All formats.
    pub const ALL: [ExportFormat; 4] = [Self::Csv, Self::Ndjson, Self::Pb, Self::Parquet];

    /// Name in JSON, and the extension of a file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Pb => "pb",
            Self::Parquet => "parquet",
        }
    }
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is not an export format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be csv, ndjson, pb or parquet")]
pub struct ExportFormatFault;

impl FromStr for ExportFormat {
    type Err = ExportFormatFault;

    fn from_str(text: &str) -> Result<Self, ExportFormatFault> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or(ExportFormatFault)
    }
}
