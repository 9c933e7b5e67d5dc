//! Sends the submissions of a file to a running allocator through its public HTTP routes.
//!
//! | module | owns |
//! |---|---|
//! | `file` | lines and records of a text file, and their faults |
//! | `formats` | parsing Pabulib ballots, tables and JSON lines |
//! | `apportion` | points to basis points |
//! | `entries` | the entries of a file, with the names of those that have none |
//! | `scan` | the first pass: checks that all of the file can be read, and counts its entries |
//! | `server` | requests, retries, and the meaning of responses |
//! | `sender` | the second pass: sends every entry, in order for each person |
//! | `totals` | the people whom the entries leave counted, and their totals |
//!
//! Two passes, for two reasons: nothing of a broken file is sent, and the submission ids of persons are derived from
//! the hash of the whole file, so that importing the same file again repeats the same submissions and counts nobody
//! twice. An anonymous entry is a person of its own under its submission id, which is derived from the file and its
//! line, or on request from its content: then the entry has the same id in a corrected file.

mod apportion;
mod args;
mod ballot;
mod entries;
mod error;
mod file;
mod formats;
mod progress;
mod report;
mod scan;
mod sender;
mod server;
mod slugs;
mod totals;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use runtime::console;
use schemas::BudgetId;
use tokio_util::sync::CancellationToken;

pub use args::ImportArgs;
pub use entries::AnonymousIds;
pub use error::ImportError;
pub use formats::Format;
pub use formats::pabulib::Grouping;
pub use progress::Counts;
pub use server::RetryPolicy;

use entries::ImportFile;
use file::FileReadError;
use progress::ImportProgress;
use scan::FileScan;
use sender::{Destination, SendError, Sender};
use server::{Budget, Definition, Server};
use totals::ImportTotals;

/// Imports a file: progress goes to standard error, the summary to standard output.
///
/// `stop` ends the import, at the latest a few seconds later: requests in flight are given that time.
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
    let file = ImportFile {
        path: args.file.clone(),
        format,
        grouping: args.by,
        anonymous_ids: args.anonymous_ids,
    };
    let scan = scan(&file, &stop).await?;
    require_declared_counts(args, &scan)?;
    let destination = if args.dry_run {
        Destination::DryRun
    } else {
        // Reading a pipe waits for its writer.
        let token = stop
            .run_until_cancelled(server::find_token(args.token_file.as_deref(), &args.url))
            .await
            .unwrap_or(Err(ImportError::Stopped))?;
        let server = Box::new(Server::new(&args.url, token, retry, stop.clone())?);
        let (id, budget) = find_budget(args, format, &scan, &server).await?;
        let (path, address) = (args.file.display(), server.address());
        console::err(&format!("importing {path} into the budget `{id}` at {address}\n"));
        Destination::Budget { server, id, budget }
    };
    send(args, file, scan, destination, stop).await
}

/// Scans a file, or stops while the file system keeps a thread waiting.
async fn scan(file: &ImportFile, stop: &CancellationToken) -> Result<FileScan, ImportError> {
    let reading = tokio::task::spawn_blocking({
        let (file, stop) = (file.clone(), stop.clone());
        move || FileScan::new(&file, &stop)
    });
    let scan = stop.run_until_cancelled(reading).await.ok_or(ImportError::Stopped)?;
    let scan = scan.map_err(|error| ImportError::Internal(error.to_string()))?;
    scan.map_err(|error| file_error(&file.path, error))
}

/// Rejects a file that does not have what its head declares, as a truncated file does not.
fn require_declared_counts(args: &ImportArgs, scan: &FileScan) -> Result<(), ImportError> {
    if args.accept_wrong_counts {
        for fault in &scan.wrong_counts {
            console::err(&format!("warning: {fault}\n"));
        }
        return Ok(());
    }
    let Some((first, others)) = scan.wrong_counts.split_first() else { return Ok(()) };
    let mut fault = first.clone();
    for other in others {
        fault.detail.push_str(&format!("; {other}"));
    }
    fault.detail.push_str(
        "; complete the file, correct META, or import it as it is with --accept-wrong-counts",
    );
    Err(file_error(&args.file, fault.into()))
}

/// Runs the second pass and prints what it did, whether it reaches the end or not.
async fn send(
    args: &ImportArgs,
    file: ImportFile,
    scan: FileScan,
    destination: Destination,
    stop: CancellationToken,
) -> Result<Counts, ImportError> {
    let entries = scan.entries();
    let totals = ImportTotals::new(&scan.categories, scan.people_with_several_entries);
    let progress = Arc::new(ImportProgress::new(totals));
    let stop_display = CancellationToken::new();
    let display = tokio::spawn({
        let (progress, stop) = (Arc::clone(&progress), stop_display.clone());
        async move { progress.show(entries, stop).await }
    });
    let started = Instant::now();
    let sender = Sender { destination, progress: Arc::clone(&progress), stop };
    let sent = sender.send_all(file, scan.identity, args.concurrency.get()).await;
    let elapsed = started.elapsed();
    stop_display.cancel();
    // The display task only draws: its result does not matter.
    let _ = display.await;

    let counts = progress.counts();
    console::err(&report::rejected_entries(&progress.first_rejected(), counts.rejected));
    let summary = if args.dry_run {
        report::dry_run(counts.accepted, counts.rejected)
    } else {
        report::summary(entries, counts, elapsed)
    };
    console::out(&format!("{summary}{}", progress.with_totals(report::people)));
    console::err(&report::repeated_by_content(progress.repeated_by_content()));
    let error = match sent {
        Ok(()) if args.dry_run => return Ok(Counts { accepted: 0, ..counts }),
        Ok(()) => return Ok(counts),
        Err(error) => error,
    };
    if !args.dry_run {
        console::err(
            "the import is incomplete; run the same command again to send the rest (nobody is counted twice)\n",
        );
    }
    Err(match error {
        SendError::Import(error) => error,
        SendError::Read(error) => file_error(&args.file, error),
        other => ImportError::Internal(other.to_string()),
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
    match source {
        FileReadError::Stopped => ImportError::Stopped,
        source => ImportError::File { path: path.display().to_string(), source },
    }
}
