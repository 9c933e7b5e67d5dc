//! The generation registry: which generation is active, building or previous. One row of the store, replaced as a whole
//! and conditionally, so that all processes see the same changes in the same order.

use serde::{Deserialize, Serialize};

use crate::job::JobId;
use crate::stored::{self, StoredDocument};
use crate::{Generation, LogRef, Term};

/// Newest version of the fold that this release has: which totals follow from a log.
///
/// Incremented by a release whose fold derives other totals. A generation has the lowest version that derives its
/// totals, so that an earlier release goes on folding it until it cannot.
pub const FOLD_VERSION: u32 = ANNULMENT_FOLD_VERSION;

/// First version of the fold that knows annulments. Earlier ones reject their records.
pub const ANNULMENT_FOLD_VERSION: u32 = 2;

/// Version of generations that earlier releases recorded without one.
const FIRST_FOLD_VERSION: u32 = 1;

/// Required of readers of a registry that has a generation with annulments. A running processor of an earlier release
/// stops when it reads the requirement, where it would only report a version of the fold that is not its own.
const REQUIRES_ANNULMENT: &str = "annulment";

fn first_fold_version() -> u32 {
    FIRST_FOLD_VERSION
}

fn is_first_fold_version(version: &u32) -> bool {
    *version == FIRST_FOLD_VERSION
}

/// A generation and what it is derived from. Immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// The generation's number.
    pub generation: Generation,
    /// The log that the generation is derived from.
    pub log: LogRef,
    /// The lowest version of the fold that derives the generation's totals; at most [`FOLD_VERSION`].
    #[serde(default = "first_fold_version", skip_serializing_if = "is_first_fold_version")]
    pub fold_version: u32,
}

impl GenerationRecord {
    /// Creates the record of a generation that every release folds.
    pub fn new(generation: Generation, log: LogRef) -> Self {
        Self { generation, log, fold_version: FIRST_FOLD_VERSION }
    }

    /// Raises the version of the fold to `version`; a later one stays.
    pub fn require_fold_version(&mut self, version: u32) {
        self.fold_version = self.fold_version.max(version);
    }
}

/// A generation that is being built next to the active one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Building {
    /// The generation and its log.
    pub record: GenerationRecord,
    /// The generation is only compared with the active one, and never becomes active.
    pub dry_run: bool,
    /// Start of the build, in milliseconds since 1970.
    pub begun_at_ms: u64,
    /// The background job that started the build; `None` if it was started otherwise.
    pub job: Option<JobId>,
    /// State of the active generation's log while this generation is built from another log.
    pub seal: Seal,
}

/// Whether the active log accepts submissions during a topic migration. Recorded before the topic is changed, so that a
/// sealed topic always has a recorded cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seal {
    /// The log accepts submissions.
    Open,
    /// The log is sealed, or about to be.
    Sealed {
        /// Start of sealing, in milliseconds since 1970.
        since_ms: u64,
    },
    /// The migration was cancelled: the log is about to accept submissions again.
    #[serde(rename = "opening")]
    Reopening {
        /// Start of sealing, in milliseconds since 1970.
        since_ms: u64,
    },
}

impl Seal {
    /// Time since which the log may reject submissions, in milliseconds since 1970; `None` if it is open.
    pub fn since_ms(self) -> Option<u64> {
        match self {
            Self::Open => None,
            Self::Sealed { since_ms } | Self::Reopening { since_ms } => Some(since_ms),
        }
    }
}

/// All generations of a deployment and their roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRegistry {
    /// Counts the changes; a change replaces exactly the previous revision.
    pub revision: u64,
    /// Counts the switches of the active generation.
    pub term: u32,
    /// The generation that serves reads.
    #[serde(rename = "current")]
    pub active: GenerationRecord,
    /// The generation that is being built.
    pub building: Option<Building>,
    /// The previous active generation, kept up to date for a rollback.
    pub previous: Option<GenerationRecord>,
    /// Generations whose data are no longer needed and not yet deleted.
    pub retired: Vec<GenerationRecord>,
    /// Number of the next new generation. Numbers are never reused.
    pub next: Generation,
    /// JSON pointers of members that only a newer release knows. Such a registry is followed, but not changed.
    #[serde(skip)]
    pub not_understood: Vec<String>,
}

impl GenerationRegistry {
    /// Creates the registry of a deployment whose store is empty, for its current log.
    ///
    /// In a new deployment this is log 0. A later log means that the store was lost. The first generation then takes
    /// the number of the generation that created that log ([`LogNumber::for_generation`]), so that no generation or log
    /// number is reused, and its term is not lower than the term in which that generation became active, since readers
    /// may still hold its totals.
    ///
    /// [`LogNumber::for_generation`]: crate::LogNumber::for_generation
    pub fn first(log: LogRef) -> Self {
        let generation = Generation::FIRST.max(Generation(log.number.0));
        Self {
            revision: 1,
            term: Term::FIRST.number.max(generation.0),
            active: GenerationRecord::new(generation, log),
            building: None,
            previous: None,
            retired: Vec::new(),
            next: Generation(generation.0 + 1),
            not_understood: Vec::new(),
        }
    }

    /// Returns the current term.
    pub fn term(&self) -> Term {
        Term { number: self.term, generation: self.active.generation, log: self.active.log.number }
    }

    /// Generations that are folded as shadows: building and previous.
    pub fn shadows(&self) -> impl Iterator<Item = &GenerationRecord> {
        self.building.iter().map(|building| &building.record).chain(&self.previous)
    }

