//! Pabulib's `.pb` files: ballots of participatory budgets (Stolicki, Szufa, Talmon: "Pabulib: A Participatory
//! Budgeting Library", arXiv 2012.06539). Three sections of `;`-separated records: META, PROJECTS, VOTES.

mod meta;
mod projects;
#[cfg(test)]
mod tests;
mod votes;

use std::io::BufRead;

use schemas::Category;

use crate::import::ballot::Ballot;
use crate::import::file::{Entry, FileFault, FileIdentity, ReadError, Record, Records, shown};

pub use meta::Meta;
pub use projects::Grouping;
use projects::Projects;
use votes::Votes;

/// A `.pb` file, read as far as the next vote.
pub struct Pabulib<R> {
    records: Records<R>,
    meta: Meta,
    projects: Projects,
    votes: Votes,
}

impl<R: BufRead> Pabulib<R> {
    /// Reads META and PROJECTS, and the head of VOTES.
    ///
    /// # Errors
    /// When it is not a `.pb` file of cumulative votes whose projects make a budget.
    pub fn open(reader: R, grouping: Grouping) -> Result<Self, ReadError> {
        let mut records = Records::new(reader, b';');
        let meta = Meta::read(&mut records)?;
        let projects = Projects::read(&mut records, grouping)?;
        let votes = Votes::read_head(&mut records, &meta)?;
        Ok(Self { records, meta, projects, votes })
    }

    /// The next ballot; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read any further.
    pub fn next_ballot(&mut self) -> Result<Option<Entry<Ballot>>, ReadError> {
        let Some(record) = self.records.next_record()? else { return Ok(None) };
        Ok(Some(self.votes.ballot(record, &self.projects)))
    }

    /// What the file says about itself.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The budget's categories, in ascending order of id.
    pub fn categories(&self) -> &[Category] {
        self.projects.categories()
    }

    /// The identity of what was read so far; the file's, at its end.
    pub fn identity(&self) -> FileIdentity {
        self.records.identity()
    }
}

/// Where a section's columns are, by the names in its first record.
struct Columns {
    line: u64,
    names: Vec<String>,
}

impl Columns {
    fn read<R: BufRead>(records: &mut Records<R>, section: &str) -> Result<Self, ReadError> {
        match records.next_record()? {
            Some(record) => Ok(Self {
                line: record.line,
                names: record.fields().map(str::to_lowercase).collect(),
            }),
            None => Err(ended_early(records, section)),
        }
    }

    fn optional(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|column| column == name)
    }

    fn required(&self, name: &str, section: &str) -> Result<usize, FileFault> {
        self.optional(name).ok_or_else(|| {
            let found = shown(&self.names.join(", "));
            FileFault::new(
                self.line,
                format!("{section} has no column `{name}`; its columns are: {found}"),
            )
        })
    }

    /// Whether a record has a field for each column, and no more.
    fn fit(&self, record: &Record<'_>) -> Result<(), String> {
        let (found, expected) = (record.len(), self.names.len());
        if found == expected {
            return Ok(());
        }
        Err(format!("has {found} fields, where the section has {expected} columns"))
    }
}

/// The name of the section that a record begins.
fn section_name(record: &Record<'_>) -> Option<&'static str> {
    let name = record.field(0)?;
    ["META", "PROJECTS", "VOTES"]
        .into_iter()
        .find(|section| record.len() == 1 && name.eq_ignore_ascii_case(section))
}

fn ended_early<R: BufRead>(records: &Records<R>, section: &str) -> ReadError {
    let detail = format!("the file ends here, before its section {section}");
    FileFault::new(records.line(), detail).into()
}
