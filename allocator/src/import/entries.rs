//! Reads the entries of a file, and gives a name to those that have none. Both passes read a file through it.
//!
//! The name of an entry is its submission id. It needs 24 bytes of memory for each submission id in the file and for
//! each distinct allocation of anonymous entries.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::path::PathBuf;

use uuid::Uuid;

use super::ballot::{Ballot, ContentDigest, IdSource, PersonDigest};
use super::file::{Entry, FileReadError, RejectedEntry};
use super::formats::pabulib::Grouping;
use super::formats::{Format, Source};

/// What the ids of entries without person and submission id are derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AnonymousIds {
    /// The whole file and their line: a corrected file is a new file
    File,
    /// Their allocation and its occurrence: a corrected file adds only what is new, and equal entries of different
    /// files are the same people; whoever guesses an allocation can compute its id
    Content,
}

/// A file, and how to read it.
#[derive(Debug, Clone)]
pub struct ImportFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Format of the file.
    pub format: Format,
    /// Source of the categories.
    pub grouping: Grouping,
    /// What the ids of anonymous entries are derived from.
    pub anonymous_ids: AnonymousIds,
}

/// The entries of an open file.
pub struct Entries {
    /// The open file.
    pub source: Source,
    names: Names,
}

/// A valid entry with its name.
#[derive(Debug, Clone)]
pub struct NamedBallot {
    /// The entry.
    pub ballot: Ballot,
    /// Whether an earlier entry has the same submission id and content: this one has no effect.
    pub is_repeat: bool,
}

impl Entries {
    /// Opens a file.
    ///
    /// # Errors
    /// When the file cannot be read or its header has another format.
    pub fn open(file: &ImportFile) -> Result<Self, FileReadError> {
        let source = Source::open(&file.path, file.format, file.grouping)?;
        Ok(Self { source, names: Names::new(file.anonymous_ids) })
    }

    /// Reads the next entry. `None` at the end.
    ///
    /// # Errors
    /// When the rest of the file cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<Entry<NamedBallot>>, FileReadError> {
        let entry = self.source.next_ballot()?;
        Ok(entry.map(|entry| entry.and_then(|ballot| self.names.name(ballot))))
    }
}

/// The names given so far.
struct Names {
    anonymous_ids: AnonymousIds,
    /// How many anonymous entries have each allocation.
    occurrences: HashMap<ContentDigest, u64>,
    /// A digest of the allocation for each submission id in the file and its person, if it has one.
    given: HashMap<(Uuid, Option<PersonDigest>), ContentDigest>,
}

impl Names {
    fn new(anonymous_ids: AnonymousIds) -> Self {
        Self { anonymous_ids, occurrences: HashMap::new(), given: HashMap::new() }
    }

    /// Gives the next entry of the file its name.
    ///
    /// # Errors
    /// When its submission id is that of an earlier entry of the same person with other content.
    fn name(&mut self, mut ballot: Ballot) -> Entry<NamedBallot> {
        let mut is_repeat = false;
        match &ballot.id_source {
            IdSource::Given(id) => {
                let content = ballot.allocation.digest();
                match self.given.entry((*id, ballot.person_digest())) {
                    MapEntry::Vacant(slot) => _ = slot.insert(content),
                    MapEntry::Occupied(earlier) if *earlier.get() == content => is_repeat = true,
                    MapEntry::Occupied(_) => {
                        let detail = "has the submission_id of an earlier entry of this person, and other content"
                            .to_owned();
                        return Err(RejectedEntry { line: ballot.line, detail });
                    }
                }
            }
            IdSource::Line(_) if ballot.person.is_none() => {
                if self.anonymous_ids == AnonymousIds::Content {
                    let digest = ballot.allocation.digest();
                    let occurrence = self.occurrences.entry(digest).or_default();
                    *occurrence += 1;
                    ballot.id_source = IdSource::Content { digest, occurrence: *occurrence };
                }
            }
            IdSource::Line(_) | IdSource::Voter(_) | IdSource::Content { .. } => {}
        }
        Ok(NamedBallot { ballot, is_repeat })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::import::file::FileIdentity;
    use crate::import::formats::ndjson::Ndjson;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};
    use std::collections::BTreeSet;

    const A: &str = r#"{"allocation":{"x":100}}"#;
    const A_AGAIN: &str = r#"{"allocation": {"x": 100.0}}"#;
    const B: &str = r#"{"allocation":{"x":40,"y":60}}"#;
    const WRONG: &str = r#"{"allocation":{"x":99}}"#;

    fn named(lines: &[String], anonymous_ids: AnonymousIds) -> Vec<Entry<NamedBallot>> {
        let text = lines.join("\n");
        let mut file = Ndjson::open(text.as_bytes());
        let mut names = Names::new(anonymous_ids);
        std::iter::from_fn(|| file.next_ballot().unwrap())
            .map(|entry| entry.and_then(|ballot| names.name(ballot)))
            .collect()
    }

    /// The submission ids of a file's valid entries, each of which must be unique.
    fn ids(lines: &[String], anonymous_ids: AnonymousIds) -> BTreeSet<Uuid> {
        let identity = FileIdentity(Sha256::digest(lines.join("\n")).into());
        let valid: Vec<_> = named(lines, anonymous_ids).into_iter().flatten().collect();
        let ids: BTreeSet<Uuid> =
            valid.iter().map(|named| named.ballot.id_source.submission_id(identity)).collect();
        assert_eq!(ids.len(), valid.len());
        ids
    }

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn names_from_the_whole_file_differ_between_files() {
        let (first, second) =
            (ids(&lines(&[A, B]), AnonymousIds::File), ids(&lines(&[A]), AnonymousIds::File));
        assert!(first.is_disjoint(&second));
    }

    #[test]
    fn a_persons_repeated_submission_id_has_no_effect_and_with_other_content_is_rejected() {
        let entry = |person: &str, x: u64| {
            let id = "0198d2a5-0000-7000-8000-000000000001";
            format!(
                r#"{{"person":"{person}","submission_id":"{id}","allocation":{{"x":{x},"y":{}}}}}"#,
                100 - x
            )
        };
        let file = [entry("p", 40), entry("p", 40), entry("p", 50), entry("q", 40), entry("p", 40)];
        let entries = named(&file, AnonymousIds::Content);
        let repeats: Vec<_> =
            entries.iter().map(|entry| entry.as_ref().ok().map(|named| named.is_repeat)).collect();
        assert_eq!(repeats, [Some(false), Some(true), None, Some(false), Some(true)]);
    }

    fn anonymous_lines() -> impl Strategy<Value = Vec<String>> {
        let line = prop::sample::select(vec![A, A_AGAIN, B, WRONG]).prop_map(str::to_owned);
        prop::collection::vec(line, 0..12)
    }

    proptest! {
        #[test]
        fn a_corrected_file_keeps_every_name_and_adds_one_for_each_corrected_entry(
            file in anonymous_lines(), order in any::<prop::sample::Index>(),
        ) {
            let before = ids(&file, AnonymousIds::Content);
            let wrong = file.iter().filter(|line| *line == WRONG).count();
            let mut corrected: Vec<String> =
                file.iter().map(|line| if line == WRONG { B.to_owned() } else { line.clone() }).collect();
            let after = ids(&corrected, AnonymousIds::Content);
            prop_assert!(after.is_superset(&before));
            prop_assert_eq!(after.len(), before.len() + wrong);
            if !corrected.is_empty() {
                let middle = order.index(corrected.len());
                corrected.rotate_left(middle);
                prop_assert_eq!(ids(&corrected, AnonymousIds::Content), after);
            }
        }
    }
}
