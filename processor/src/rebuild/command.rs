//! The commands: `processor rebuild`, `processor generations`, and the same of `allocator`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;

use clap::{Args, Subcommand};
use runtime::clock::now_ms;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress;
use schemas::{Building, GenerationRecord, Roster};
use storage::config::StorageConfig;
use storage::log::LogReaders;
use storage::log::archive::Found;
use storage::opening::OpenError;
use storage::store::{PartitionRef, Store, StoreError};
use tokio_util::sync::CancellationToken;

use super::run::{RebuildError, Rebuilt, delete_retired, rebuild};
use super::watch::{Look, not_ready};
use crate::archive::{self, check_configured};
use crate::generations::{ChangeError, cancel, change, current_log, retire, roll_back};

/// Lines that are printed.
const SHOWN: usize = 100;
/// Differences were found.
const DIFFERENT: u8 = 1;
/// It was not done.
const NOT_DONE: u8 = 2;
/// What a shell reports for a process that was interrupted.
const INTERRUPTED: u8 = 130;

/// Derives everything from the log's first record again, beside what answers now; compares both at equal positions; and
/// lets the new one answer.
///
/// The processors do it, and it goes on if this command is interrupted: the same command watches it again. Ends with 0 if
/// nothing differed, 1 if something did, 2 if it was not done. The generation before is folded on, for
/// `generations rollback`, until `generations retire`.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// Where the log and the store are.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Compares only: what was built is given up then.
    #[arg(long)]
    pub dry_run: bool,
    /// Checks the archive of `archive.dir` first, and does not begin if anything of it is missing or damaged: of a log that
    /// was shortened it has the beginning. The processors have to be configured with it.
    #[arg(long)]
    pub from_archive: bool,
}

/// Shows and changes which generation answers.
#[derive(Debug, Args)]
pub struct GenerationsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Which generations there are, and how far each has come.
    List(ConfigArgs),
    Rollback(RollbackArgs),
    /// Gives up the generation that answered before, and deletes its rows.
    Retire(ConfigArgs),
    /// Gives up the generation that is being built, and deletes its rows.
    Cancel(ConfigArgs),
}

/// Lets the generation answer again that answered before, if it is ready to.
#[derive(Debug, Args)]
struct RollbackArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also if it is behind, or does not come on: until it does, readers are shown what they were shown last.
    #[arg(long)]
    anyway: bool,
}

impl GenerationsArgs {
    /// Where the log and the store are.
    pub fn config(&self) -> &ConfigArgs {
        match &self.action {
            Action::Rollback(args) => &args.config,
            Action::List(config) | Action::Retire(config) | Action::Cancel(config) => config,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    #[error(transparent)]
    Check(#[from] archive::CommandError),
    #[error("the archive is not whole, and nothing was begun:\n{0}")]
    Archive(String),
    #[error("no generation is being built")]
    NotBuilding,
    #[error(
        "there is no generation before: it was retired, there never was one, or it is of the log before the last \
         repartition, which has nothing of what came since"
    )]
    NothingBefore,
    #[error("the one before is not ready to answer: {0}; `--anyway` lets it all the same")]
    NotReady(String),
}

impl From<ChangeError> for CommandError {
    fn from(error: ChangeError) -> Self {
        Self::Rebuild(error.into())
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::Rebuild(error.into())
    }
}

/// Rebuilds what `storage` configures, until `stop` interrupts the watching, and prints what came of it.
pub async fn rebuild_command(
    args: &RebuildArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    let (seen, done) = (Mutex::new((0, 0, String::new())), CancellationToken::new());
    let shown = progress::show("rebuilding ", done.clone(), |_| {
        let (done, of, message) = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let line = format!("{done} of {of} records folded anew {message}").trim_end().to_owned();
        progress::Look { done, of, message, line }
    });
    let rebuilding = async {
        let saw = |look: &Look| {
            let trouble = look.troubles.first().cloned().unwrap_or_default();
            let now = (look.done, look.of, trouble);
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
        };
        let rebuilt = stop.run_until_cancelled(open_and_rebuild(args.dry_run, storage, saw)).await;
        done.cancel();
        rebuilt
    };
    if args.from_archive {
        match stop.run_until_cancelled(archive_is_whole(storage)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                console::err(&format!("rebuild: {error}\n"));
                return ExitCode::from(NOT_DONE);
            }
            None => {
                console::err("rebuild: interrupted; nothing was begun\n");
                return ExitCode::from(INTERRUPTED);
            }
        }
    }
    let (rebuilt, ()) = tokio::join!(rebuilding, shown);
    match rebuilt {
        None => {
            console::err(
                "rebuild: interrupted; it goes on, and the same command watches it again\n",
            );
            ExitCode::from(INTERRUPTED)
        }
        Some(Err(error)) => {
            console::err(&format!("rebuild: {error}\n"));
            ExitCode::from(NOT_DONE)
        }
        Some(Ok(rebuilt)) => {
            console::out(&text(&rebuilt));
            ExitCode::from(if rebuilt.differences.is_empty() { 0 } else { DIFFERENT })
        }
    }
}

