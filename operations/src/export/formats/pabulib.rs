//! Pabulib's `.pb` (<https://pabulib.org/format>): META, PROJECTS, VOTES. `allocator import` reads the file back
//! with the same totals.
//!
//! META precedes the votes and has their number, so votes are written to a temporary file first.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::Path;

use schemas::BASIS_POINTS_PER_PERSON;
use schemas::export::ExportSummary;

use super::RowWriter;
use crate::export::output_file::OutputFile;

const BUFFER_BYTES: usize = 256 * 1024;

pub(super) struct PabulibWriter {
    output: OutputFile,
    votes: BufWriter<File>,
    ids: Vec<String>,
    voters: u64,
}

impl PabulibWriter {
    pub(super) fn begin(
        output: OutputFile,
        summary: &ExportSummary,
        dir: &Path,
    ) -> io::Result<Self> {
        let votes = BufWriter::with_capacity(BUFFER_BYTES, tempfile::tempfile_in(dir)?);
        let ids = summary.categories.iter().map(|category| category.id.clone()).collect();
        Ok(Self { output, votes, ids, voters: 0 })
    }
}

impl RowWriter for PabulibWriter {
    fn write_row(&mut self, basis_points: &[u16]) -> io::Result<()> {
        // A sequence number, unrelated to the person.
        self.voters += 1;
        let given = || self.ids.iter().zip(basis_points).filter(|(_, share)| **share > 0);
        let ids: Vec<&str> = given().map(|(id, _)| id.as_str()).collect();
        let points: Vec<String> = given().map(|(_, share)| share.to_string()).collect();
        writeln!(self.votes, "{};{};{}", self.voters, ids.join(","), points.join(","))
    }

    fn finish(self: Box<Self>, summary: &ExportSummary) -> io::Result<OutputFile> {
        let Self { mut output, votes, .. } = *self;
        write_header(&mut output, summary)?;
        let mut votes = votes.into_inner().map_err(io::IntoInnerError::into_error)?;
        votes.rewind()?;
        io::copy(&mut BufReader::with_capacity(BUFFER_BYTES, votes), &mut output)?;
        Ok(output)
    }
}

/// Writes META and PROJECTS.
fn write_header(output: &mut OutputFile, summary: &ExportSummary) -> io::Result<()> {
    let mut records = csv::WriterBuilder::new().delimiter(b';').flexible(true).from_writer(output);
    let whole = BASIS_POINTS_PER_PERSON.to_string();
    let positions: Vec<String> = summary.positions.iter().map(ToString::to_string).collect();
    let totals: Vec<String> =
        summary.categories.iter().map(|category| category.basis_points.to_string()).collect();
    let mut meta = vec![
        ("description", summary.name.clone()),
        ("country", String::new()),
        ("unit", summary.budget.clone()),
        ("instance", String::new()),
        ("num_projects", summary.categories.len().to_string()),
        ("num_votes", summary.people.to_string()),
        ("budget", whole.clone()),
        ("vote_type", "cumulative".to_owned()),
        // There is no winner; the result is the average.
        ("rule", "average".to_owned()),
        ("max_sum_points", whole.clone()),
        ("min_sum_points", whole.clone()),
        ("positions", positions.join(",")),
        ("total_points", totals.join(",")),
    ];
    if summary.annulled > 0 {
        meta.push(("num_annulled", summary.annulled.to_string()));
    }
    records.write_record(["META"])?;
    records.write_record(["key", "value"])?;
    for (key, value) in meta {
        records.write_record([key, &value])?;
    }
    records.write_record(["PROJECTS"])?;
    records.write_record(["project_id", "cost", "category", "name"])?;
    for category in &summary.categories {
        // Each category could get everything.
        records.write_record([&category.id, &whole, &category.id, &category.name])?;
    }
    records.write_record(["VOTES"])?;
    records.write_record(["voter_id", "vote", "points"])?;
    records.flush()
}