    /// Generations that are folded: the active one and the shadows.
    fn folded(&self) -> impl Iterator<Item = &GenerationRecord> {
        std::iter::once(&self.active).chain(self.shadows())
    }

    /// Checks that this release has the versions of the fold that the active generation and the shadows need.
    ///
    /// # Errors
    /// When one of them needs a newer version: a description.
    pub fn check_fold_version(&self) -> Result<(), String> {
        let newer = self.folded().find(|record| record.fold_version > FOLD_VERSION);
        newer.map_or(Ok(()), |GenerationRecord { generation, fold_version, .. }| {
            Err(format!(
                "generation {generation} needs version {fold_version} of the fold, and this release has version \
                 {FOLD_VERSION}: run a newer release"
            ))
        })
    }

    /// Encodes the registry for its store row.
    pub fn to_json(&self) -> String {
        let needs_annulment =
            self.folded().any(|record| record.fold_version >= ANNULMENT_FOLD_VERSION);
        let requires = if needs_annulment { vec![REQUIRES_ANNULMENT] } else { Vec::new() };
        // Only numbers, strings and lists under string keys: serialization cannot fail.
        serde_json::to_string(&RegistryRow { requires, registry: self }).unwrap_or_default()
    }

    /// Decodes what [`GenerationRegistry::to_json`] wrote; `None` if the text is damaged, or has a value that only a
    /// newer release knows.
    pub fn from_json(text: &str) -> Option<Self> {
        let read = stored::read(text.as_bytes(), &[REQUIRES_ANNULMENT]).ok()?;
        let StoredDocument { value, not_understood } = read;
        Some(Self { not_understood, ..value })
    }
}

/// A registry as its store row has it.
#[derive(Serialize)]
struct RegistryRow<'a> {
    /// What a release must know before it uses the registry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    requires: Vec<&'a str>,
    #[serde(flatten)]
    registry: &'a GenerationRegistry,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogNumber, PartitionCount};

    #[test]
    fn a_registry_recreated_for_a_later_log_reuses_no_log_number() {
        let partitions = PartitionCount::new(12).unwrap();
        let first = GenerationRegistry::first(LogRef::first("submissions", partitions));
        assert_eq!((first.term(), first.next), (Term::FIRST, Generation(2)));
        let (topic, number) = ("submissions-7".to_owned(), LogNumber(7));
        let log = LogRef { number, topic, partitions };
        let later = GenerationRegistry::first(log.clone());
        assert_eq!(later.active, GenerationRecord::new(Generation(7), log));
        assert_eq!(later.term(), Term { number: 7, generation: Generation(7), log: number });
        assert_eq!(later.revision, 1);
        assert!(LogNumber::for_generation(later.next) > number);
    }

    #[test]
    fn a_registry_survives_its_row_and_damage_is_detected() {
        let mut registry = GenerationRegistry::first(LogRef::first(
            "submissions",
            PartitionCount::new(12).unwrap(),
        ));
        assert_eq!(GenerationRegistry::from_json(&registry.to_json()), Some(registry.clone()));
        let record = GenerationRecord { generation: Generation(2), ..registry.active.clone() };
        registry.building = Some(Building {
            record: record.clone(),
            dry_run: true,
            begun_at_ms: 1_795_212_000_123,
            job: Some(JobId::new(1_795_212_000_000, uuid::Uuid::from_u128(7))),
            seal: Seal::Sealed { since_ms: 1_795_212_000_456 },
        });
        registry.retired.push(record);
        assert_eq!(GenerationRegistry::from_json(&registry.to_json()), Some(registry.clone()));
        let none = registry.to_json().replace(r#""partitions":12"#, r#""partitions":0"#);
        assert_eq!(GenerationRegistry::from_json(&none), None);
        assert_eq!(GenerationRegistry::from_json("{}"), None);
    }

    #[test]
    fn a_generation_of_a_newer_fold_is_refused_and_one_without_a_version_is_of_the_first() {
        let partitions = PartitionCount::new(12).unwrap();
        let registry = GenerationRegistry::first(LogRef::first("submissions", partitions));
        let needing = |version| {
            let mut active = registry.active.clone();
            active.require_fold_version(version);
            GenerationRegistry { active, ..registry.clone() }
        };
        // Earlier releases read and write the same bytes.
        assert!(!registry.to_json().contains("fold_version"));
        for version in [1, FOLD_VERSION] {
            assert_eq!(needing(version).check_fold_version(), Ok(()));
        }
        let newer = needing(FOLD_VERSION + 1);
        assert_eq!(GenerationRegistry::from_json(&newer.to_json()), Some(newer.clone()));
        let previous = Some(newer.active.clone());
        for other in [newer, GenerationRegistry { previous, ..registry }] {
            let refusal = other.check_fold_version().unwrap_err();
            assert!(refusal.starts_with("generation 1 needs version 3"), "{refusal}");
        }
    }

    #[test]
    fn a_registry_with_annulments_is_unreadable_to_releases_that_do_not_know_them() {
        let partitions = PartitionCount::new(12).unwrap();
        let mut registry = GenerationRegistry::first(LogRef::first("submissions", partitions));
        assert!(!registry.to_json().contains("requires"));
        registry.active.require_fold_version(ANNULMENT_FOLD_VERSION);
        let json = registry.to_json();
        assert_eq!(GenerationRegistry::from_json(&json), Some(registry));
        let refused = stored::read::<GenerationRegistry>(json.as_bytes(), &[]).unwrap_err();
        assert_eq!(refused, r#"only a release that knows ["annulment"] can use it"#);
    }
}
