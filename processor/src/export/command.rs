//! The command: `processor export`, `allocator export`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress::{self, Look};
use schemas::export::Manifest;
use schemas::job::ExportFormat;
use schemas::{Budget, BudgetId};
use storage::config::StorageConfig;
use storage::definitions::Definitions;
use storage::log::LogReaders;
use storage::opening::OpenError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::formats::named;
use super::{ExportError, ExportParts, ExportProgress, blocking, export};
use crate::generations::current_log;

/// It was not done.
const NOT_DONE: u8 = 2;
/// What a shell reports for a process that was interrupted.
const INTERRUPTED: u8 = 130;
/// What stands for standard output.
const STDOUT: &str = "-";
/// How long definitions may take to be read.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Writes everyone's current allocation in one budget to a file, without who they are.
///
/// Runs beside the processors and changes nothing. What the file reflects, and its SHA-256, is written to the same name
/// with `.json` at the end. Ends with 0 if it is whole, 2 if there is none.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Where the log and the store are.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Which budget.
    #[arg(long, value_name = "ID", value_parser = budget_id)]
    pub budget: BudgetId,
    /// How it is written: csv, ndjson, pb or parquet. As the output's name says, if it is not given.
    #[arg(long)]
    pub format: Option<ExportFormat>,
    /// Where to; `-` is standard output. Named after budget and format, if it is not given.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Reads a budget's id.
pub(crate) fn budget_id(text: &str) -> Result<BudgetId, String> {
    BudgetId::parse(text).map_err(|fault| fault.to_string())
}

/// Exports from what `storage` configures, until `stop` interrupts it, and prints what was written.
pub async fn export_command(
    args: &ExportArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    let (progress, done) = (ExportProgress::default(), CancellationToken::new());
    let shown = progress::show("exporting ", done.clone(), |_| {
        let ((done, of), people) = (progress.steps(), progress.people());
        let line = format!("{done} of {of} buckets read and written, {people} people so far");
        Look { done, of, message: format!("{people} people"), line }
    });
    let exporting = async {
        // Boxed: the compiler gives up on what is nested this deep.
        let exporting = Box::pin(open_and_export(args, storage, &progress));
        let exported = stop.run_until_cancelled(exporting).await;
        done.cancel();
        exported
    };
    let (exported, ()) = tokio::join!(exporting, shown);
    match exported {
        None => {
            console::err("export: interrupted; nothing is left of it\n");
            ExitCode::from(INTERRUPTED)
        }
        Some(Err(error)) => {
            console::err(&format!("export: {error}\n"));
            ExitCode::from(NOT_DONE)
        }
        Some(Ok(exported)) => {
            let text = text(&exported);
            match exported.path {
                Some(_) => console::out(&text),
                // Standard output has the rows.
                None => console::err(&text),
            }
            ExitCode::SUCCESS
        }
    }
}

/// What was written, and where to, if it was a file.
struct Exported {
    manifest: Manifest,
    path: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("the budgets' definitions cannot be read now: they did not come in {} s", PATIENCE.as_secs())]
    NoDefinitions,
    #[error("there is no budget `{0}`")]
    NoBudget(BudgetId),
    #[error("a format is needed: csv, ndjson, pb or parquet, by --format or the output's name")]
    NoFormat,
}

async fn open_and_export(
    args: &ExportArgs,
    storage: &StorageConfig,
    progress: &ExportProgress,
) -> Result<Exported, CommandError> {
    let of_name = || args.output.as_deref().and_then(named);
    let format = args.format.or_else(of_name).ok_or(CommandError::NoFormat)?;
    let store = storage.open_existing_store().await?.store;
    let log = current_log(store.as_ref(), &storage.first_log()).await?;
    let parts = ExportParts {
        log: storage.open(&log).await?,
        topic: log.topic,
        store,
        budget: definition(storage.open_definitions()?.as_ref(), &args.budget).await?,
    };
    let path = match &args.output {
        Some(path) if path.as_os_str() == STDOUT => {
            return Ok(to_stdout(&parts, format, progress).await?);
        }
        Some(path) => path.clone(),
        None => PathBuf::from(format!("{}.{}", args.budget, format.name())),
    };
    let manifest = export(&parts, format, &path, progress).await?;
    Ok(Exported { manifest, path: Some(path) })
}

/// A budget's definition, once the definitions have been read.
async fn definition(
    definitions: &dyn Definitions,
    budget: &BudgetId,
) -> Result<Arc<Budget>, CommandError> {
    let deadline = Instant::now() + PATIENCE;
    while !definitions.is_loaded() {
        if Instant::now() > deadline {
            return Err(CommandError::NoDefinitions);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let catalog = definitions.catalog();
    let found = catalog.get(budget.as_str()).cloned();
    found.ok_or_else(|| CommandError::NoBudget(budget.clone()))
}

/// By way of a temporary file: nothing is written that turns out not to be true.
async fn to_stdout(
    parts: &ExportParts,
    format: ExportFormat,
    progress: &ExportProgress,
) -> Result<Exported, ExportError> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("export");
    let manifest = export(parts, format, &path, progress).await?;
    blocking(move || {
        // The folder is there until the copy is done.
        let _dir = dir;
        copy_to_stdout(&path).map_err(|reason| {
            let path = PathBuf::from("standard output");
            ExportError::Output { path, reason }
        })
    })
    .await?;
    Ok(Exported { manifest, path: None })
}

/// A reader that has seen enough (`| head`) is no reason to fail.
fn copy_to_stdout(path: &Path) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let copied = io::copy(&mut std::fs::File::open(path)?, &mut stdout);
    match copied.and_then(|_| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        copied => copied,
    }
}

/// What a person reads.
fn text(Exported { manifest, path }: &Exported) -> String {
    let mut text = String::new();
    for category in &manifest.facts.categories {
        text.push_str(&format!("{:>20}  {}\n", category.basis_points, category.id));
    }
    let file = path.as_deref().unwrap_or(Path::new(STDOUT)).display();
    text.push_str(&format!(
        "EXPORT budget={} people={} generation={} version={} bytes={} sha256={} file={file}\n",
        manifest.facts.budget,
        manifest.facts.people,
        manifest.generation,
        manifest.version,
        manifest.bytes,
        manifest.sha256,
    ));
    text
}
