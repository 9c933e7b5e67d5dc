//! `export`: writes the current allocations of one budget to a file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress::ProgressUpdate;
use schemas::BudgetId;
use schemas::export::Manifest;
use schemas::job::ExportFormat;
use storage::config::StorageConfig;
use storage::log::LogReaderOpener;
use storage::open_error::OpenError;
use tokio_util::sync::CancellationToken;

use super::definition::{DefinitionMissing, definition};
use super::progress_display::show_while;
use super::{EXIT_FAILED, EXIT_INTERRUPTED};
use generations::registry::active_log;
use operations::export::{
    ExportDeps, ExportError, ExportProgress, export, format_of_file_name, run_blocking,
};

/// File name that means standard output.
const STDOUT: &str = "-";

/// Write the current allocations of one budget to a file, without identities
///
/// Runs while the processors run and changes nothing. A manifest with the version and the SHA-256 is written to the
/// same name plus `.json`. Exit code: 0 complete, 2 failed and nothing was written.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Configuration of the log and the store.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Id of the budget
    #[arg(long, value_name = "ID", value_parser = budget_id)]
    pub budget: BudgetId,
    /// Format of the file: csv, ndjson, pb or parquet; default: by the output's file name
    #[arg(long)]
    pub format: Option<ExportFormat>,
    /// Output file, `-` for standard output; default: named after budget and format
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Parses a budget id.
pub(crate) fn budget_id(text: &str) -> Result<BudgetId, String> {
    BudgetId::parse(text).map_err(|fault| fault.to_string())
}

/// Exports from the deployment that `storage` configures until `stop` is cancelled, and prints the result.
pub async fn export_command(
    args: &ExportArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    let progress = ExportProgress::default();
    let current = || {
        let ((done, total), people) = (progress.steps(), progress.people());
        let line = format!("{done} of {total} buckets read and written, {people} people so far");
        ProgressUpdate { done, total, message: format!("{people} people"), line }
    };
    // Boxed: the compiler cannot compute the layout of a future nested this deep.
    let exporting = Box::pin(open_and_export(args, storage, &progress));
    match show_while("exporting ", current, stop.run_until_cancelled(exporting)).await {
        None => {
            console::err("export: interrupted; nothing was written\n");
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Some(Err(error)) => {
            console::err(&format!("export: {error}\n"));
            ExitCode::from(EXIT_FAILED)
        }
        Some(Ok(exported)) => {
            let text = text(&exported);
            match exported.path {
                Some(_) => console::out(&text),
                // Standard output already carries the rows.
                None => console::err(&text),
            }
            ExitCode::SUCCESS
        }
    }
}

/// A written export; `path` is `None` for standard output.
struct Exported {
    manifest: Manifest,
    path: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum ExportCommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Definition(#[from] DefinitionMissing),
    #[error("a format is needed: csv, ndjson, pb or parquet, by --format or the output's name")]
    NoFormat,
}

async fn open_and_export(
    args: &ExportArgs,
    storage: &StorageConfig,
    progress: &ExportProgress,
) -> Result<Exported, ExportCommandError> {
    let format_of_name = || args.output.as_deref().and_then(format_of_file_name);
    let format = args.format.or_else(format_of_name).ok_or(ExportCommandError::NoFormat)?;
    let store = storage.open_existing_store().await?.store;
    let log = active_log(store.as_ref(), &storage.first_log()).await?;
    let deps = ExportDeps {
        log: storage.open(&log).await?,
        topic: log.topic,
        store,
        budget: definition(&storage.open_control_topic()?, &args.budget).await?,
    };
    let path = match &args.output {
        Some(path) if path.as_os_str() == STDOUT => {
            return Ok(to_stdout(&deps, format, progress).await?);
        }
        Some(path) => path.clone(),
        None => PathBuf::from(format!("{}.{}", args.budget, format.name())),
    };
    let manifest = export(&deps, format, &path, progress).await?;
    Ok(Exported { manifest, path: Some(path) })
}

/// Exports to a temporary file first: rows are printed only once the export has been verified.
async fn to_stdout(
    deps: &ExportDeps,
    format: ExportFormat,
    progress: &ExportProgress,
) -> Result<Exported, ExportError> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("export");
    let manifest = export(deps, format, &path, progress).await?;
    run_blocking(move || {
        // Keeps the directory until the copy is done.
        let _dir = dir;
        copy_to_stdout(&path).map_err(|reason| {
            let path = PathBuf::from("standard output");
            ExportError::Output { path, reason }
        })
    })
    .await?;
    Ok(Exported { manifest, path: None })
}

/// Copies a file to standard output; a closed pipe (`| head`) is not an error.
fn copy_to_stdout(path: &Path) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let copied = io::copy(&mut std::fs::File::open(path)?, &mut stdout);
    match copied.and_then(|_| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        copied => copied,
    }
}

/// Formats the result; the last line is the summary that scripts read.
fn text(Exported { manifest, path }: &Exported) -> String {
    let mut text = String::new();
    for category in &manifest.summary.categories {
        text.push_str(&format!("{:>20}  {}\n", category.basis_points, category.id));
    }
    let file = path.as_deref().unwrap_or(Path::new(STDOUT)).display();
    text.push_str(&format!(
        "EXPORT budget={} people={} generation={} version={} bytes={} sha256={} file={file}\n",
        manifest.summary.budget,
        manifest.summary.people,
        manifest.generation,
        manifest.version,
        manifest.bytes,
        manifest.sha256,
    ));
    text
}
