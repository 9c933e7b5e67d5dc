//! The command: `processor dead-letters`, `allocator dead-letters`.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use runtime::config::ConfigArgs;
use runtime::console;
use schemas::{LogRef, Receipt};
use storage::config::StorageConfig;
use storage::log::letters::{Letter, LetterRecord, LetterRecordError, LetterState, Letters};
use storage::log::{LogReaders, ReadError};
use storage::opening::OpenError;
use storage::store::Store;
use uuid::Uuid;

use super::{Attempt, BookError, LetterLog, ReplayParts, Unfinished, discard, replay};
use crate::again::again;
use crate::generations::current_log;

/// Bytes of a value that are shown.
const SHOWN_BYTES: usize = 4_096;

/// Looks at records that could not be taken, and decides what becomes of them.
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

/// One line for each letter: where its record stands (partition.offset), what has become of it, when it was put away,
/// how large it is, and why it could not be taken.
#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Those as well about which something was decided.
    #[arg(long)]
    all: bool,
    /// How many at most.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

/// Everything about one letter, its bytes included.
#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where its record stands: partition.offset.
    letter: Receipt,
}

/// Appends the records of letters once more, each once, to where they belong: after a release that can take them, or
/// when they had been written to a wrong partition.
#[derive(Debug, Args)]
struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Goes on with what somebody has begun who is at it no more.
    #[arg(long)]
    resume: bool,
    /// Where their records stand: partition.offset.
    #[arg(required = true)]
    letters: Vec<Receipt>,
}

/// Says that there is nothing to do about letters. Their records stay where they are.
#[derive(Debug, Args)]
struct DropArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where their records stand: partition.offset.
    #[arg(required = true)]
    letters: Vec<Receipt>,
}

impl DeadLettersArgs {
    /// Where the log and the store are.
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
enum CommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Record(#[from] LetterRecordError),
    #[error("there is no dead letter {0}")]
    Unknown(Receipt),
    #[error("{0}; some may be dropped all the same")]
    Book(#[from] BookError),
}

/// Does what was asked for on the log that `storage` configures, and prints what came of it.
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

async fn list(args: &ListArgs, storage: &StorageConfig) -> Result<bool, CommandError> {
    let letters = Letters::read(storage.open_letter_book()?.as_ref()).await?;
    let mut text = String::new();
    let wanted = letters.iter().filter(|(_, letter)| args.all || is_undone(letter.state));
    for (place, letter) in wanted.take(args.limit) {
        let _ = writeln!(text, "{}", line(place, letter));
    }
    let count = |what: fn(LetterState) -> bool| {
        letters.iter().filter(|(_, letter)| what(letter.state)).count()
    };
    let _ = writeln!(
        text,
        "DEAD-LETTERS open={} replaying={} replayed={} dropped={} foreign={}",
        count(|state| state == LetterState::Open),
        count(|state| matches!(state, LetterState::Replaying { .. })),
        count(|state| matches!(state, LetterState::Replayed(_))),
        count(|state| state == LetterState::Dropped),
        letters.foreign(),
    );
    console::out(&text);
    Ok(true)
}

fn is_undone(state: LetterState) -> bool {
    matches!(state, LetterState::Open | LetterState::Replaying { .. })
}

fn line(place: Receipt, letter: &Letter) -> String {
    let put_away = &letter.put_away;
    let at = i64::try_from(put_away.put_at_ms).ok();
    let at = at.and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    let state = match letter.state {
        LetterState::Open => "open".to_owned(),
        LetterState::Replaying { .. } => "replaying".to_owned(),
        LetterState::Replayed(place) => format!("replayed as {place}"),
        LetterState::Dropped => "dropped".to_owned(),
    };
    let bytes = put_away.key_bytes.saturating_add(put_away.value_bytes);
    // Whoever may write to the topic may have chosen it.
    format!("{place}  {state}  {at:.3}  {bytes} bytes  {}", put_away.reason.escape_debug())
}

async fn show(args: &ShowArgs, storage: &StorageConfig) -> Result<bool, CommandError> {
    let letters = Letters::read(storage.open_letter_book()?.as_ref()).await?;
    let letter = letters.get(args.letter).ok_or(CommandError::Unknown(args.letter))?;
    let mut text = line(args.letter, letter);
    text.push('\n');
    let store = storage.open_existing_store().await?.store;
    let current = current_log(store.as_ref(), &storage.first_log()).await?;
    if args.letter.log != current.number {
        let _ = writeln!(text, "its record is in a log that has been replaced since");
        console::out(&text);
        return Ok(true);
    }
    let log = storage.open(&current).await?;
    let LetterRecord { key, value } =
        LetterRecord::read(log.as_ref(), args.letter, &letter.put_away).await?;
    let shown = value.get(..SHOWN_BYTES).unwrap_or(&value);
    let _ = writeln!(text, "key    {}", hex(&key));
    let _ = writeln!(text, "value  {}", hex(shown));
    if shown.len() < value.len() {
        let _ = writeln!(text, "       and {} more bytes", value.len() - shown.len());
    }
    let _ = writeln!(text, "text   {}", String::from_utf8_lossy(shown).escape_debug());
    console::out(&text);
    Ok(true)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Where the letters are, and which log it is.
async fn letter_log(
    storage: &StorageConfig,
    store: &dyn Store,
) -> Result<(LetterLog, LogRef), CommandError> {
    let log = current_log(store, &storage.first_log()).await?;
    let book = storage.open_letter_book()?;
    let at = LetterLog { book, number: log.number, log: storage.open(&log).await? };
    Ok((at, log))
}

async fn replay_all(args: &ReplayArgs, storage: &StorageConfig) -> Result<bool, CommandError> {
    let store = storage.open_existing_store().await?.store;
    let (at, log) = letter_log(storage, store.as_ref()).await?;
    let parts = ReplayParts { at, writer: storage.open_writer_of(&log).await?, store };
    let unfinished = if args.resume { Unfinished::Resume } else { Unfinished::Leave };
    let attempt = Attempt { id: Uuid::new_v4(), unfinished };
    let mut all = true;
    for letter in &args.letters {
        // A producer that has just started may take longer than somebody waits who asks by HTTP.
        match again(async || replay(&parts, *letter, attempt).await).await {
            Ok(place) => console::out(&format!("{letter}  replayed as {place}\n")),
            Err(error) => {
                console::out(&format!("{letter}  not replayed: {error}\n"));
                all = false;
            }
        }
    }
    Ok(all)
}

async fn drop_all(letters: &[Receipt], storage: &StorageConfig) -> Result<bool, CommandError> {
    let store = storage.open_existing_store().await?.store;
    let (at, _) = letter_log(storage, store.as_ref()).await?;
    let dropped = again(async || discard(&at, letters).await).await?;
    let mut all = true;
    for (letter, dropped) in letters.iter().zip(dropped) {
        match dropped {
            Ok(()) => console::out(&format!("{letter}  dropped\n")),
            Err(kept) => {
                console::out(&format!("{letter}  not dropped: {kept}\n"));
                all = false;
            }
        }
    }
    Ok(all)
}
