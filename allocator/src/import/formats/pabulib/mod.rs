//! Pabulib `.pb` files: ballots of participatory budgets.
//!
//! A file has three sections of `;`-separated records: META, PROJECTS, VOTES. The format is described in Stolicki,
//! Szufa, Talmon: "Pabulib: A Participatory Budgeting Library", arXiv 2012.06539.

mod meta;
mod projects;
#[cfg(test)]
mod tests;
mod votes;

use std::io::BufRead;

use schemas::Category;

use crate::import::ballot::Ballot;
use crate::import::file::{
    Entry, FileFault, FileIdentity, FileReadError, FileRecord, FileRecords, LineNumber, Quoting,
    quoted,
};

pub use meta::Meta;
pub use projects::Grouping;
use projects::Projects;
use votes::Votes;

/// An open `.pb` file.
pub struct Pabulib<R> {
    records: FileRecords<R>,
    meta: Meta,
    projects: Projects,
    votes: Votes,
}

impl<R: BufRead> Pabulib<R> {
    /// Opens a file and parses META, PROJECTS and the header of VOTES.
    ///
    /// # Errors
    /// When it is not a `.pb` file of cumulative votes, or its projects do not make a budget.
    pub fn open(reader: R, grouping: Grouping) -> Result<Self, FileReadError> {
        let mut records = FileRecords::new(reader, b';', Quoting::Lenient);
        let meta = Meta::parse(&mut records)?;
        let projects = Projects::parse(&mut records, grouping)?;
        let votes = Votes::parse_header(&mut records, &meta)?;
        Ok(Self { records, meta, projects, votes })
    }

    /// Reads the next ballot. `None` at the end.
    ///
    /// # Errors
    /// When the rest of the file cannot be read.
    pub fn next_ballot(&mut self) -> Result<Option<Entry<Ballot>>, FileReadError> {
        let Some(row) = self.records.next_row()? else { return Ok(None) };
        let record = match row {
            Ok(record) => record,
            Err(rejected) => return Ok(Some(Err(rejected))),
        };
        // Of another file that was appended: its ballots are of another election.
        if let Some(section) = section_name(&record) {
            let detail =
                format!("expected the end of the file after VOTES, found section {section}");
            return Err(FileFault::new(record.at.number, detail).into());
        }
        Ok(Some(self.votes.parse_ballot(record, &self.projects)))
    }

    /// The file's metadata.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The number of projects.
    pub fn project_count(&self) -> u64 {
        self.projects.count()
    }

    /// The budget's categories, in ascending order of id.
    pub fn categories(&self) -> &[Category] {
        self.projects.categories()
    }

    /// The identity of the content read so far. At the end, the identity of the file.
    pub fn identity(&self) -> FileIdentity {
        self.records.identity()
    }
}

/// The columns of a section, named by its first record.
struct Columns {
    at: LineNumber,
    names: Vec<String>,
}

impl Columns {
    fn parse<R: BufRead>(
        records: &mut FileRecords<R>,
        section: &str,
    ) -> Result<Self, FileReadError> {
        match records.next_record()? {
            Some(record) => {
                Ok(Self { at: record.at, names: record.fields().map(str::to_lowercase).collect() })
            }
            None => Err(missing_section(records, section)),
        }
    }

    fn optional(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|column| column == name)
    }

    fn required(&self, name: &str, section: &str) -> Result<usize, FileFault> {
        self.optional(name).ok_or_else(|| {
            let found = quoted(&self.names.join(", "));
            FileFault::new(
                self.at.number,
                format!("{section} has no column `{name}`; its columns are: {found}"),
            )
        })
    }

    /// Checks that a record has one field per column.
    fn check_field_count(&self, record: &FileRecord<'_>) -> Result<(), String> {
        let (found, expected) = (record.len(), self.names.len());
        if found == expected {
            return Ok(());
        }
        Err(format!("has {found} fields, but the section has {expected} columns"))
    }
}

/// The section that a record starts, if it is a section header.
fn section_name(record: &FileRecord<'_>) -> Option<&'static str> {
    let name = record.field(0)?;
    ["META", "PROJECTS", "VOTES"]
        .into_iter()
        .find(|section| record.len() == 1 && name.eq_ignore_ascii_case(section))
}

fn missing_section<R: BufRead>(records: &FileRecords<R>, section: &str) -> FileReadError {
    let detail = format!("the file ends before its section {section}");
    FileFault::new(records.line(), detail).into()
}
