//! `allocator codes`: prints personal codes, and revokes some of them.

mod print;
mod revoke;
mod serials;

use std::io;

use clap::{Args, Subcommand};
use identity::MAX_SERIAL;
use runtime::config::ConfigArgs;
use schemas::{BudgetId, IdentityRule};
use storage::config::StorageConfig;
use storage::control::{ControlTopic, ControlTopicError, RevokeError};
use storage::open_error::OpenError;

use self::print::PrintArgs;
use self::revoke::RevokeArgs;
use self::serials::SerialsFault;

/// Print personal codes of a budget with the identity rule `code`, or revoke some
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct CodesArgs {
    #[command(subcommand)]
    command: Option<CodesCommand>,
    #[command(flatten)]
    print: PrintArgs,
}

#[derive(Debug, Subcommand)]
enum CodesCommand {
    Revoke(RevokeArgs),
}

/// Why codes cannot be printed or revoked.
#[derive(Debug, thiserror::Error)]
pub enum CodesError {
    /// The budget's id is not a slug.
    #[error("`--budget` {0}")]
    BudgetId(String),
    /// There is no such budget.
    #[error("there is no budget `{0}`")]
    NoSuchBudget(BudgetId),
    /// The budget knows its persons otherwise, so that its codes would be worth nothing.
    #[error("the budget `{0}` has another identity rule than `code`")]
    OtherRule(BudgetId),
    /// The serial numbers do not suffice.
    #[error("serial numbers end at {MAX_SERIAL}: choose a lower `--first` or `--count`")]
    TooMany,
    /// The serial numbers to revoke cannot be read.
    #[error(transparent)]
    Serials(#[from] SerialsFault),
    /// The secret or the definitions cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The definitions cannot be read.
    #[error(transparent)]
    Definitions(#[from] ControlTopicError),
    /// The codes were not revoked, or not all: revoking the same ones again continues.
    #[error("{0}; revoke the same serial numbers again to continue")]
    Revoke(#[from] RevokeError),
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl CodesArgs {
    /// Returns the arguments that name the configuration.
    pub fn config(&self) -> &ConfigArgs {
        match &self.command {
            Some(CodesCommand::Revoke(args)) => args.config(),
            None => self.print.config(),
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When the budget has no codes, or the secret or the control topic cannot be used.
    pub async fn run(&self, storage: &StorageConfig) -> Result<(), CodesError> {
        match &self.command {
            Some(CodesCommand::Revoke(args)) => args.run(storage).await,
            None => self.print.run(storage).await,
        }
    }
}

/// Parses `--budget`.
fn budget_id(text: &str) -> Result<BudgetId, CodesError> {
    BudgetId::parse(text).map_err(|fault| CodesError::BudgetId(fault.to_string()))
}

/// Requires that a budget has personal codes.
async fn require_codes(control: &ControlTopic, budget: &BudgetId) -> Result<(), CodesError> {
    let catalog = control.definitions.confirmed().await?;
    match catalog.get(budget.as_str()) {
        Some(found) if found.identity == IdentityRule::Code => Ok(()),
        Some(_) => Err(CodesError::OtherRule(budget.clone())),
        None => Err(CodesError::NoSuchBudget(budget.clone())),
    }
}
