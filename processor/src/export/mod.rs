//! The export: everyone's current allocation in one budget, without who they are, written to a file.
//!
//! It runs beside the processors, under load. Each partition is exported as of exactly one committed position, which the
//! export names; what everyone adds up to has to be what is committed there, or there is no export. A row is only its
//! person's shares: no key, no place in the log, no time.
//!
//! The order is partition, bucket, person's key, and nothing of a generation or a time is in the file: the same people as
//! of the same positions are the same bytes, whichever generation they are read from.

mod command;
mod formats;
mod output;
mod snapshot;
mod spool;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use schemas::export::{Facts, Manifest};
use schemas::job::ExportFormat;
use schemas::{AggregateVersion, Budget, BudgetTotals, CombinedTotals, buckets};
use storage::exports::beside;
use storage::log::{LogReader, ReadError};
use storage::store::{PartitionRef, Store, StoreError};

use crate::again::{self, Away};
use crate::generations::of_log;
use formats::Rows;
use output::{Output, Whole};
use snapshot::Snapshot;

pub(crate) use command::budget_id;
pub use command::{ExportArgs, export_command};

/// What is exported.
pub struct ExportParts {
    /// What people's rows lack yet is read from it.
    pub log: Arc<dyn LogReader>,
    /// Its topic, as the generation records it.
    pub topic: String,
    /// Totals and people.
    pub store: Arc<dyn Store>,
    /// The budget.
    pub budget: Arc<Budget>,
}

/// Why there is no export. Nothing is left of it, unless the disk refuses the very last step: see [`export`].
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A place does not answer: try again later.
    #[error("{0}")]
    Away(String),
    /// A place is not what it should be, so that nothing true can be exported.
    #[error("{0}")]
    Wrong(String),
    /// The file cannot be written.
    #[error("{path} cannot be written: {reason}")]
    Output {
        /// Which.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// What is kept on the disk on the way cannot be.
    #[error("a temporary file cannot be used: {0}")]
    Spool(#[from] io::Error),
    /// A bug.
    #[error("the export failed: {0}")]
    Failed(String),
}

impl Away for ExportError {
    fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

impl From<ReadError> for ExportError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(_) => Self::Away(error.to_string()),
            ReadError::Missing(_) | ReadError::Damaged(_) => Self::Wrong(error.to_string()),
        }
    }
}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Away(error.to_string()),
            StoreError::Corrupt(_) => Self::Wrong(error.to_string()),
        }
    }
}

/// How far an export has come, for whoever watches it.
#[derive(Debug, Default)]
pub struct ExportProgress {
    of: AtomicU64,
    done: AtomicU64,
    people: AtomicU64,
}

impl ExportProgress {
    /// Buckets of people read and written, and how often that is to be done.
    pub fn steps(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.of.load(Ordering::Relaxed))
    }

    /// People written.
    pub fn people(&self) -> u64 {
        self.people.load(Ordering::Relaxed)
    }

    fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Exports to a file, which is there once it is whole, and writes what is said about it beside it, to the same name with
/// `.json` at the end. If it is dropped, nothing is left of it. Both are whole before the first is put under its name; who
/// is killed between the two leaves the new file beside what was said of the one before, whose checksum it does not have.
///
/// # Errors
/// When a place does not answer, however often it is asked, or people cannot be brought to one position.
pub async fn export(
    parts: &ExportParts,
    format: ExportFormat,
    path: &Path,
    progress: &ExportProgress,
) -> Result<Manifest, ExportError> {
    let roster = again(|| async { Ok(parts.store.roster().await?) }).await?;
    let roster =
        of_log(roster, &parts.topic, parts.log.partitions()).map_err(ExportError::Wrong)?;
    let partitions = roster.current.log.partitions;
    let steps = 2 * buckets().count() as u64 * u64::from(partitions.get());
    progress.of.store(steps, Ordering::Relaxed);

    let mut writing = Writing::begin(parts, format, path)?;
    let mut committed = Vec::new();
    for partition in partitions.partitions() {
        let id = PartitionRef { generation: roster.current.generation, partition };
        let snapshot = Snapshot::take(parts, id, output::folder_of(path), progress).await?;
        committed.push(Some(snapshot.totals.clone()));
        writing = writing.take(snapshot, progress).await?;
    }
    let totals = CombinedTotals::merge(roster.term(), partitions, &committed)
        .map_err(|fault| ExportError::Wrong(fault.to_string()))?;
    let finished = blocking(move || writing.finish(&totals)).await?;
    // Nothing is waited for from here on: who drops the export does so before both files are put, or after.
    finished.put()
}

