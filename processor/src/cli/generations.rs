//! `generations`: lists generations, rolls back, retires and cancels.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use runtime::clock::now_ms;
use runtime::config::ConfigArgs;
use runtime::console;
use schemas::{Building, GenerationRecord, GenerationRegistry};
use storage::config::StorageConfig;
use storage::open_error::OpenError;
use storage::store::{PartitionRef, Store, StoreError};

use generations::rebuild::reasons_not_ready;
use generations::registry::{
    RegistryUpdateError, cancel, delete_retired, retire, roll_back, update_registry,
};

/// List generations, or change which one is active
#[derive(Debug, Args)]
pub struct GenerationsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all generations and their progress
    List(ConfigArgs),
    Rollback(RollbackArgs),
    /// Discard the previous generation and delete its rows
    Retire(ConfigArgs),
    /// Discard the generation being built and delete its rows
    Cancel(ConfigArgs),
}

/// Make the previous generation active again, if it is ready
#[derive(Debug, Args)]
struct RollbackArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Switch even if it lags or has stalled; until it catches up, readers keep seeing the last totals
    #[arg(long)]
    anyway: bool,
}

impl GenerationsArgs {
    /// Configuration of the log and the store.
    pub fn config(&self) -> &ConfigArgs {
        match &self.action {
            Action::Rollback(args) => &args.config,
            Action::List(config) | Action::Retire(config) | Action::Cancel(config) => config,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum GenerationsCommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Update(#[from] RegistryUpdateError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no generation is being built")]
    NotBuilding,
    #[error(
        "there is no previous generation: it was retired, never existed, or derives from the log before the last \
         repartition, which lacks every later record"
    )]
    NoPrevious,
    #[error("the previous generation is not ready: {0}; `--anyway` switches regardless")]
    NotReady(String),
}

/// Runs the subcommand on the generations that `storage` configures, and prints the resulting list.
pub async fn generations_command(args: &GenerationsArgs, storage: &StorageConfig) -> ExitCode {
    let done = async {
        let store = storage.open_existing_store().await?.store;
        let store = store.as_ref();
        let before = store.registry().await?.ok_or(RegistryUpdateError::NoRegistry)?;
        let registry = match &args.action {
            Action::List(_) => before,
            Action::Rollback(args) => {
                let previous = before.previous.ok_or(GenerationsCommandError::NoPrevious)?;
                if !args.anyway {
                    require_ready(store, &previous).await?;
                }
                update_registry(store, |registry| roll_back(registry, previous.generation)).await?
            }
            Action::Retire(_) => {
                match &before.previous {
                    Some(GenerationRecord { generation, .. }) => {
                        update_registry(store, |registry| retire(registry, *generation)).await?;
                    }
                    None => require_rows_to_delete(&before, GenerationsCommandError::NoPrevious)?,
                }
                delete_retired(store).await?
            }
            Action::Cancel(_) => {
                match &before.building {
                    Some(Building { record, .. }) => {
                        update_registry(store, |registry| cancel(registry, record.generation))
                            .await?;
                    }
                    None => require_rows_to_delete(&before, GenerationsCommandError::NotBuilding)?,
                }
                delete_retired(store).await?
            }
        };
        list(store, &registry).await
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

/// Allows a command to resume an interrupted deletion of retired rows.
fn require_rows_to_delete(
    registry: &GenerationRegistry,
    otherwise: GenerationsCommandError,
) -> Result<(), GenerationsCommandError> {
    if registry.retired.is_empty() { Err(otherwise) } else { Ok(()) }
}

async fn require_ready(
    store: &dyn Store,
    previous: &GenerationRecord,
) -> Result<(), GenerationsCommandError> {
    let reports = store.reports(previous.generation, previous.log.partitions).await?;
    let reasons = reasons_not_ready(&reports, now_ms());
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(GenerationsCommandError::NotReady(reasons.join("; ")))
    }
}

async fn list(
    store: &dyn Store,
    registry: &GenerationRegistry,
) -> Result<String, GenerationsCommandError> {
    let mut text = String::new();
    let building = registry.building.as_ref();
    let status = building.map_or("", |it| if it.dry_run { "dry run" } else { "building" });
    let all = std::iter::once((&registry.active, "answers"))
        .chain(building.map(|building| (&building.record, status)))
        .chain(registry.previous.as_ref().map(|record| (record, "previous")))
        .chain(registry.retired.iter().map(|record| (record, "retired, rows not yet deleted")));
    for (record, status) in all {
        let records = committed(store, record).await?;
        let GenerationRecord { generation, log, .. } = record;
        let _ = writeln!(
            text,
            "generation {generation}  {status}  topic {}, {} partitions, {records} records folded",
            log.topic,
            log.partitions.get()
        );
    }
    let _ =
        writeln!(text, "GENERATIONS term={} answers={}", registry.term, registry.active.generation);
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
