//! The command: `processor archive`, `allocator archive`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress::{self, Look};
use storage::config::StorageConfig;
use storage::log::LogReaders;
use storage::log::archive::{Found, folder_of};
use storage::opening::OpenError;
use tokio_util::sync::CancellationToken;

use super::{ArchiveError, ArchiveParts, ArchiveProgress, Archived, archive, check_archive};
use crate::generations::current_log;

/// Lines that are printed.
const SHOWN: usize = 100;
/// The archive is not as it should be.
const FAULTY: u8 = 1;
/// It was not done.
const NOT_DONE: u8 = 2;
/// What a shell reports for a process that was interrupted.
const INTERRUPTED: u8 = 130;

/// Copies what is committed of the log into the archive, from where that ends; or checks the archive.
///
/// Runs beside the processors. Interrupted, what is whole stays, and the same command goes on. Ends with 0 if it is done
/// or everything is as it should be, 1 if a check found something, 2 if it was not done.
#[derive(Debug, Args)]
pub struct ArchiveArgs {
    /// Where the log, the store and the archive are.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The archive's folder, if it is not to be the one of `archive.dir`.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Writes nothing: reads every file, compares its checksum, looks for gaps up to where the log begins, and compares
    /// the end with the log.
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(
        "a folder is needed: archive.dir in the configuration, which the processors have to share, or --dir"
    )]
    NoDir,
}

/// What was done.
enum Done {
    Archived(Vec<Archived>),
    Checked(Found),
}

/// Archives or checks what `storage` configures, until `stop` interrupts it, and prints what came of it.
pub async fn archive_command(
    args: &ArchiveArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    let dir = args.dir.as_deref().or(storage.archive_dir());
    let progress = Arc::new(ArchiveProgress::default());
    // Boxed: the compiler gives up on what is nested this deep.
    let doing = Box::pin(async {
        let dir = dir.ok_or(CommandError::NoDir)?;
        Ok::<_, CommandError>(if args.check {
            Done::Checked(check(storage, dir, &progress).await?)
        } else {
            Done::Archived(open_and_archive(storage, dir, &progress).await?)
        })
    });
    let what = if args.check { "checked" } else { "archived" };
    let done = stop.run_until_cancelled(showing(what, &progress, doing)).await;
    match done {
        None => {
            console::err(
                "archive: interrupted; what is whole stays, and the same command goes on\n",
            );
            ExitCode::from(INTERRUPTED)
        }
        Some(Err(error)) => {
            console::err(&format!("archive: {error}\n"));
            ExitCode::from(NOT_DONE)
        }
        Some(Ok(done)) => {
            let dir = dir.unwrap_or(Path::new("")).display();
            console::out(&format!("{} dir={dir}\n", text(&done)));
            match done {
                Done::Checked(Found { faults, .. }) if !faults.is_empty() => ExitCode::from(FAULTY),
                Done::Checked(_) | Done::Archived(_) => ExitCode::SUCCESS,
            }
        }
    }
}

/// Shows how far it has come meanwhile.
async fn showing<T>(what: &str, progress: &ArchiveProgress, doing: impl Future<Output = T>) -> T {
    let ended = CancellationToken::new();
    let shown = progress::show("archive ", ended.clone(), |_| {
        let (done, of) = progress.records();
        let line = match of {
            0 => format!("{done} records {what}"),
            of => format!("{done} of {of} records {what}"),
        };
        Look { done, of, message: String::new(), line }
    });
    let doing = async {
        let done = doing.await;
        ended.cancel();
        done
    };
    tokio::join!(doing, shown).0
}

async fn open_and_archive(
    storage: &StorageConfig,
    dir: &Path,
    progress: &ArchiveProgress,
) -> Result<Vec<Archived>, CommandError> {
    let store = storage.open_existing_store().await?.store;
    let log = current_log(store.as_ref(), &storage.first_log()).await?;
    let parts = ArchiveParts::of(&log, storage, &store, dir).await?;
    Ok(archive(&parts, progress).await?)
}

async fn check(
    storage: &StorageConfig,
    dir: &Path,
    progress: &Arc<ArchiveProgress>,
) -> Result<Found, CommandError> {
    let store = storage.open_existing_store().await?.store;
    let log = current_log(store.as_ref(), &storage.first_log()).await?;
    let alone = storage.open_alone(&log).await?;
    Ok(check_archive(&*alone, &log.topic, &folder_of(dir, &log), progress).await?)
}

/// Checks the archive that is configured, for who is about to rely on it.
pub(crate) async fn check_configured(storage: &StorageConfig) -> Result<Found, CommandError> {
    let dir = storage.archive_dir().ok_or(CommandError::NoDir)?;
    let progress = Arc::new(ArchiveProgress::default());
    showing("of the archive checked", &progress, Box::pin(check(storage, dir, &progress))).await
}

/// What a person reads; the last line sums up.
fn text(done: &Done) -> String {
    let mut text = String::new();
    match done {
        Done::Archived(partitions) => {
            for Archived { partition, from, end } in partitions {
                let _ = writeln!(
                    text,
                    "partition {partition}: 0..{end} in the archive, new from {from}"
                );
            }
            let records: u64 = partitions.iter().map(|it| it.end.0 - it.from.0).sum();
            let whole: u64 = partitions.iter().map(|it| it.end.0).sum();
            let _ = write!(text, "ARCHIVE records={whole} new={records}");
        }
        Done::Checked(Found { segments, records, faults }) => {
            for fault in faults.iter().take(SHOWN) {
                let _ = writeln!(text, "{fault}");
            }
            if let Some(more @ 1..) = faults.len().checked_sub(SHOWN) {
                let _ = writeln!(text, "and {more} more");
            }
            let faults = faults.len();
            let _ = write!(text, "ARCHIVE records={records} segments={segments} faults={faults}");
        }
    }
    text
}
