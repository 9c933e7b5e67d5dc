//! The formats that are read: Pabulib's ballots, and submissions as a table or as JSON lines. Each gives [`Ballot`]s
//! one by one, in memory that does not grow with the file but for 16 bytes a Pabulib voter.

mod csv;
mod ndjson;
pub mod pabulib;
pub mod percent;

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use ::schemas::Category;

use self::csv::Csv;
use self::ndjson::Ndjson;
use self::pabulib::{Grouping, Meta, Pabulib};
use super::ballot::Ballot;
use super::file::{Entry, FileIdentity, ReadError};

const BUFFER_BYTES: usize = 256 * 1024;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Pabulib's `.pb`, of vote type `cumulative`.
    Pb,
    /// One submission's JSON a line.
    Ndjson,
    /// A table: person, maybe submission_id, a column a category.
    Csv,
}

impl Format {
    /// The format that a file's name says.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "pb" => Some(Self::Pb),
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// A file of submissions, read as far as the next one.
pub enum Source {
    /// Pabulib's.
    Pabulib(Box<Pabulib<BufReader<File>>>),
    /// A table.
    Csv(Box<Csv<BufReader<File>>>),
    /// JSON lines.
    Ndjson(Box<Ndjson<BufReader<File>>>),
}

impl Source {
    /// Opens a file. It is read more than once, so it cannot be a pipe.
    ///
    /// # Errors
    /// When it cannot be read, or its head is not that of the format.
    pub fn open(path: &Path, format: Format, grouping: Grouping) -> Result<Self, ReadError> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            let detail = "is no regular file, and an import reads its file twice";
            return Err(io::Error::new(io::ErrorKind::Unsupported, detail).into());
        }
        let reader = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(match format {
            Format::Pb => Self::Pabulib(Box::new(Pabulib::open(reader, grouping)?)),
            Format::Csv => Self::Csv(Box::new(Csv::open(reader)?)),
            Format::Ndjson => Self::Ndjson(Box::new(Ndjson::open(reader))),
        })
    }

    /// The next submission, or why an entry is none; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read any further.
    pub fn next_ballot(&mut self) -> Result<Option<Entry<Ballot>>, ReadError> {
        match self {
            Self::Pabulib(file) => file.next_ballot(),
            Self::Csv(file) => file.next_ballot(),
            Self::Ndjson(file) => file.next_ballot(),
        }
    }

    /// The categories that the file names, in the order of its ballots' shares; empty where it names none.
    pub fn categories(&self) -> &[Category] {
        match self {
            Self::Pabulib(file) => file.categories(),
            Self::Csv(file) => file.categories(),
            Self::Ndjson(_) => &[],
        }
    }

    /// What the file says about itself, if it does.
    pub fn meta(&self) -> Option<&Meta> {
        match self {
            Self::Pabulib(file) => Some(file.meta()),
            Self::Csv(_) | Self::Ndjson(_) => None,
        }
    }

    /// The identity of what was read so far; the file's, at its end.
    pub fn identity(&self) -> FileIdentity {
        match self {
            Self::Pabulib(file) => file.identity(),
            Self::Csv(file) => file.identity(),
            Self::Ndjson(file) => file.identity(),
        }
    }
}
