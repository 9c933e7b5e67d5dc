//! NDJSON: one submission body without a person per line.

use std::io::{self, Write};

use schemas::export::ExportSummary;

use super::{RowWriter, percent};
use crate::export::output_file::OutputFile;

pub(super) struct NdjsonWriter {
    output: OutputFile,
    ids: Vec<String>,
}

impl NdjsonWriter {
    pub(super) fn begin(output: OutputFile, summary: &ExportSummary) -> Self {
        let ids = summary.categories.iter().map(|category| category.id.clone()).collect();
        Self { output, ids }
    }
}

impl RowWriter for NdjsonWriter {
    fn write_row(&mut self, basis_points: &[u16]) -> io::Result<()> {
        let given = self.ids.iter().zip(basis_points).filter(|(_, share)| **share > 0);
        // Ids are slugs, which need no escapes.
        let given: Vec<String> =
            given.map(|(id, share)| format!("\"{id}\":{}", percent(*share))).collect();
        writeln!(self.output, "{{\"allocation\":{{{}}}}}", given.join(","))
    }

    fn finish(self: Box<Self>, _summary: &ExportSummary) -> io::Result<OutputFile> {
        Ok(self.output)
    }
}
