//! The first pass over a file: checks that all of it can be read, and counts its entries, before anything is sent.

use std::collections::HashSet;

use schemas::Category;
use tokio_util::sync::CancellationToken;

use super::ballot::PersonDigest;
use super::entries::{Entries, ImportFile};
use super::file::{FileFault, FileIdentity, FileReadError};
use super::formats::pabulib::Meta;

/// The content of a file, summed up.
#[derive(Debug)]
pub struct FileScan {
    /// Identity of the file.
    pub identity: FileIdentity,
    /// The file's metadata, if its format has any.
    pub meta: Option<Meta>,
    /// The categories of the file, in the order of its ballots' shares.
    pub categories: Vec<Category>,
    /// Number of valid entries.
    pub ballots: u64,
    /// Number of rejected entries.
    pub rejected: u64,
    /// The counts that the file declares and does not have.
    pub wrong_counts: Vec<FileFault>,
    /// People with more than one valid entry.
    pub people_with_several_entries: HashSet<PersonDigest>,
}

impl FileScan {
    /// Scans a file to its end, or until `stop`.
    ///
    /// # Errors
    /// When the file cannot be read or has another format.
    pub fn new(file: &ImportFile, stop: &CancellationToken) -> Result<Self, FileReadError> {
        let mut entries = Entries::open(file)?;
        let has_unique_people = entries.source.has_unique_people();
        let (mut ballots, mut rejected) = (0, 0);
        let (mut people, mut people_with_several_entries) = (HashSet::new(), HashSet::new());
        while let Some(entry) = entries.next_entry()? {
            if stop.is_cancelled() {
                return Err(FileReadError::Stopped);
            }
            let Ok(named) = entry else {
                rejected += 1;
                continue;
            };
            ballots += 1;
            if !has_unique_people
                && !named.is_repeat
                && let Some(person) = named.ballot.person_digest()
                && !people.insert(person)
            {
                people_with_several_entries.insert(person);
            }
        }
        let source = entries.source;
        Ok(Self {
            identity: source.identity(),
            meta: source.meta().cloned(),
            categories: source.categories().to_vec(),
            ballots,
            rejected,
            wrong_counts: source.wrong_counts(ballots + rejected),
            people_with_several_entries,
        })
    }

    /// The number of entries.
    pub fn entries(&self) -> u64 {
        self.ballots + self.rejected
    }
}
