//! CSV: a header of category ids, then one row of percentages per person.

use std::io::{self, Write};

use schemas::export::ExportSummary;

use super::{RowWriter, percent};
use crate::export::output_file::OutputFile;

pub(super) struct CsvWriter(OutputFile);

impl CsvWriter {
    pub(super) fn begin(mut output: OutputFile, summary: &ExportSummary) -> io::Result<Self> {
        // Ids are slugs, which need no quotes.
        let ids = summary.categories.iter().map(|category| category.id.as_str());
        writeln!(output, "{}", ids.collect::<Vec<_>>().join(","))?;
        Ok(Self(output))
    }
}

impl RowWriter for CsvWriter {
    fn write_row(&mut self, basis_points: &[u16]) -> io::Result<()> {
        let shares: Vec<String> = basis_points.iter().copied().map(percent).collect();
        writeln!(self.0, "{}", shares.join(","))
    }

    fn finish(self: Box<Self>, _summary: &ExportSummary) -> io::Result<OutputFile> {
        Ok(self.0)
    }
}
