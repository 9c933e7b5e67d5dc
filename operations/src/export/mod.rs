//! The export: the current allocations of one budget, without identities, written to a file.
//!
//! It runs while the processors run. Each partition is exported as of exactly one committed position, which the
//! manifest names; the rows must add up to the totals committed there, or the export fails. A row has only the person's
//! shares: no key, no log address, no time.
//!
//! Rows are ordered by partition, bucket and person key, and the file contains no generation or time: the same
//! allocations at the same positions are the same bytes, whichever generation they are read from.

mod formats;
pub(crate) mod output_file;
mod snapshot;
mod spool;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use schemas::export::{ExportSummary, Manifest};
use schemas::job::ExportFormat;
use schemas::{AggregateVersion, Budget, BudgetTotals, CombinedTotals, buckets};
use storage::exports::manifest_path;
use storage::log::{LogReader, ReadError};
use storage::store::{PartitionRef, Store, StoreError};

pub use formats::format_of_file_name;

use crate::BackendError;
use crate::progress::Progress;
use formats::RowWriter;
use generations::registry::require_active_log;
use output_file::{OutputFile, PendingFile};
use snapshot::Snapshot;
use storage::retry::{Transient, retry};

/// Dependencies of an export.
pub struct ExportDeps {
    /// The log, for records that the person rows lack.
    pub log: Arc<dyn LogReader>,
    /// The log's topic, as the registry records it.
    pub topic: String,
    /// Totals and person rows.
    pub store: Arc<dyn Store>,
    /// The budget.
    pub budget: Arc<Budget>,
}

/// Why an export failed. No file remains, unless the very last step fails: see [`export`].
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A backend is unavailable, or holds invalid data, so that no correct export is possible.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The file cannot be written.
    #[error("{path} cannot be written: {reason}")]
    Output {
        /// The file.
        path: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
    /// A temporary file cannot be written or read.
    #[error("a temporary file cannot be used: {0}")]
    Spool(#[from] io::Error),
    /// A bug.
    #[error("the export failed: {0}")]
    Failed(String),
}

impl Transient for ExportError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Backend(error) if error.is_transient())
    }
}

impl From<ReadError> for ExportError {
    fn from(error: ReadError) -> Self {
        Self::Backend(error.into())
    }
}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> Self {
        Self::Backend(error.into())
    }
}

fn invalid(reason: impl ToString) -> ExportError {
    BackendError::Invalid(reason.to_string()).into()
}

/// Progress of an export, readable while it runs.
#[derive(Debug, Default)]
pub struct ExportProgress {
    steps: Progress,
    people: AtomicU64,
}

impl ExportProgress {
    /// Buckets read or written so far, and the total of both.
    pub fn steps(&self) -> (u64, u64) {
        self.steps.done_and_total()
    }

    /// People written.
    pub fn people(&self) -> u64 {
        self.people.load(Ordering::Relaxed)
    }

    fn complete_step(&self) {
        self.steps.add_done(1);
    }
}

/// Exports to a file, with a manifest under the same name plus `.json`.
///
/// Both files are complete before the first is renamed to its final name, and a dropped export leaves none. A process
/// that is killed between the two renames leaves the new file with the previous manifest, whose checksum does not
/// match.
///
/// # Errors
/// When a backend stays unavailable after retries, or a partition's rows do not add up to its totals.
pub async fn export(
    deps: &ExportDeps,
    format: ExportFormat,
    path: &Path,
    progress: &ExportProgress,
) -> Result<Manifest, ExportError> {
    let registry = retry(|| deps.store.registry()).await?;
    let registry =
        require_active_log(registry, &deps.topic, deps.log.partitions()).map_err(invalid)?;
    let partitions = registry.active.log.partitions;
    let steps = 2 * buckets().count() as u64 * u64::from(partitions.get());
    progress.steps.set_total(steps);

    let mut writer = ExportWriter::begin(deps, format, path)?;
    let mut committed = Vec::new();
    for partition in partitions.partitions() {
        let id = PartitionRef { generation: registry.active.generation, partition };
        let snapshot = Snapshot::take(deps, id, output_file::parent_dir(path), progress).await?;
        committed.push(Some(snapshot.totals.clone()));
        writer = writer.write_partition(snapshot, progress).await?;
    }
    let totals = CombinedTotals::merge(registry.term(), partitions, &committed).map_err(invalid)?;
    let finished = run_blocking(move || writer.finish(&totals)).await?;
    // No await from here on: a dropped export has renamed both files, or none.
    finished.persist()
}

