//! `annulments`: annuls people of a budget, restores them, and lists annulments.
//!
//! The command computes by itself what would change. Jobs, which the processors run, append the records: the embedded
//! log has one writer, and a processor's writer follows a repartition.
//!
//! | file | owns |
//! |---|---|
//! | `create` | annulling: selection, parts of bounded size, resuming |
//! | `restore` | restoring |
//! | `list` | the list of annulments |
//! | `persons_file` | reading person keys from a file |
//! | `effect_text` | what changes, as a table |
//! | `confirm` | asking the operator |
//! | `part_jobs` | submitting and watching the jobs |

mod confirm;
mod create;
mod effect_text;
mod list;
mod part_jobs;
mod persons_file;
mod restore;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use operations::BackendError;
use runtime::config::ConfigArgs;
use runtime::console;
use schemas::{AnnulmentId, PersonKeysFault, SignalSpanFault};
use storage::config::StorageConfig;
use storage::control::ControlTopicError;
use storage::jobs::JobUpdateError;
use storage::log::ReadError;
use storage::open_error::OpenError;
use storage::store::StoreError;
use tokio_util::sync::CancellationToken;

use super::definition::DefinitionMissing;
use super::job_watch::WatchError;
use super::{EXIT_FAILED, EXIT_INTERRUPTED};
use create::CreateArgs;
use list::ListArgs;
use persons_file::PersonsFileFault;
use restore::RestoreArgs;

/// Annul people of a budget so that they do not count, restore them, or list annulments
#[derive(Debug, Args)]
pub struct AnnulmentsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(ListArgs),
    Create(Box<CreateArgs>),
    Restore(RestoreArgs),
}

impl AnnulmentsArgs {
    /// Configuration of the log and the store.
    pub fn config(&self) -> &ConfigArgs {
        match &self.action {
            Action::List(args) => &args.config,
            Action::Create(args) => &args.config,
            Action::Restore(args) => &args.config,
        }
    }
}

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommandEnd {
    Done,
    /// The operator declined, or a job was refused or has ended otherwise than done.
    NotDone,
    Interrupted,
}

#[derive(Debug, thiserror::Error)]
enum AnnulmentsCommandError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Definitions(#[from] ControlTopicError),
    #[error(transparent)]
    Change(#[from] JobUpdateError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    PersonsFile(#[from] PersonsFileFault),
    #[error(transparent)]
    Persons(#[from] PersonKeysFault),
    #[error("--until {0} of --from")]
    Span(#[from] SignalSpanFault),
    #[error("--from and --until are from 1970 on")]
    Time,
    #[error(transparent)]
    Definition(#[from] DefinitionMissing),
    #[error("the list of annulments is damaged, or a newer release wrote it: use that release")]
    ListUnreadable,
    #[error("there is no annulment {0} to resume")]
    NothingToResume(AnnulmentId),
    #[error(
        "{done} parts of the annulment are done, and the selection has {of}: resume it with the same selection and reason"
    )]
    FewerParts { done: usize, of: usize },
    #[error("nobody is selected")]
    Nobody,
    #[error("not a terminal: add --yes to change the results without being asked")]
    NoTerminal,
}

/// Runs the subcommand on the deployment that `storage` configures, until `stop` is cancelled.
pub async fn annulments_command(
    args: &AnnulmentsArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> ExitCode {
    let ended = match &args.action {
        Action::List(args) => list::run(args, storage).await,
        // Boxed: the compiler cannot compute the layout of futures nested this deep.
        Action::Create(args) => Box::pin(create::run(args, storage, stop)).await,
        Action::Restore(args) => Box::pin(restore::run(args, storage, stop)).await,
    };
    match ended {
        Ok(CommandEnd::Done) => ExitCode::SUCCESS,
        Ok(CommandEnd::NotDone) => ExitCode::from(EXIT_FAILED),
        Ok(CommandEnd::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => {
            console::err(&format!("annulments: {error}\n"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}