/// Does what was asked for with the generations that `storage` configures, and prints what they are then.
pub async fn generations_command(args: &GenerationsArgs, storage: &StorageConfig) -> ExitCode {
    let done = async {
        let store = storage.open_existing_store().await?.store;
        let store = store.as_ref();
        let now = store.roster().await?.ok_or(ChangeError::NoRoster)?;
        let roster = match &args.action {
            Action::List(_) => now,
            Action::Rollback(args) => {
                let previous = now.previous.ok_or(CommandError::NothingBefore)?;
                if !args.anyway {
                    is_ready_to_answer(store, &previous).await?;
                }
                change(store, |roster| roll_back(roster, previous.generation)).await?
            }
            Action::Retire(_) => {
                match &now.previous {
                    Some(GenerationRecord { generation, .. }) => {
                        change(store, |roster| retire(roster, *generation)).await?;
                    }
                    None => is_left_to_delete(&now, CommandError::NothingBefore)?,
                }
                delete_retired(store).await?
            }
            Action::Cancel(_) => {
                match &now.building {
                    Some(Building { record, .. }) => {
                        change(store, |roster| cancel(roster, record.generation)).await?;
                    }
                    None => is_left_to_delete(&now, CommandError::NotBuilding)?,
                }
                delete_retired(store).await?
            }
        };
        list(store, &roster).await
    };
    match done.await {
        Ok(text) => {
            console::out(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            console::err(&format!("generations: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Whether somebody did not come to the end of deleting: the same command goes on.
fn is_left_to_delete(roster: &Roster, otherwise: CommandError) -> Result<(), CommandError> {
    if roster.retired.is_empty() { Err(otherwise) } else { Ok(()) }
}

async fn is_ready_to_answer(
    store: &dyn Store,
    previous: &GenerationRecord,
) -> Result<(), CommandError> {
    let reports = store.reports(previous.generation, previous.log.partitions).await?;
    let why_not = not_ready(&reports, now_ms());
    if why_not.is_empty() { Ok(()) } else { Err(CommandError::NotReady(why_not.join("; "))) }
}

async fn list(store: &dyn Store, roster: &Roster) -> Result<String, CommandError> {
    let mut text = String::new();
    let building = roster.building.as_ref();
    let what = building.map_or("", |it| if it.dry_run { "dry run" } else { "building" });
    let all = std::iter::once((&roster.current, "answers"))
        .chain(building.map(|building| (&building.record, what)))
        .chain(roster.previous.as_ref().map(|record| (record, "previous")))
        .chain(roster.retired.iter().map(|record| (record, "retired, rows not yet deleted")));
    for (record, what) in all {
        let records = committed(store, record).await?;
        let GenerationRecord { generation, log } = record;
        let _ = writeln!(
            text,
            "generation {generation}  {what}  topic {}, {} partitions, {records} records folded",
            log.topic,
            log.partitions.get()
        );
    }
    let _ =
        writeln!(text, "GENERATIONS term={} answers={}", roster.term, roster.current.generation);
    Ok(text)
}

async fn committed(store: &dyn Store, record: &GenerationRecord) -> Result<u64, StoreError> {
    let mut records = 0;
    for partition in record.log.partitions.partitions() {
        let id = PartitionRef { generation: record.generation, partition };
        let stored = store.read_partition(id).await?;
        records += stored.map_or(0, |stored| stored.checkpoint.position.0);
    }
    Ok(records)
}

/// Whether a rebuild can start from the archive.
async fn archive_is_whole(storage: &StorageConfig) -> Result<(), CommandError> {
    let Found { faults, segments, records } = check_configured(storage).await?;
    if !faults.is_empty() {
        let shown: Vec<String> = faults.into_iter().take(SHOWN).collect();
        return Err(CommandError::Archive(shown.join("\n")));
    }
    console::err(&format!("the archive is whole: {records} records in {segments} segments\n"));
    Ok(())
}

async fn open_and_rebuild(
    dry_run: bool,
    storage: &StorageConfig,
    saw: impl Fn(&Look),
) -> Result<Rebuilt, CommandError> {
    let store = storage.open_existing_store().await?.store;
    let log = current_log(store.as_ref(), &storage.first_log()).await?;
    let log = storage.open(&log).await?;
    Ok(rebuild(store.as_ref(), log.as_ref(), dry_run, saw).await?)
}

fn text(rebuilt: &Rebuilt) -> String {
    let Rebuilt { generation, before, records, dry_run, differences } = rebuilt;
    let mut text = String::new();
    for line in differences.iter().take(SHOWN) {
        let _ = writeln!(text, "{line}");
    }
    if let more @ 1.. = differences.len().saturating_sub(SHOWN) {
        let _ = writeln!(text, "and {more} more");
    }
    let outcome = if *dry_run { "given up: a dry run" } else { "answers now" };
    let _ = writeln!(
        text,
        "REBUILD generation={generation} compared_with={before} records={records} differences={} {outcome}",
        differences.len()
    );
    text
}
