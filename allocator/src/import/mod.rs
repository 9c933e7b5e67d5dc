//! Sends the submissions of a file to a running allocator, by its public HTTP routes.
//!
//! | module | owns |
//! |---|---|
//! | `file` | lines and records, and what can be wrong with them |
//! | `formats` | what a file says: Pabulib's ballots, tables, JSON lines |
//! | `apportion` | points to basis points |
//! | `survey` | the first reading: what the file holds |
//! | `server` | requests, retries, and what the answers mean |
//! | `lanes` | the second reading: everything to the server, in order for each person |
//!
//! A file is read twice, so that nothing of a broken one is sent, and so that submissions can be named after its
//! content: the same file again repeats the same submissions, and the server counts nobody twice.

mod apportion;
mod args;
mod ballot;
mod error;
mod file;
mod formats;
mod lanes;
mod progress;
mod report;
mod server;
mod slugs;
mod survey;

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

use file::ReadError;
use formats::Source;
use lanes::{Lanes, SendError};
use server::{Budget, Definition, Server};
use survey::Survey;

/// Imports a file as asked, telling its user on standard error how it goes and on standard output what came of it.
/// `stop` ends it once what is under way is answered.
///
/// # Errors
/// Why it ended before the file did. Refused entries are no error: they are counted.
pub async fn import(
    args: &ImportArgs,
    retry: RetryPolicy,
    stop: CancellationToken,
) -> Result<Counts, ImportError> {
    let format = args.format.or_else(|| Format::of(&args.file)).ok_or_else(|| {
        let path = args.file.display();
        ImportError::Asked(format!(
            "{path}: the name does not say the format; choose one with --format"
        ))
    })?;
    let survey = {
        let (path, grouping) = (args.file.clone(), args.by);
        let read = tokio::task::spawn_blocking(move || Survey::of(&path, format, grouping));
        let survey = read.await.map_err(|error| ImportError::Internal(error.to_string()))?;
        survey.map_err(|error| of_file(&args.file, error))?
    };
    if let Some(announced) = survey.announced_otherwise() {
        let found = survey.ballots + survey.refused;
        console::err(&format!(
            "note: the file says that it has {announced} votes, and it has {found}\n"
        ));
    }
    if args.dry_run {
        console::err(&report::refusals(&survey.refusals, survey.refused));
        console::out(&report::dry_run(&survey));
        return Ok(Counts { refused: survey.refused, ..Counts::default() });
    }

    let server = Server::new(&args.url, args.token_file.as_deref(), retry, stop.clone())?;
    let (id, budget) = find_budget(args, format, &survey, &server).await?;
    let (file, address) = (args.file.display(), server.address());
    console::err(&format!("importing {file} into the budget `{id}` at {address}\n"));
    let source =
        Source::open(&args.file, format, args.by).map_err(|error| of_file(&args.file, error))?;
    let lanes = Lanes { server, id, budget, progress: Arc::default(), stop };
    send(args, &survey, source, lanes).await
}

async fn send(
    args: &ImportArgs,
    survey: &Survey,
    source: Source,
    lanes: Lanes,
) -> Result<Counts, ImportError> {
    let entries = survey.ballots + survey.refused;
    let progress = Arc::clone(&lanes.progress);
    let shown = CancellationToken::new();
    let display = tokio::spawn({
        let (progress, shown) = (Arc::clone(&progress), shown.clone());
        async move { progress.show(entries, shown).await }
    });
    let began = Instant::now();
    let sent = lanes.send_all(source, survey.identity, args.concurrency.get()).await;
    let elapsed = began.elapsed();
    shown.cancel();
    // It only draws: what it drew last does not matter.
    let _ = display.await;

    let counts = progress.counts();
    console::err(&report::refusals(&progress.first_refusals(), counts.refused));
    console::out(&report::summary(entries, counts, elapsed));
    sent.map(|()| counts).map_err(|error| {
        console::err(
            "not everything was sent; the same command again sends the rest, and counts nobody twice\n",
        );
        match error {
            SendError::Import(error) => error,
            SendError::Read(error) => of_file(&args.file, error),
            other => ImportError::Internal(other.to_string()),
        }
    })
}

/// The budget that the submissions are for. A Pabulib file's is created if it is not there.
async fn find_budget(
    args: &ImportArgs,
    format: Format,
    survey: &Survey,
    server: &Server,
) -> Result<(BudgetId, Budget), ImportError> {
    if format == Format::Pb {
        let title = survey.meta.as_ref().and_then(|meta| meta.title());
        let id =
            args.budget.clone().or_else(|| suggested_id(&args.file, survey)).ok_or_else(|| {
                ImportError::Asked(
                    "neither the file nor its name suggests a budget id; choose one with --budget"
                        .to_owned(),
                )
            })?;
        let name = title.unwrap_or_else(|| id.to_string());
        let definition = Definition::new(&name, survey.categories.clone());
        let budget = server.ensure_budget(&id, &definition).await?;
        return Ok((id, budget));
    }
    let Some(id) = args.budget.clone() else {
        return Err(ImportError::Asked(
            "this format names no budget; choose one with --budget".to_owned(),
        ));
    };
    let budget = server.expect_budget(&id, &survey.categories).await?;
    Ok((id, budget))
}

/// Place and time in META, else the file's own name.
fn suggested_id(path: &Path, survey: &Survey) -> Option<BudgetId> {
    let instance = survey.meta.as_ref().and_then(|meta| meta.instance());
    let of_meta = instance.and_then(|instance| slugs::budget_id(&instance));
    of_meta.or_else(|| slugs::budget_id(path.file_stem()?.to_str()?))
}

fn of_file(path: &Path, source: ReadError) -> ImportError {
    ImportError::File { path: path.display().to_string(), source }
}
