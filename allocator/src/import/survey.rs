//! The first reading of a file: what it holds, before anything is sent.

use std::path::Path;

use schemas::{BASIS_POINTS_PER_PERSON, Category};

use super::ballot::Split;
use super::file::{FileIdentity, ReadError, Refusal};
use super::formats::pabulib::{Grouping, Meta};
use super::formats::{Format, Source};

/// How many refusals are kept to be shown.
pub const REFUSALS_SHOWN: usize = 20;

/// What a file holds.
#[derive(Debug)]
pub struct Survey {
    /// Its identity.
    pub identity: FileIdentity,
    /// What it says about itself, if it does.
    pub meta: Option<Meta>,
    /// The categories that it names, in the order of its ballots' shares.
    pub categories: Vec<Category>,
    /// The sum of each category's shares, in basis points, over all good ballots that are counted here.
    pub totals: Vec<u64>,
    /// Entries that are submissions.
    pub ballots: u64,
    /// Entries that are none.
    pub refused: u64,
    /// The first of them.
    pub refusals: Vec<Refusal>,
}

impl Survey {
    /// Reads a file to its end.
    ///
    /// # Errors
    /// When it cannot be read, or is not of the format.
    pub fn of(path: &Path, format: Format, grouping: Grouping) -> Result<Self, ReadError> {
        let mut source = Source::open(path, format, grouping)?;
        let mut totals = vec![0; source.categories().len()];
        let (mut ballots, mut refused, mut refusals) = (0, 0, Vec::new());
        while let Some(entry) = source.next_ballot()? {
            match entry {
                Ok(ballot) => {
                    ballots += 1;
                    if let Split::Counted(allocation) = ballot.split {
                        let shares = allocation.basis_points().iter().copied().map(u64::from);
                        totals.iter_mut().zip(shares).for_each(|(total, share)| *total += share);
                    }
                }
                Err(refusal) => {
                    refused += 1;
                    if refusals.len() < REFUSALS_SHOWN {
                        refusals.push(refusal);
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
            refused,
            refusals,
        })
    }

    /// How many ballots the file says it has, where that is not how many it has.
    pub fn announced_otherwise(&self) -> Option<u64> {
        let announced = self.meta.as_ref()?.get("num_votes")?.parse().ok()?;
        (announced != self.ballots + self.refused).then_some(announced)
    }
}
