//! `dead-letters`: lists, shows, replays and drops dead letters.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use runtime::config::ConfigArgs;
use runtime::console;
use schemas::{LogRef, RecordAddress};
use storage::config::StorageConfig;
use storage::log::dead_letters::{
    DeadLetterIndex, DeadLetterRecord, DeadLetterRecordError, DeadLetterState, TrackedDeadLetter,
};
use storage::log::{LogReaderOpener, ReadError};
use storage::open_error::OpenError;
use storage::store::Store;
use uuid::Uuid;

use generations::registry::active_log;
use operations::dead_letters::{
    DeadLetterLog, JournalError, ReplayAttempt, ReplayDeps, UnfinishedReplay, drop_dead_letters,
    replay,
};
use storage::retry::retry;

/// Bytes of a record's value that `show` prints.
const MAX_PRINTED_BYTES: usize = 4_096;

/// List, inspect, replay or drop dead letters
#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(ListArgs),
    Show(ShowArgs),
    Replay(ReplayArgs),
    Drop(DropArgs),
}

/// List dead letters, one per line
///
/// Each line has the record's address (partition.offset), the state, the time of rejection, the size and the reason.
#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Include replayed and dropped dead letters
    #[arg(long)]
    all: bool,
    /// Maximum number of lines
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

/// Show one dead letter with its bytes
#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Address of the record: partition.offset
    letter: RecordAddress,
}

/// Append the records of dead letters again, each exactly once, to their own partition
///
/// Useful after an upgrade that can fold them, or for records that were written to a wrong partition.
#[derive(Debug, Args)]
struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Resume a replay whose process has died
    #[arg(long)]
    resume: bool,
    /// Addresses of the records: partition.offset
    #[arg(required = true)]
    letters: Vec<RecordAddress>,
}

/// Mark dead letters as dropped; their records stay in the log
#[derive(Debug, Args)]
struct DropArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Addresses of the records: partition.offset
    #[arg(required = true)]
    letters: Vec<RecordAddress>,
}

