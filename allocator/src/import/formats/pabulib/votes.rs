//! The section VOTES: one ballot per line.

use std::collections::HashSet;
use std::io::BufRead;

use schemas::{Allocation, PersonId};
use sha2::{Digest, Sha256};

use crate::import::apportion::apportion;
use crate::import::ballot::{Ballot, BallotAllocation, IdSource};
use crate::import::file::{Entry, FileReadError, FileRecord, FileRecords, RejectedEntry, quoted};

use super::projects::Projects;
use super::{Columns, Meta};

/// The columns of VOTES, and the voters seen so far.
pub(super) struct Votes {
    columns: Columns,
    voter: usize,
    vote: usize,
    points: usize,
    /// Prefix of person ids, because voter ids are unique only within one election.
    person_prefix: String,
    /// The first 128 bits of each voter id's SHA-256.
    seen: HashSet<[u8; 16]>,
}

impl Votes {
    pub(super) fn parse_header<R: BufRead>(
        records: &mut FileRecords<R>,
        meta: &Meta,
    ) -> Result<Self, FileReadError> {
        let columns = Columns::parse(records, "VOTES")?;
        Ok(Self {
            voter: columns.required("voter_id", "VOTES")?,
            vote: columns.required("vote", "VOTES")?,
            points: columns.required("points", "VOTES")?,
            columns,
            person_prefix: meta.instance().map_or_else(|| "pabulib".to_owned(), slug::slugify),
            seen: HashSet::new(),
        })
    }

    /// Parses a record as a ballot.
    pub(super) fn parse_ballot(
        &mut self,
        record: FileRecord<'_>,
        projects: &Projects,
    ) -> Entry<Ballot> {
        let line = record.at.number;
        self.parse(record, projects).map_err(|detail| RejectedEntry { line, detail })
    }

    fn parse(&mut self, record: FileRecord<'_>, projects: &Projects) -> Result<Ballot, String> {
        self.columns.check_field_count(&record)?;
        let field = |column| record.field(column).unwrap_or_default();
        let voter = field(self.voter);
        if voter.is_empty() {
            return Err("has no voter_id".to_owned());
        }
        let person = PersonId::parse(&format!("{}:{voter}", self.person_prefix))
            .map_err(|fault| format!("the voter_id {fault}"))?;
        let allocation = parse_allocation(field(self.vote), field(self.points), projects)?;
        if !self.seen.insert(digest(voter)) {
            return Err("the voter_id has a ballot on an earlier line".to_owned());
        }
        Ok(Ballot {
            line: record.at.number,
            person: Some(person),
            id_source: IdSource::Voter(voter.to_owned()),
            allocation: BallotAllocation::Computed(allocation),
        })
    }
}

fn digest(voter: &str) -> [u8; 16] {
    let mut prefix = [0; 16];
    prefix.iter_mut().zip(Sha256::digest(voter)).for_each(|(to, from)| *to = from);
    prefix
}

/// Adds a ballot's points up by category and apportions them, in any order of the projects.
fn parse_allocation(vote: &str, points: &str, projects: &Projects) -> Result<Allocation, String> {
    let voted: Vec<&str> = split_list(vote);
    let given: Vec<&str> = split_list(points);
    if voted.len() != given.len() {
        return Err(format!("has {} projects but {} points", voted.len(), given.len()));
    }
    let mut sums = vec![0_u32; projects.categories().len()];
    let mut seen = HashSet::new();
    for (project, points) in voted.into_iter().zip(given) {
        let category = projects
            .category_index(project)
            .ok_or_else(|| format!("there is no project {}", quoted(project)))?;
        if !seen.insert(project) {
            return Err(format!("has project {} twice", quoted(project)));
        }
        let points = parse_whole_number(points).ok_or_else(|| {
            format!("gives {} points, which is not a whole number", quoted(points))
        })?;
        if let Some(sum) = sums.get_mut(category) {
            *sum = sum.checked_add(points).ok_or("gives more points than can be counted")?;
        }
    }
    apportion(&sums).map_err(|fault| fault.to_string())
}

fn split_list(list: &str) -> Vec<&str> {
    if list.is_empty() { Vec::new() } else { list.split(',').map(str::trim).collect() }
}

fn parse_whole_number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}