/// An export being written.
struct ExportWriter {
    path: PathBuf,
    format: ExportFormat,
    rows: Box<dyn RowWriter>,
    summary: ExportSummary,
}

/// Both complete files before they are renamed; dropping them deletes them.
struct FinishedExport {
    path: PathBuf,
    rows: PendingFile,
    manifest_file: PendingFile,
    manifest: Manifest,
}

/// Number and shares of the rows written.
#[derive(Debug, PartialEq, Eq)]
struct Sums {
    people: u64,
    basis_points: Vec<u64>,
}

impl ExportWriter {
    fn begin(deps: &ExportDeps, format: ExportFormat, path: &Path) -> Result<Self, ExportError> {
        let summary = ExportSummary::empty(&deps.budget);
        let rows = OutputFile::create(path)
            .and_then(|file| formats::begin(format, file, &summary, output_file::parent_dir(path)))
            .map_err(unwritable(path))?;
        Ok(Self { path: path.to_owned(), format, rows, summary })
    }

    /// Writes the rows of a partition, which must add up to its committed totals.
    async fn write_partition(
        mut self,
        mut snapshot: Snapshot,
        progress: &ExportProgress,
    ) -> Result<Self, ExportError> {
        let mut sums = Sums { people: 0, basis_points: vec![0; self.summary.categories.len()] };
        let committed = sums.committed(&snapshot.totals)?;
        for bucket in buckets() {
            (self, snapshot, sums) = run_blocking(move || {
                for basis_points in snapshot.allocations(bucket)? {
                    self.rows.write_row(&basis_points).map_err(unwritable(&self.path))?;
                    sums.add(&basis_points);
                }
                Ok((self, snapshot, sums))
            })
            .await?;
            progress.complete_step();
            progress.people.store(self.summary.people + sums.people, Ordering::Relaxed);
        }
        if sums != committed {
            return Err(invalid(format!(
                "partition {}: the person rows add up to {sums:?} at position {}, but {committed:?} is committed; \
                 run an audit",
                snapshot.id.partition, snapshot.position
            )));
        }
        self.summary.add(snapshot.position, sums.people, &sums.basis_points);
        self.summary.annulled += snapshot.totals.annulled;
        Ok(self)
    }

    /// Completes both files.
    fn finish(self, totals: &CombinedTotals) -> Result<FinishedExport, ExportError> {
        let Self { path, format, rows, summary } = self;
        let row_file =
            rows.finish(&summary).and_then(OutputFile::finish).map_err(unwritable(&path))?;
        let manifest = Manifest {
            summary,
            format,
            sha256: row_file.sha256.clone(),
            bytes: row_file.bytes,
            generation: totals.term.generation,
            version: AggregateVersion::of(totals).to_string(),
            exported_at: Timestamp::now(),
        };
        let manifest_path = manifest_path(&path);
        let text = serde_json::to_string_pretty(&manifest).map_err(io::Error::from);
        let manifest_file = text.and_then(|text| {
            let mut file = OutputFile::create(&manifest_path)?;
            writeln!(file, "{text}")?;
            file.finish()
        });
        let manifest_file = manifest_file.map_err(unwritable(&manifest_path))?;
        Ok(FinishedExport { path, rows: row_file, manifest_file, manifest })
    }
}

impl FinishedExport {
    /// Renames both files to their final names.
    fn persist(self) -> Result<Manifest, ExportError> {
        let Self { path, rows, manifest_file, manifest } = self;
        let manifest_path = manifest_path(&path);
        rows.persist(&path).map_err(unwritable(&path))?;
        manifest_file.persist(&manifest_path).map_err(unwritable(&manifest_path))?;
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

    /// The committed sums, checked to have as many categories as the budget.
    fn committed(&self, totals: &BudgetTotals) -> Result<Self, ExportError> {
        let (expected, found) = (self.basis_points.len(), totals.categories.len());
        if found == 0 {
            return Ok(Self { people: totals.people, basis_points: vec![0; expected] });
        }
        if found != expected {
            return Err(invalid(format!(
                "the budget has {expected} categories, but its totals have {found}"
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

/// Runs blocking work on a thread for it.
pub async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, ExportError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ExportError::Failed(error.to_string())))
}
