//! The first pass over a file: validates every entry and adds the shares up, before anything is sent.

use std::path::Path;

use schemas::{BASIS_POINTS_PER_PERSON, Category};

use super::ballot::BallotAllocation;
use super::file::{FileIdentity, FileReadError, RejectedEntry};
use super::formats::pabulib::{Grouping, Meta};
use super::formats::{Format, Source};

/// Maximum number of rejected entries kept for printing.
pub const MAX_PRINTED_REJECTED: usize = 20;

/// The content of a file, summed up.
#[derive(Debug)]
pub struct FileScan {
    /// Identity of the file.
    pub identity: FileIdentity,
    /// The file's metadata, if its format has any.
    pub meta: Option<Meta>,
    /// The categories of the file, in the order of its ballots' shares.
    pub categories: Vec<Category>,
    /// Each category's total over all valid ballots with a computed allocation, in basis points.
    pub totals: Vec<u64>,
    /// Number of valid entries.
    pub ballots: u64,
    /// Number of rejected entries.
    pub rejected: u64,
    /// The first rejected entries, at most [`MAX_PRINTED_REJECTED`].
    pub first_rejected: Vec<RejectedEntry>,
}

impl FileScan {
    /// Scans a file to its end.
    ///
    /// # Errors
    /// When the file cannot be read or has another format.
    pub fn new(path: &Path, format: Format, grouping: Grouping) -> Result<Self, FileReadError> {
        let mut source = Source::open(path, format, grouping)?;
        let mut totals = vec![0; source.categories().len()];
        let (mut ballots, mut rejected, mut first_rejected) = (0, 0, Vec::new());
        while let Some(entry) = source.next_ballot()? {
            match entry {
                Ok(ballot) => {
                    ballots += 1;
                    if let BallotAllocation::Computed(allocation) = ballot.allocation {
                        let shares = allocation.basis_points().iter().copied().map(u64::from);
                        totals.iter_mut().zip(shares).for_each(|(total, share)| *total += share);
                    }
                }
                Err(entry) => {
                    rejected += 1;
                    if first_rejected.len() < MAX_PRINTED_REJECTED {
                        first_rejected.push(entry);
                    }
                }
            }
        }
        debug_assert!(
            totals.is_empty() || totals.iter().sum::<u64>() == ballots * BASIS_POINTS_PER_PERSON
        );
        Ok(Self {
            identity: source.identity(),
            meta: source.meta().cloned(),
            categories: source.categories().to_vec(),
            totals,
            ballots,
            rejected,
            first_rejected,
        })
    }

    /// The number of votes that the file declares, if it differs from the number of entries.
    pub fn wrong_declared_votes(&self) -> Option<u64> {
        let declared = self.meta.as_ref()?.get("num_votes")?.parse().ok()?;
        (declared != self.ballots + self.rejected).then_some(declared)
    }
}
