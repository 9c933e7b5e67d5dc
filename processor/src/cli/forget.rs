//! `forget`: forgets the persons of a closed budget.

use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use runtime::config::ConfigArgs;
use runtime::console;
use schemas::BudgetId;
use storage::config::StorageConfig;
use storage::control::Erasure;
use storage::forget::{ForgetError, Forgotten, forget_persons};
use storage::open_error::OpenError;
use storage::signals::SignalErasure;

/// Forget the persons of a closed budget for ever; its totals and its log stay
///
/// Destroys the budget's secret: nobody can find the submission of a person again, and the budget cannot be reopened.
#[derive(Debug, Args)]
pub struct ForgetArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Budget whose persons are forgotten
    #[arg(long)]
    budget: String,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, thiserror::Error)]
enum ForgetCommandError {
    #[error("`--budget` {0}")]
    BudgetId(String),
    #[error("not confirmed; nothing was changed")]
    NotConfirmed,
    #[error("nobody can be asked for confirmation here: add `--yes`")]
    NoTerminal,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Forget(#[from] ForgetError),
}

/// Forgets the persons of a budget of the deployment that `storage` configures, and returns the exit code.
pub async fn forget_command(args: &ForgetArgs, storage: &StorageConfig) -> ExitCode {
    match forget(args, storage).await {
        Ok(text) => {
            console::out(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            console::err(&format!("forget: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

async fn forget(args: &ForgetArgs, storage: &StorageConfig) -> Result<String, ForgetCommandError> {
    let budget = BudgetId::parse(&args.budget)
        .map_err(|fault| ForgetCommandError::BudgetId(fault.to_string()))?;
    if !args.yes {
        confirm(&budget)?;
    }
    let store = storage.open_existing_store().await?.store;
    let control = storage.open_control_topic()?;
    let definitions = control.definitions.as_ref();
    let (signals, now) = (storage.signal_eraser(), Timestamp::now());
    let forgotten =
        forget_persons(definitions, store.as_ref(), signals.as_ref(), &budget, now).await?;
    Ok(report(&budget, forgotten))
}

fn confirm(budget: &BudgetId) -> Result<(), ForgetCommandError> {
    let mut stdin = io::stdin().lock();
    if !stdin.is_terminal() {
        return Err(ForgetCommandError::NoTerminal);
    }
    console::err(&format!(
        "Nobody will be able to find a person of `{budget}` again, and the budget cannot be reopened.\n\
         This cannot be undone. Type the budget's id to confirm: "
    ));
    let mut answer = String::new();
    match stdin.read_line(&mut answer) {
        Ok(_) if answer.trim() == budget.as_str() => Ok(()),
        _ => Err(ForgetCommandError::NotConfirmed),
    }
}

fn report(budget: &BudgetId, Forgotten { at, erasure, signals }: Forgotten) -> String {
    let mut text = format!("the persons of `{budget}` were forgotten at {at}\n");
    if erasure == Erasure::AwaitsCompaction {
        text += "Kafka keeps former definitions until it compacts the control topic: run this command again after \
                 `max.compaction.lag.ms` of that topic\n";
    }
    if signals == SignalErasure::AwaitsRetention {
        text += "Kafka keeps the signals of submissions, with keys of persons, for seven days: forgetting is complete \
                 seven days after the last submission\n";
    }
    text
}
