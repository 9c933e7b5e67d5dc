//! `archive`: copies the committed log into the archive, or checks the archive.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress::ProgressUpdate;
use storage::config::StorageConfig;
use storage::log::LogReaderOpener;
use storage::log::archive::{ArchiveCheckReport, archive_dir_for};
use storage::open_error::OpenError;
use tokio_util::sync::CancellationToken;

use super::progress_display::show_while;
use super::{EXIT_FAILED, EXIT_INTERRUPTED, push_first_lines};
use generations::registry::active_log;
use operations::archive::{
    ArchiveDeps, ArchiveError, Archived, Trimmed, archive, check_archive, trim,
};
use operations::progress::Progress;

/// Exit code: the check found faults.
const FAULTY: u8 = 1;

/// Copy the committed log into the archive, check the archive, or trim the embedded log
///
/// Runs while the processors run. After an interruption the same command resumes from the last complete segment. Exit
/// code: 0 done or nothing wrong, 1 the check found faults, 2 failed.
#[derive(Debug, Args)]
pub struct ArchiveArgs {
    /// Configuration of the log, the store and the archive.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Use this archive directory instead of `archive.dir`
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write nothing: verify each file's checksum, look for gaps up to the log's first record, and compare the
    /// archive's end with the log
    #[arg(long)]
    pub check: bool,
    /// Delete from the embedded log what the archive has and no takeover needs
    ///
    /// A record is deleted only if its file of the archive is intact and has the same record. Its submission id stays
    /// known. From then on an audit or a rebuild needs the archive (`archive.dir`).
    #[arg(long, conflicts_with_all = ["check", "dir"])]
    pub trim: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveCommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(
        "a directory is needed: archive.dir in the configuration (shared with the processors), or --dir"
    )]
    NoDir,
    #[error(
        "only the embedded log is trimmed; Kafka deletes a topic's old records by its retention (`retention.ms`)"
    )]
    NoTrimming,
}

/// The command's result.
enum ArchiveOutcome {
    Archived(Vec<Archived>, Option<Vec<Trimmed>>),
    Checked(ArchiveCheckReport),
}

/// Archives or checks the log that `storage` configures until `stop` is cancelled, and prints the result.
pub async fn archive_command(
    args: &ArchiveArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    let dir = args.dir.as_deref().or(storage.archive_dir());
    let progress = Arc::new(Progress::default());
    // Boxed: the compiler cannot compute the layout of a future nested this deep.
    let work = Box::pin(async {
        let dir = dir.ok_or(ArchiveCommandError::NoDir)?;
        Ok::<_, ArchiveCommandError>(if args.check {
            ArchiveOutcome::Checked(check(storage, dir, &progress).await?)
        } else {
            open_and_archive(args.trim, storage, dir, &progress).await?
        })
    });
    let what = match (args.check, args.trim) {
        (true, _) => "checked",
        (_, true) => "archived, then trimmed",
        _ => "archived",
    };
    match show_records(what, &progress, stop.run_until_cancelled(work)).await {
        None => {
            console::err(
                "archive: interrupted; complete segments stay, and the same command resumes\n",
            );
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Some(Err(error)) => {
            console::err(&format!("archive: {error}\n"));
            ExitCode::from(EXIT_FAILED)
        }
        Some(Ok(done)) => {
            let dir = dir.unwrap_or(Path::new("")).display();
            console::out(&format!("{} dir={dir}\n", text(&done)));
            match done {
                ArchiveOutcome::Checked(ArchiveCheckReport { faults, .. })
                    if !faults.is_empty() =>
                {
                    ExitCode::from(FAULTY)
                }
                ArchiveOutcome::Checked(_) | ArchiveOutcome::Archived(..) => ExitCode::SUCCESS,
            }
        }
    }
}

/// Displays how many records are done while `work` runs.
async fn show_records<T>(what: &str, progress: &Progress, work: impl Future<Output = T>) -> T {
    let current = || {
        let (done, total) = progress.done_and_total();
        let line = match total {
            0 => format!("{done} records {what}"),
            total => format!("{done} of {total} records {what}"),
        };
        ProgressUpdate { done, total, message: String::new(), line }
    };
    show_while("archive ", current, work).await
}

async fn open_and_archive(
    with_trim: bool,
    storage: &StorageConfig,
    dir: &Path,
    progress: &Arc<Progress>,
) -> Result<ArchiveOutcome, ArchiveCommandError> {
    let trimmer = match with_trim {
        true => Some(storage.log_trimmer().ok_or(ArchiveCommandError::NoTrimming)?),
        false => None,
    };
    let store = storage.open_existing_store().await?.store;
    let log = active_log(store.as_ref(), &storage.first_log()).await?;
    let deps = ArchiveDeps::of(&log, storage, &store, dir).await?;
    let archived = archive(&deps, progress).await?;
    let trimmed = match trimmer {
        Some(trimmer) => Some(trim(&deps, &trimmer, progress).await?),
        None => None,
    };
    Ok(ArchiveOutcome::Archived(archived, trimmed))
}

async fn check(
    storage: &StorageConfig,
    dir: &Path,
    progress: &Arc<Progress>,
) -> Result<ArchiveCheckReport, ArchiveCommandError> {
    let store = storage.open_existing_store().await?.store;
    let log = active_log(store.as_ref(), &storage.first_log()).await?;
    let alone = storage.open_without_archive(&log).await?;
    Ok(check_archive(&*alone, &log.topic, &archive_dir_for(dir, &log), progress).await?)
}

/// Checks the configured archive before a rebuild relies on it.
pub(crate) async fn check_configured(
    storage: &StorageConfig,
) -> Result<ArchiveCheckReport, ArchiveCommandError> {
    let dir = storage.archive_dir().ok_or(ArchiveCommandError::NoDir)?;
    let progress = Arc::new(Progress::default());
    let checking = Box::pin(check(storage, dir, &progress));
    show_records("of the archive checked", &progress, checking).await
}

/// Formats the result; the last line is the summary that scripts read.
fn text(done: &ArchiveOutcome) -> String {
    let mut text = String::new();
    match done {
        ArchiveOutcome::Archived(partitions, trimmed) => {
            for Archived { partition, from, end } in partitions {
                let _ = writeln!(
                    text,
                    "partition {partition}: 0..{end} in the archive, new from {from}"
                );
            }
            let records: u64 = partitions.iter().map(|it| it.end.0 - it.from.0).sum();
            let total: u64 = partitions.iter().map(|it| it.end.0).sum();
            for Trimmed { partition, low, .. } in trimmed.iter().flatten() {
                let _ = writeln!(text, "partition {partition}: the log begins at {low}");
            }
            let _ = write!(text, "ARCHIVE records={total} new={records}");
            if let Some(trimmed) = trimmed {
                let deleted: u64 = trimmed.iter().map(|it| it.low.0 - it.from.0).sum();
                let _ = write!(text, " trimmed={deleted}");
            }
        }
        ArchiveOutcome::Checked(ArchiveCheckReport { segments, records, faults }) => {
            push_first_lines(&mut text, faults.iter(), faults.len() as u64);
            let faults = faults.len();
            let _ = write!(text, "ARCHIVE records={records} segments={segments} faults={faults}");
        }
    }
    text
}
