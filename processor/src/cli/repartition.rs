//! `repartition`: moves the deployment to a log with another partition count.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use parking_lot::Mutex;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress::ProgressUpdate;
use schemas::PartitionCount;
use storage::config::StorageConfig;
use storage::control::wait_until_loaded;
use storage::open_error::OpenError;
use storage::store::StoreError;
use tokio_util::sync::CancellationToken;

use super::progress_display::show_while;
use super::{EXIT_DIFFERENT, EXIT_FAILED, EXIT_INTERRUPTED};
use generations::registry::{RegistryUpdateError, check_configured_log};
use generations::repartition::{
    self, CancelOutcome, CutoverStats, RepartitionDeps, RepartitionError, RepartitionOutcome,
    RepartitionProgress, RepartitionStage,
};

/// How long to wait for the budget definitions.
const DEFINITIONS_TIMEOUT: Duration = Duration::from_secs(15);

/// Move to a topic with a different partition count
///
/// Copies every record to a new topic while submissions continue, lets the processors fold the copy as a shadow
/// generation, seals the old topic for a few seconds, compares both generations and switches. The command must run
/// until the end. If it fails or is interrupted, nothing changes; if it is killed, `--cancel` undoes it. Exit code: 0
/// done, 1 the generations differed, 2 failed. The old topic is kept and rejects records.
#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = false, args = ["partitions", "cancel"])]
pub struct RepartitionArgs {
    /// Configuration of the log and the store.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// New number of partitions
    #[arg(long)]
    pub partitions: Option<u64>,
    /// Undo a repartition whose command was killed; the log accepts submissions again
    #[arg(long)]
    pub cancel: bool,
}

#[derive(Debug, thiserror::Error)]
enum RepartitionCommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Repartition(#[from] RepartitionError),
    #[error(
        "the log is embedded (log.kind = sqlite): one file written by one process, which more partitions would not make \
         faster"
    )]
    Embedded,
    #[error("--partitions {0}")]
    Partitions(#[from] schemas::PartitionCountFault),
    #[error("{0}")]
    Wrong(String),
    #[error("the budget definitions could not be read within {} s", DEFINITIONS_TIMEOUT.as_secs())]
    NoDefinitions,
    #[error(
        "there is nothing to cancel: no repartition is running, and the log accepts submissions"
    )]
    NothingToCancel,
}

impl From<RegistryUpdateError> for RepartitionCommandError {
    fn from(error: RegistryUpdateError) -> Self {
        Self::Repartition(error.into())
    }
}

impl From<StoreError> for RepartitionCommandError {
    fn from(error: StoreError) -> Self {
        Self::Repartition(error.into())
    }
}

/// Repartitions the log that `storage` configures, or cancels a repartition, and prints the result.
pub async fn repartition_command(
    args: &RepartitionArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    let done = match args.partitions {
        None => cancel(storage).await,
        Some(partitions) => repartition_with_progress(partitions, storage, stop).await,
    };
    match done {
        Ok(text) => {
            console::out(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            console::err(&format!("repartition: {error}\n"));
            ExitCode::from(match error {
                RepartitionCommandError::Repartition(RepartitionError::Different(_)) => {
                    EXIT_DIFFERENT
                }
                RepartitionCommandError::Repartition(RepartitionError::Interrupted) => {
                    EXIT_INTERRUPTED
                }
                _ => EXIT_FAILED,
            })
        }
    }
}

async fn deps(storage: &StorageConfig) -> Result<RepartitionDeps, RepartitionCommandError> {
    let migrator = storage.topic_migrator().ok_or(RepartitionCommandError::Embedded)?;
    let store = storage.open_existing_store().await?.store;
    let registry = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
    let first_log = storage.first_log();
    check_configured_log(&registry.active, &first_log).map_err(RepartitionCommandError::Wrong)?;
    let active_log = storage.open_control_topic()?.active_log;
    let logs = Arc::new(storage.clone());
    Ok(RepartitionDeps { store, logs, migrator, active_log, first_log })
}

async fn repartition_with_progress(
    partitions: u64,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> Result<String, RepartitionCommandError> {
    let partitions = PartitionCount::new(partitions)?;
    let deps = deps(storage).await?;
    // The active log is announced in the control topic: an unreadable topic cannot be written safely.
    let loaded =
        tokio::time::timeout(DEFINITIONS_TIMEOUT, wait_until_loaded(deps.active_log.as_ref()))
            .await;
    loaded.map_err(|_| RepartitionCommandError::NoDefinitions)?;
    let latest = Mutex::new((0, 0, String::new()));
    let current = || {
        let (done, total, message) = latest.lock().clone();
        let so_far = format!("{done} of {total} records copied and folded");
        let line = if message.is_empty() { so_far } else { format!("{so_far}; {message}") };
        ProgressUpdate { done, total, message, line }
    };
    let on_progress = |progress: &RepartitionProgress| {
        let RepartitionProgress { stage, done, total, stall_reasons } = progress;
        let message = match stage {
            RepartitionStage::Copying => stall_reasons.first().cloned().unwrap_or_default(),
            RepartitionStage::Sealed => "submissions wait".to_owned(),
        };
        *latest.lock() = (*done, *total, message);
    };
    let repartitioning = repartition::repartition(&deps, partitions, on_progress, stop);
    Ok(text(&show_while("repartitioning ", current, repartitioning).await?))
}

async fn cancel(storage: &StorageConfig) -> Result<String, RepartitionCommandError> {
    match repartition::cancel(&deps(storage).await?).await? {
        CancelOutcome::Cancelled(generation, topic) => Ok(format!(
            "REPARTITION generation={generation} cancelled; submissions go to {topic}\n"
        )),
        CancelOutcome::AlreadyActive(generation) => {
            Ok(format!("REPARTITION generation={generation} is active already\n"))
        }
        CancelOutcome::Unsealed(topic) => {
            Ok(format!("REPARTITION submissions go to {topic} again\n"))
        }
        CancelOutcome::NothingToCancel => Err(RepartitionCommandError::NothingToCancel),
    }
}

fn text(outcome: &RepartitionOutcome) -> String {
    let RepartitionOutcome { record, before, cutover, announced } = outcome;
    let cutover = match cutover {
        Some(CutoverStats { records, left_out, sealed }) => {
            format!(" records={records} left_out={left_out} sealed_ms={}", sealed.as_millis())
        }
        // Another process may have announced the switch.
        None => String::new(),
    };
    let announced = if *announced { "" } else { "; the processors announce it" };
    format!(
        "REPARTITION generation={} topic={} partitions={} before={}{cutover}: submissions go there now{announced}\n",
        record.generation,
        record.log.topic,
        record.log.partitions.get(),
        before.topic,
    )
}
