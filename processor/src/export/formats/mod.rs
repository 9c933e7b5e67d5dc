//! How an export is written: a row for each person, who is only their shares. The same rows make the same bytes.

mod csv;
mod ndjson;
mod pabulib;
mod parquet;

use std::io;
use std::path::Path;

use schemas::export::Facts;
use schemas::job::ExportFormat;

use super::output::Output;

/// The format that a file's name says.
pub(super) fn named(path: &Path) -> Option<ExportFormat> {
    path.extension()?.to_str()?.to_ascii_lowercase().parse().ok()
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
    format: ExportFormat,
    output: Output,
    facts: &Facts,
    dir: &Path,
) -> io::Result<Box<dyn Rows>> {
    Ok(match format {
        ExportFormat::Csv => Box::new(csv::Csv::begin(output, facts)?),
        ExportFormat::Ndjson => Box::new(ndjson::Ndjson::begin(output, facts)),
        ExportFormat::Pb => Box::new(pabulib::Pabulib::begin(output, facts, dir)?),
        ExportFormat::Parquet => Box::new(parquet::Parquet::begin(output, facts)?),
    })
}

/// A share as a percentage, whose two decimals are exact.
fn percent(basis_points: u16) -> String {
    format!("{}.{:02}", basis_points / 100, basis_points % 100)
}
