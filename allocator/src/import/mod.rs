//! Sends the submissions of a file to a running allocator through its public HTTP routes.
//!
//! | module | owns |
//! |---|---|
//! | `file` | lines and records of a text file, and their faults |
//! | `formats` | parsing Pabulib ballots, tables and JSON lines |
//! | `apportion` | points to basis points |
//! | `scan` | the first pass: validates the file and adds it up |
//! | `server` | requests, retries, and the meaning of responses |
//! | `sender` | the second pass: sends every entry, in order for each person |
//!
//! Two passes, for two reasons: nothing of a broken file is sent, and submission ids are derived from the hash of the
//! whole file, so that importing the same file again repeats the same submissions and counts nobody twice.

mod apportion;
mod args;
mod ballot;
mod error;
mod file;
mod formats;
mod progress;
mod report;
mod scan;
mod sender;
mod server;
mod slugs;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use runtime::console;
use schemas::BudgetId;
use tokio_util::sync::CancellationToken;

pub use args::ImportArgs;
pub use error::ImportError;
pub use formats::Format;
pub use formats::pabulib::Grouping;
pub use progress::Counts;
pub use server::RetryPolicy;

use file::FileReadError;
use formats::Source;
use scan::FileScan;
use sender::{SendError, Sender};
use server::{Budget, Definition, Server};

/// Imports a file: progress goes to standard error, the summary to standard output.
///
/// `stop` ends the import after the requests in flight.
///
/// # Errors
/// When the import ended before the file did. Rejected entries are counted and are not an error.
pub async fn import(
    args: &ImportArgs,
    retry: RetryPolicy,
    stop: CancellationToken,
) -> Result<Counts, ImportError> {
    let format = args.format.or_else(|| Format::from_extension(&args.file)).ok_or_else(|| {
        let path = args.file.display();
        ImportError::Usage(format!(
            "{path}: unknown file extension; choose the format with --format"
        ))
    })?;
    let scan = {
        let (path, grouping) = (args.file.clone(), args.by);
        let read = tokio::task::spawn_blocking(move || FileScan::new(&path, format, grouping));
        let scan = read.await.map_err(|error| ImportError::Internal(error.to_string()))?;
        scan.map_err(|error| file_error(&args.file, error))?
    };
    if let Some(declared) = scan.wrong_declared_votes() {
        let found = scan.ballots + scan.rejected;
        console::err(&format!("warning: the file declares {declared} votes and has {found}\n"));
    }
    if args.dry_run {
        console::err(&report::rejected_entries(&scan.first_rejected, scan.rejected));
        console::out(&report::dry_run(&scan));
        return Ok(Counts { rejected: scan.rejected, ..Counts::default() });
    }

    let server = Server::new(&args.url, args.token_file.as_deref(), retry, stop.clone())?;
    let (id, budget) = find_budget(args, format, &scan, &server).await?;
    let (file, address) = (args.file.display(), server.address());
    console::err(&format!("importing {file} into the budget `{id}` at {address}\n"));
    let source =
        Source::open(&args.file, format, args.by).map_err(|error| file_error(&args.file, error))?;
    let sender = Sender { server, id, budget, progress: Arc::default(), stop };
    send(args, &scan, source, sender).await
}

async fn send(
    args: &ImportArgs,
    scan: &FileScan,
    source: Source,
    sender: Sender,
) -> Result<Counts, ImportError> {
    let entries = scan.ballots + scan.rejected;
    let progress = Arc::clone(&sender.progress);
    let stop_display = CancellationToken::new();
    let display = tokio::spawn({
        let (progress, stop) = (Arc::clone(&progress), stop_display.clone());
        async move { progress.show(entries, stop).await }
    });
    let started = Instant::now();
    let sent = sender.send_all(source, scan.identity, args.concurrency.get()).await;
    let elapsed = started.elapsed();
    stop_display.cancel();
    // The display task only draws: its result does not matter.
    let _ = display.await;

    let counts = progress.counts();
    console::err(&report::rejected_entries(&progress.first_rejected(), counts.rejected));
    console::out(&report::summary(entries, counts, elapsed));
    sent.map(|()| counts).map_err(|error| {
        console::err(
            "the import is incomplete; run the same command again to send the rest (nobody is counted twice)\n",
        );
        match error {
            SendError::Import(error) => error,
            SendError::Read(error) => file_error(&args.file, error),
            other => ImportError::Internal(other.to_string()),
        }
    })
}

/// Finds the budget of the submissions. The budget of a Pabulib file is created if absent.
async fn find_budget(
    args: &ImportArgs,
    format: Format,
    scan: &FileScan,
    server: &Server,
) -> Result<(BudgetId, Budget), ImportError> {
    if format == Format::Pb {
        let title = scan.meta.as_ref().and_then(|meta| meta.title());
        let id =
            args.budget.clone().or_else(|| suggested_id(&args.file, scan)).ok_or_else(|| {
                ImportError::Usage(
                    "neither the file nor its name suggests a budget id; choose one with --budget"
                        .to_owned(),
                )
            })?;
        let name = title.unwrap_or_else(|| id.to_string());
        let definition = Definition::new(&name, scan.categories.clone());
        let budget = server.ensure_budget(&id, &definition).await?;
        return Ok((id, budget));
    }
    let Some(id) = args.budget.clone() else {
        return Err(ImportError::Usage(
            "this format does not name a budget; choose one with --budget".to_owned(),
        ));
    };
    let budget = server.expect_budget(&id, &scan.categories).await?;
    Ok((id, budget))
}

/// Suggests a budget id from META's place and time, or from the file name.
fn suggested_id(path: &Path, scan: &FileScan) -> Option<BudgetId> {
    let instance = scan.meta.as_ref().and_then(|meta| meta.instance());
    let from_meta = instance.and_then(|instance| slugs::budget_id(&instance));
    from_meta.or_else(|| slugs::budget_id(path.file_stem()?.to_str()?))
}

fn file_error(path: &Path, source: FileReadError) -> ImportError {
    ImportError::File { path: path.display().to_string(), source }
}
