//! The section VOTES: one ballot a record.

use std::collections::HashSet;
use std::io::BufRead;

use schemas::{Allocation, PersonName};
use sha2::{Digest, Sha256};

use crate::import::apportion::apportion;
use crate::import::ballot::{Ballot, Name, Split};
use crate::import::file::{Entry, ReadError, Record, Records, Refusal, shown};

use super::projects::Projects;
use super::{Columns, Meta};

/// The votes' columns, and who has voted so far.
pub(super) struct Votes {
    columns: Columns,
    voter: usize,
    vote: usize,
    points: usize,
    /// What a person's name begins with: voter ids are unique within one instance only.
    instance: String,
    /// 128 bits of each voter id's SHA-256: all that an import keeps of each ballot.
    seen: HashSet<[u8; 16]>,
}

impl Votes {
    pub(super) fn read_head<R: BufRead>(
        records: &mut Records<R>,
        meta: &Meta,
    ) -> Result<Self, ReadError> {
        let columns = Columns::read(records, "VOTES")?;
        Ok(Self {
            voter: columns.required("voter_id", "VOTES")?,
            vote: columns.required("vote", "VOTES")?,
            points: columns.required("points", "VOTES")?,
            columns,
            instance: meta.instance().map_or_else(|| "pabulib".to_owned(), slug::slugify),
            seen: HashSet::new(),
        })
    }

    /// Reads a record as a ballot.
    pub(super) fn ballot(&mut self, record: Record<'_>, projects: &Projects) -> Entry<Ballot> {
        let line = record.line;
        self.read(record, projects).map_err(|detail| Refusal { line, detail })
    }

    fn read(&mut self, record: Record<'_>, projects: &Projects) -> Result<Ballot, String> {
        self.columns.fit(&record)?;
        let field = |column| record.field(column).unwrap_or_default();
        let voter = field(self.voter);
        if voter.is_empty() {
            return Err("has no voter_id".to_owned());
        }
        let person = PersonName::parse(&format!("{}:{voter}", self.instance))
            .map_err(|fault| format!("the voter_id {fault}"))?;
        let allocation = allocation(field(self.vote), field(self.points), projects)?;
        if !self.seen.insert(digest(voter)) {
            return Err("the voter_id has a ballot on an earlier line".to_owned());
        }
        Ok(Ballot {
            line: record.line,
            person: Some(person),
            name: Name::Voter(voter.to_owned()),
            split: Split::Counted(allocation),
        })
    }
}

fn digest(voter: &str) -> [u8; 16] {
    let mut cut = [0; 16];
    cut.iter_mut().zip(Sha256::digest(voter)).for_each(|(to, from)| *to = from);
    cut
}

/// Adds a ballot's points up by category and apportions them. The order of its projects means nothing.
fn allocation(vote: &str, points: &str, projects: &Projects) -> Result<Allocation, String> {
    let voted: Vec<&str> = items(vote);
    let given: Vec<&str> = items(points);
    if voted.len() != given.len() {
        return Err(format!("has {} projects but {} points", voted.len(), given.len()));
    }
    let mut sums = vec![0_u32; projects.categories().len()];
    let mut seen = HashSet::new();
    for (project, points) in voted.into_iter().zip(given) {
        let place = projects
            .place(project)
            .ok_or_else(|| format!("there is no project {}", shown(project)))?;
        if !seen.insert(project) {
            return Err(format!("has project {} twice", shown(project)));
        }
        let points = whole_number(points).ok_or_else(|| {
            format!("gives {} points, which is not a whole number", shown(points))
        })?;
        if let Some(sum) = sums.get_mut(place) {
            *sum = sum.checked_add(points).ok_or("gives more points than can be counted")?;
        }
    }
    apportion(&sums).map_err(|fault| fault.to_string())
}

fn items(list: &str) -> Vec<&str> {
    if list.is_empty() { Vec::new() } else { list.split(',').map(str::trim).collect() }
}

fn whole_number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}