impl DeadLettersArgs {
    /// Configuration of the log and the store.
    pub fn config(&self) -> &ConfigArgs {
        match &self.action {
            Action::List(args) => &args.config,
            Action::Show(args) => &args.config,
            Action::Replay(args) => &args.config,
            Action::Drop(args) => &args.config,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum DeadLettersCommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Record(#[from] DeadLetterRecordError),
    #[error("there is no dead letter {0}")]
    Unknown(RecordAddress),
    #[error("{0}; some may have been dropped anyway")]
    Journal(#[from] JournalError),
}

/// Runs the subcommand on the log that `storage` configures, and prints the result.
pub async fn dead_letters_command(args: &DeadLettersArgs, storage: &StorageConfig) -> ExitCode {
    let done = match &args.action {
        Action::List(args) => list(args, storage).await,
        Action::Show(args) => show(args, storage).await,
        Action::Replay(args) => replay_all(args, storage).await,
        Action::Drop(args) => drop_all(&args.letters, storage).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            console::err(&format!("dead-letters: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

async fn list(args: &ListArgs, storage: &StorageConfig) -> Result<bool, DeadLettersCommandError> {
    let index = DeadLetterIndex::read(storage.open_dead_letter_journal()?.as_ref()).await?;
    let mut text = String::new();
    let shown = index.iter().filter(|(_, tracked)| args.all || is_undone(tracked.state));
    for (address, tracked) in shown.take(args.limit) {
        let _ = writeln!(text, "{}", line(address, tracked));
    }
    let count = |what: fn(DeadLetterState) -> bool| {
        index.iter().filter(|(_, tracked)| what(tracked.state)).count()
    };
    let _ = writeln!(
        text,
        "DEAD-LETTERS open={} replaying={} replayed={} dropped={} foreign={}",
        count(|state| state == DeadLetterState::Open),
        count(|state| matches!(state, DeadLetterState::Replaying { .. })),
        count(|state| matches!(state, DeadLetterState::Replayed(_))),
        count(|state| state == DeadLetterState::Dropped),
        index.foreign(),
    );
    console::out(&text);
    Ok(true)
}

fn is_undone(state: DeadLetterState) -> bool {
    matches!(state, DeadLetterState::Open | DeadLetterState::Replaying { .. })
}

fn line(address: RecordAddress, tracked: &TrackedDeadLetter) -> String {
    let meta = &tracked.meta;
    let at = i64::try_from(meta.appended_at_ms).ok();
    let at = at.and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    let state = match tracked.state {
        DeadLetterState::Open => "open".to_owned(),
        DeadLetterState::Replaying { .. } => "replaying".to_owned(),
        DeadLetterState::Replayed(copy) => format!("replayed as {copy}"),
        DeadLetterState::Dropped => "dropped".to_owned(),
        DeadLetterState::Unrecognized => "decided by a newer release".to_owned(),
    };
    let bytes = meta.key_bytes.saturating_add(meta.value_bytes);
    // The reason is untrusted: any producer to the topic may have chosen it.
    format!("{address}  {state}  {at:.3}  {bytes} bytes  {}", meta.reason.escape_debug())
}

async fn show(args: &ShowArgs, storage: &StorageConfig) -> Result<bool, DeadLettersCommandError> {
    let index = DeadLetterIndex::read(storage.open_dead_letter_journal()?.as_ref()).await?;
    let tracked = index.get(args.letter).ok_or(DeadLettersCommandError::Unknown(args.letter))?;
    let mut text = line(args.letter, tracked);
    text.push('\n');
    let store = storage.open_existing_store().await?.store;
    let current = active_log(store.as_ref(), &storage.first_log()).await?;
    if args.letter.log != current.number {
        let _ = writeln!(text, "the record is in a log that has been replaced since");
        console::out(&text);
        return Ok(true);
    }
    let log = storage.open(&current).await?;
    let DeadLetterRecord { key, value } =
        DeadLetterRecord::read(log.as_ref(), args.letter, &tracked.meta).await?;
    let shown = value.get(..MAX_PRINTED_BYTES).unwrap_or(&value);
    let _ = writeln!(text, "key    {}", hex::encode(&key));
    let _ = writeln!(text, "value  {}", hex::encode(shown));
    if shown.len() < value.len() {
        let _ = writeln!(text, "       and {} more bytes", value.len() - shown.len());
    }
    let _ = writeln!(text, "text   {}", String::from_utf8_lossy(shown).escape_debug());
    console::out(&text);
    Ok(true)
}

/// Opens the journal and the active log.
async fn open_dead_letter_log(
    storage: &StorageConfig,
    store: &dyn Store,
) -> Result<(DeadLetterLog, LogRef), DeadLettersCommandError> {
    let log = active_log(store, &storage.first_log()).await?;
    let journal = storage.open_dead_letter_journal()?;
    let dead_letters =
        DeadLetterLog { journal, number: log.number, log: storage.open(&log).await? };
    Ok((dead_letters, log))
}

async fn replay_all(
    args: &ReplayArgs,
    storage: &StorageConfig,
) -> Result<bool, DeadLettersCommandError> {
    let store = storage.open_existing_store().await?.store;
    let (dead_letters, log) = open_dead_letter_log(storage, store.as_ref()).await?;
    let deps = ReplayDeps { dead_letters, writer: storage.open_writer_of(&log).await?, store };
    let unfinished = if args.resume { UnfinishedReplay::Resume } else { UnfinishedReplay::Leave };
    let attempt = ReplayAttempt { id: Uuid::new_v4(), unfinished };
    let mut all = true;
    for address in &args.letters {
        // A producer that has just started may need longer than the delivery timeout of one attempt.
        match retry(async || replay(&deps, *address, attempt).await).await {
            Ok(copy) => console::out(&format!("{address}  replayed as {copy}\n")),
            Err(error) => {
                console::out(&format!("{address}  not replayed: {error}\n"));
                all = false;
            }
        }
    }
    Ok(all)
}

async fn drop_all(
    addresses: &[RecordAddress],
    storage: &StorageConfig,
) -> Result<bool, DeadLettersCommandError> {
    let store = storage.open_existing_store().await?.store;
    let (dead_letters, _) = open_dead_letter_log(storage, store.as_ref()).await?;
    let dropped = retry(async || drop_dead_letters(&dead_letters, addresses).await).await?;
    let mut all = true;
    for (address, dropped) in addresses.iter().zip(dropped) {
        match dropped {
            Ok(()) => console::out(&format!("{address}  dropped\n")),
            Err(kept) => {
                console::out(&format!("{address}  not dropped: {kept}\n"));
                all = false;
            }
        }
    }
    Ok(all)
}
