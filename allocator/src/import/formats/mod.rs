//! The file formats: Pabulib ballots, tables, and JSON lines.
//!
//! Each format yields [`Ballot`]s one by one, in constant memory except for 16 bytes per Pabulib voter.

mod csv;
mod json_shares;
pub mod ndjson;
pub mod pabulib;
pub mod percent;

use std::fs::{File, Metadata};
use std::io::{self, BufReader};
use std::path::Path;

use ::schemas::Category;

use self::csv::Csv;
use self::ndjson::Ndjson;
use self::pabulib::{Grouping, Meta, Pabulib};
use super::ballot::Ballot;
use super::file::{Entry, FileFault, FileIdentity, FileReadError};

const BUFFER_BYTES: usize = 256 * 1024;

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Pabulib `.pb` file with the vote type `cumulative`
    Pb,
    /// One submission's JSON per line
    Ndjson,
    /// Table with the columns person, optionally submission_id, and one per category
    Csv,
}

impl Format {
    /// Guesses the format from the file extension.
    pub fn from_extension(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "pb" => Some(Self::Pb),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// An open file of submissions.
pub enum Source {
    /// A Pabulib file.
    Pabulib(Box<Pabulib<BufReader<File>>>),
    /// A table.
    Csv(Box<Csv<BufReader<File>>>),
    /// JSON lines.
    Ndjson(Box<Ndjson<BufReader<File>>>),
}

impl Source {
    /// Opens a file. Imports read it twice, so it cannot be a pipe.
    ///
    /// # Errors
    /// When the file cannot be read or its header has another format.
    pub fn open(path: &Path, format: Format, grouping: Grouping) -> Result<Self, FileReadError> {
        // Before the file is opened: opening a pipe waits for a writer, and opening a device may have effects.
        require_regular_file(&std::fs::metadata(path)?)?;
        let file = File::open(path)?;
        require_regular_file(&file.metadata()?)?;
        let reader = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(match format {
            Format::Pb => Self::Pabulib(Box::new(Pabulib::open(reader, grouping)?)),
            Format::Csv => Self::Csv(Box::new(Csv::open(reader)?)),
            Format::Ndjson => Self::Ndjson(Box::new(Ndjson::open(reader))),
        })
    }

    /// Reads the next entry. `None` at the end.
    ///
    /// # Errors
    /// When the rest of the file cannot be read.
    pub fn next_ballot(&mut self) -> Result<Option<Entry<Ballot>>, FileReadError> {
        match self {
            Self::Pabulib(file) => file.next_ballot(),
            Self::Csv(file) => file.next_ballot(),
            Self::Ndjson(file) => file.next_ballot(),
        }
    }

    /// The categories of the file, in the order of its ballots' shares. Empty if the format has none.
    pub fn categories(&self) -> &[Category] {
        match self {
            Self::Pabulib(file) => file.categories(),
            Self::Csv(file) => file.categories(),
            Self::Ndjson(_) => &[],
        }
    }

    /// Whether the format rejects a second entry of a person.
    pub fn has_unique_people(&self) -> bool {
        matches!(self, Self::Pabulib(_))
    }

    /// The counts that the file declares and does not have, of `entries` read to its end.
    pub fn wrong_counts(&self, entries: u64) -> Vec<FileFault> {
        let Self::Pabulib(file) = self else { return Vec::new() };
        let projects = file.meta().wrong_count("num_projects", file.project_count());
        projects.into_iter().chain(file.meta().wrong_count("num_votes", entries)).collect()
    }

    /// The file's metadata, if the format has any.
    pub fn meta(&self) -> Option<&Meta> {
        match self {
            Self::Pabulib(file) => Some(file.meta()),
            Self::Csv(_) | Self::Ndjson(_) => None,
        }
    }

    /// The identity of the content read so far. At the end, the identity of the file.
    pub fn identity(&self) -> FileIdentity {
        match self {
            Self::Pabulib(file) => file.identity(),
            Self::Csv(file) => file.identity(),
            Self::Ndjson(file) => file.identity(),
        }
    }
}

fn require_regular_file(metadata: &Metadata) -> Result<(), FileReadError> {
    if metadata.is_file() {
        return Ok(());
    }
    let detail = "is not a regular file, and an import reads its file twice";
    Err(io::Error::new(io::ErrorKind::Unsupported, detail).into())
}
