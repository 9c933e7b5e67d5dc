//! Export formats: one row per person with only the shares. Equal rows are equal bytes.

mod csv;
mod ndjson;
mod pabulib;
mod parquet;

use std::io;
use std::path::Path;

use schemas::export::ExportSummary;
use schemas::job::ExportFormat;

use super::output_file::OutputFile;

/// Derives the format from a file name's extension.
pub fn format_of_file_name(path: &Path) -> Option<ExportFormat> {
    path.extension()?.to_str()?.to_ascii_lowercase().parse().ok()
}

/// Writes rows in one format.
pub(super) trait RowWriter: Send {
    /// Writes one person's shares, in the order of the budget's categories.
    fn write_row(&mut self, basis_points: &[u16]) -> io::Result<()>;

    /// Completes the file; `summary` describes the rows written.
    fn finish(self: Box<Self>, summary: &ExportSummary) -> io::Result<OutputFile>;
}

/// Begins an export of the budget that `summary` describes. Temporary files go to `dir`.
pub(super) fn begin(
    format: ExportFormat,
    output: OutputFile,
    summary: &ExportSummary,
    dir: &Path,
) -> io::Result<Box<dyn RowWriter>> {
    Ok(match format {
        ExportFormat::Csv => Box::new(csv::CsvWriter::begin(output, summary)?),
        ExportFormat::Ndjson => Box::new(ndjson::NdjsonWriter::begin(output, summary)),
        ExportFormat::Pb => Box::new(pabulib::PabulibWriter::begin(output, summary, dir)?),
        ExportFormat::Parquet => Box::new(parquet::ParquetWriter::begin(output, summary)?),
    })
}

/// Formats a share as a percentage with two exact decimals.
fn percent(basis_points: u16) -> String {
    format!("{}.{:02}", basis_points / 100, basis_points % 100)
}