/// An export on its way to its file.
struct Writing {
    path: PathBuf,
    format: ExportFormat,
    rows: Box<dyn Rows>,
    facts: Facts,
}

/// Both files, whole and not in their places yet: nothing is left of them if they are dropped.
struct Finished {
    path: PathBuf,
    people: Whole,
    said: Whole,
    manifest: Manifest,
}

/// What rows add up to.
#[derive(Debug, PartialEq, Eq)]
struct Sums {
    people: u64,
    basis_points: Vec<u64>,
}

impl Writing {
    fn begin(parts: &ExportParts, format: ExportFormat, path: &Path) -> Result<Self, ExportError> {
        let facts = Facts::of(&parts.budget);
        let rows = Output::create(path)
            .and_then(|file| formats::begin(format, file, &facts, output::folder_of(path)))
            .map_err(unwritable(path))?;
        Ok(Self { path: path.to_owned(), format, rows, facts })
    }

    /// Writes everyone of a partition, who have to add up to what is committed.
    async fn take(
        mut self,
        mut snapshot: Snapshot,
        progress: &ExportProgress,
    ) -> Result<Self, ExportError> {
        let mut sums = Sums { people: 0, basis_points: vec![0; self.facts.categories.len()] };
        let committed = sums.committed(&snapshot.totals)?;
        for bucket in buckets() {
            (self, snapshot, sums) = blocking(move || {
                for basis_points in snapshot.allocations(bucket)? {
                    self.rows.row(&basis_points).map_err(unwritable(&self.path))?;
                    sums.add(&basis_points);
                }
                Ok((self, snapshot, sums))
            })
            .await?;
            progress.step();
            progress.people.store(self.facts.people + sums.people, Ordering::Relaxed);
        }
        if sums != committed {
            return Err(ExportError::Wrong(format!(
                "partition {}: people's rows make {sums:?} at position {}, and committed are {committed:?}; \
                 an audit says more",
                snapshot.id.partition, snapshot.position
            )));
        }
        self.facts.add(snapshot.position, sums.people, &sums.basis_points);
        Ok(self)
    }

    /// Makes both files whole.
    fn finish(self, totals: &CombinedTotals) -> Result<Finished, ExportError> {
        let Self { path, format, rows, facts } = self;
        let people = rows.finish(&facts).and_then(Output::finish).map_err(unwritable(&path))?;
        let manifest = Manifest {
            facts,
            format,
            sha256: people.sha256.clone(),
            bytes: people.bytes,
            generation: totals.term.generation,
            version: AggregateVersion::of(totals).to_string(),
            exported_at: Timestamp::now(),
        };
        let beside_it = beside(&path);
        let text = serde_json::to_string_pretty(&manifest).map_err(io::Error::from);
        let said = text.and_then(|text| {
            let mut file = Output::create(&beside_it)?;
            writeln!(file, "{text}")?;
            file.finish()
        });
        let said = said.map_err(unwritable(&beside_it))?;
        Ok(Finished { path, people, said, manifest })
    }
}

impl Finished {
    /// Puts the file in its place, and what is said about it in its own.
    fn put(self) -> Result<Manifest, ExportError> {
        let Self { path, people, said, manifest } = self;
        let beside_it = beside(&path);
        people.put(&path).map_err(unwritable(&path))?;
        said.put(&beside_it).map_err(unwritable(&beside_it))?;
        Ok(manifest)
    }
}

impl Sums {
    fn add(&mut self, basis_points: &[u16]) {
        self.people += 1;
        for (sum, share) in self.basis_points.iter_mut().zip(basis_points) {
            *sum += u64::from(*share);
        }
    }

    /// What is committed, of as many categories.
    fn committed(&self, totals: &BudgetTotals) -> Result<Self, ExportError> {
        let (expected, found) = (self.basis_points.len(), totals.categories.len());
        if found == 0 {
            return Ok(Self { people: totals.people, basis_points: vec![0; expected] });
        }
        if found != expected {
            return Err(ExportError::Wrong(format!(
                "the budget has {expected} categories, and its totals are of {found}"
            )));
        }
        let sums = totals.categories.iter().map(|category| category.basis_points);
        Ok(Self { people: totals.people, basis_points: sums.collect() })
    }
}

fn unwritable(path: &Path) -> impl Fn(io::Error) -> ExportError + use<> {
    let path = path.to_owned();
    move |reason| ExportError::Output { path: path.clone(), reason }
}

/// Does what takes the disk's time where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, ExportError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ExportError::Failed(error.to_string())))
}

/// Asks a place that does not answer again.
async fn again<T, Asking: Future<Output = Result<T, ExportError>>>(
    ask: impl Fn() -> Asking,
) -> Result<T, ExportError> {
    again::again(ask).await
}
