//! The command: `processor repartition`.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress;
use schemas::{Building, PartitionCount};
use storage::config::StorageConfig;
use storage::definitions::until_loaded;
use storage::opening::OpenError;
use storage::store::StoreError;
use tokio_util::sync::CancellationToken;

use super::error::RepartitionError;
use super::give_up::{GivenUp, give_up, open_if_sealed};
use super::progress::{Done, Look, Repartitioned, Stage};
use super::run::{RepartitionParts, repartition};
use crate::generations::{ChangeError, check_configured};

/// What is counted in the new log differs.
const DIFFERENT: u8 = 1;
/// It was not done.
const NOT_DONE: u8 = 2;
/// What a shell reports for a process that was interrupted.
const INTERRUPTED: u8 = 130;
/// So long the definitions may take to be read.
const PATIENCE: Duration = Duration::from_secs(15);

/// Gives the deployment's log another number of partitions: a new topic, into which everything is copied and in which the
/// processors count everything anew, while submissions go on; then submissions wait for some seconds, both are compared, and
/// the new one takes the place of the old one.
///
/// It is done by this command, which has to run until it is done. If it fails, or is interrupted, everything stays as it was;
/// if it is killed, `--cancel` makes it so, and it can be begun again. Ends with 0 if it was done, 1 if what was counted
/// differed, 2 if it was not done. The old topic is kept, and takes no more records.
#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = false, args = ["partitions", "cancel"])]
pub struct RepartitionArgs {
    /// Where the log and the store are.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How many partitions the log is to have.
    #[arg(long)]
    pub partitions: Option<u64>,
    /// Gives up what a command has begun that was killed: the log takes submissions again.
    #[arg(long)]
    pub cancel: bool,
}

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Repartition(#[from] RepartitionError),
    #[error(
        "the log is embedded (log.kind = sqlite): it is one file, which one process writes, and more partitions would not make \
         it faster"
    )]
    Embedded,
    #[error("--partitions {0}")]
    Partitions(#[from] schemas::PartitionCountFault),
    #[error("{0}")]
    Wrong(String),
    #[error("the budgets' definitions cannot be read now: they did not come in {} s", PATIENCE.as_secs())]
    NoDefinitions,
    #[error("there is nothing to cancel: no repartition is on, and the log takes submissions")]
    NothingToCancel,
}

impl From<ChangeError> for CommandError {
    fn from(error: ChangeError) -> Self {
        Self::Repartition(error.into())
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::Repartition(error.into())
    }
}

/// Gives the log that `storage` configures another partition count, or gives that up, and prints what came of it.
pub async fn repartition_command(
    args: &RepartitionArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    let done = match args.partitions {
        None => cancel(storage).await,
        Some(partitions) => shown(partitions, storage, stop).await,
    };
    match done {
        Ok(text) => {
            console::out(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            console::err(&format!("repartition: {error}\n"));
            ExitCode::from(match error {
                CommandError::Repartition(RepartitionError::Different(_)) => DIFFERENT,
                CommandError::Repartition(RepartitionError::Interrupted) => INTERRUPTED,
                _ => NOT_DONE,
            })
        }
    }
}

async fn parts(storage: &StorageConfig) -> Result<RepartitionParts, CommandError> {
    let mover = storage.log_mover().ok_or(CommandError::Embedded)?;
    let store = storage.open_existing_store().await?.store;
    let roster = store.roster().await?.ok_or(ChangeError::NoRoster)?;
    let first_log = storage.first_log();
    check_configured(&roster.current, &first_log).map_err(CommandError::Wrong)?;
    let definitions = storage.open_definitions()?;
    let logs = Arc::new(storage.clone());
    Ok(RepartitionParts { store, logs, mover, definitions, first_log })
}

async fn shown(
    partitions: u64,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> Result<String, CommandError> {
    let partitions = PartitionCount::new(partitions)?;
    let parts = parts(storage).await?;
    // Nobody can be told where submissions go by a process that cannot read what everyone was told before.
    let loaded = tokio::time::timeout(PATIENCE, until_loaded(parts.definitions.as_ref())).await;
    loaded.map_err(|_| CommandError::NoDefinitions)?;
    let (seen, done) = (Mutex::new((0, 0, String::new())), CancellationToken::new());
    let shown = progress::show("repartitioning ", done.clone(), |_| {
        let (done, of, message) = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let so_far = format!("{done} of {of} records copied and counted");
        let line = if message.is_empty() { so_far } else { format!("{so_far}; {message}") };
        progress::Look { done, of, message, line }
    });
    let saw = |look: &Look| {
        let message = match look.stage {
            Stage::Copying => look.troubles.first().cloned().unwrap_or_default(),
            Stage::Sealed => "submissions wait".to_owned(),
        };
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = (look.done, look.of, message);
    };
    let moving = async {
        let moved = repartition(&parts, partitions, saw, stop).await;
        done.cancel();
        moved
    };
    let (moved, ()) = tokio::join!(moving, shown);
    Ok(text(&moved?))
}

async fn cancel(storage: &StorageConfig) -> Result<String, CommandError> {
    let parts = parts(storage).await?;
    let store = parts.store.as_ref();
    let roster = store.roster().await?.ok_or(ChangeError::NoRoster)?;
    let topic = &roster.current.log.topic;
    match &roster.building {
        Some(Building { record, .. }) if record.log != roster.current.log => {
            let generation = record.generation;
            Ok(match give_up(store, &parts.mover, generation).await? {
                GivenUp::GivenUp => {
                    format!(
                        "REPARTITION generation={generation} given up; submissions go to {topic}\n"
                    )
                }
                GivenUp::Answers => {
                    format!("REPARTITION generation={generation} answers already\n")
                }
            })
        }
        _ if open_if_sealed(store, &parts.mover, &roster).await? => {
            Ok(format!("REPARTITION submissions go to {topic} again\n"))
        }
        _ => Err(CommandError::NothingToCancel),
    }
}

fn text(moved: &Repartitioned) -> String {
    let Repartitioned { record, before, done, told } = moved;
    let done = match done {
        Some(Done { records, left_out, sealed }) => {
            format!(" records={records} left_out={left_out} sealed_ms={}", sealed.as_millis())
        }
        // Somebody else may have said so.
        None => String::new(),
    };
    let told = if *told { "" } else { "; the processors are telling so" };
    format!(
        "REPARTITION generation={} topic={} partitions={} before={}{done}: submissions go there now{told}\n",
        record.generation,
        record.log.topic,
        record.log.partitions.get(),
        before.topic,
    )
}
