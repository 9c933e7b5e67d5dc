//! How an export is written: a row for each person, who is only their shares. The same rows make the same bytes.

mod csv;
mod ndjson;
mod pabulib;
mod parquet;

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::manifest::Facts;
use super::output::Output;

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A table: a column a category, percentages with two decimals.
    Csv,
    /// A person's allocation as JSON a line, without the categories that get nothing.
    Ndjson,
    /// Pabulib's, of vote type `cumulative`: each category is a project, and points are basis points.
    Pb,
    /// Apache Parquet: a column of basis points a category.
    Parquet,
}

impl Format {
    /// What a file's name ends with.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Pb => "pb",
            Self::Parquet => "parquet",
        }
    }

    /// The format that a file's name says.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?;
        let all = [Self::Csv, Self::Ndjson, Self::Pb, Self::Parquet];
        all.into_iter().find(|format| format.extension().eq_ignore_ascii_case(extension))
    }
}

/// Takes rows, and writes them in one format.
pub(super) trait Rows: Send {
    /// One person's shares, in the budget's order.
    fn row(&mut self, basis_points: &[u16]) -> io::Result<()>;

    /// There are no more rows; `facts` is what they were.
    fn finish(self: Box<Self>, facts: &Facts) -> io::Result<Output>;
}

/// Begins to write an export of the budget that `facts` is about. What is bulky on the way goes to `dir`.
pub(super) fn begin(
    format: Format,
    output: Output,
    facts: &Facts,
    dir: &Path,
) -> io::Result<Box<dyn Rows>> {
    Ok(match format {
        Format::Csv => Box::new(csv::Csv::begin(output, facts)?),
        Format::Ndjson => Box::new(ndjson::Ndjson::begin(output, facts)),
        Format::Pb => Box::new(pabulib::Pabulib::begin(output, facts, dir)?),
        Format::Parquet => Box::new(parquet::Parquet::begin(output, facts)?),
    })
}

/// A share as a percentage, whose two decimals are exact.
fn percent(basis_points: u16) -> String {
    format!("{}.{:02}", basis_points / 100, basis_points % 100)
}
