//! What there is to be done, and how it is called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{BudgetId, Receipt};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobKind {
    /// Derives everything from the log's first record again, and lets that answer.
    Rebuild {
        /// Compares only, and gives it up then.
        dry_run: bool,
    },
    /// Compares everything that is derived with the log.
    Audit,
    /// Tells the readers' copy everything that is committed.
    WarmCaches,
    /// Writes everyone's current allocation in a budget to a file, without who they are.
    Export {
        /// Which budget.
        budget: BudgetId,
        /// How it is written.
        format: ExportFormat,
        /// Hands it out to everybody, in the place of what was published before.
        publish: bool,
    },
    /// Copies what is committed of the log into its archive.
    Archive,
    /// Appends the record of a dead letter once more, to where it belongs.
    ReplayDeadLetter {
        /// Where its record stands.
        letter: Receipt,
        /// Goes on with what somebody else has begun who is at it no more.
        resume: bool,
    },
    /// Says that there is nothing to do about a dead letter.
    DropDeadLetter {
        /// Where its record stands.
        letter: Receipt,
    },
}

impl JobKind {
    /// Every name there is: for metrics, which show all of them from the start.
    pub const NAMES: [&str; 7] = [
        "rebuild",
        "audit",
        "warm_caches",
        "export",
        "archive",
        "replay_dead_letter",
        "drop_dead_letter",
    ];

    /// Its name, as in JSON and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rebuild { .. } => "rebuild",
            Self::Audit => "audit",
            Self::WarmCaches => "warm_caches",
            Self::Export { .. } => "export",
            Self::Archive => "archive",
            Self::ReplayDeadLetter { .. } => "replay_dead_letter",
            Self::DropDeadLetter { .. } => "drop_dead_letter",
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
            Self::ReplayDeadLetter { letter, .. } | Self::DropDeadLetter { letter } => {
                write!(f, " ({letter})")
            }
            Self::Rebuild { dry_run: false } | Self::Audit | Self::WarmCaches | Self::Archive => {
                Ok(())
            }
        }
    }
}

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// A table: a column a category, percentages with two decimals.
    Csv,
    /// A person's allocation as JSON a line, without the categories that get nothing.
    Ndjson,
    /// Pabulib's, of vote type `cumulative`: each category is a project, and points are basis points.
    Pb,
    /// Apache Parquet: a column of basis points a category.
    Parquet,
}

impl ExportFormat {
    /// All of them.
    pub const ALL: [ExportFormat; 4] = [Self::Csv, Self::Ndjson, Self::Pb, Self::Parquet];

    /// Its name, as in JSON, and what a file's name ends with.
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

/// A text that is no format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be csv, ndjson, pb or parquet")]
pub struct ExportFormatFault;

impl FromStr for ExportFormat {
    type Err = ExportFormatFault;

    fn from_str(text: &str) -> Result<Self, ExportFormatFault> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or(ExportFormatFault)
    }
}
