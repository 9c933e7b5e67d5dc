//! `annulments list`: the annulments of a budget.

use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;
use runtime::config::ConfigArgs;
use runtime::console;
use schemas::{AnnulmentEntry, BudgetId, SelectionSummary, SignalSpan};
use storage::config::StorageConfig;

use super::super::definition::definition;
use super::super::export::budget_id;
use super::{AnnulmentsCommandError, CommandEnd};

/// List the annulments of a budget, newest first
///
/// Each line has the id, the state, the time, the administrator, the people (and how many of them counted), the
/// selection and the reason.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Id of the budget
    #[arg(long, value_name = "ID", value_parser = budget_id)]
    budget: BudgetId,
}

pub(super) async fn run(
    args: &ListArgs,
    storage: &StorageConfig,
) -> Result<CommandEnd, AnnulmentsCommandError> {
    let control = storage.open_control_topic()?;
    let budget = definition(&control, &args.budget).await?;
    let stored = control.annulments.annulments(&budget.id).await?;
    let register = stored.register().ok_or(AnnulmentsCommandError::ListUnreadable)?;
    let mut text = String::new();
    for entry in register.entries().iter().rev() {
        let _ = writeln!(text, "{}", line(entry));
    }
    let _ = writeln!(text, "ANNULMENTS {}", register.entries().len());
    console::out(&text);
    Ok(CommandEnd::Done)
}

fn line(entry: &AnnulmentEntry) -> String {
    let AnnulmentEntry { id, by, begun_at_ms, selection, reason, state, people, changed, .. } =
        entry;
    let selection = match selection {
        SelectionSummary::Persons => "named".to_owned(),
        SelectionSummary::Network { network, span } => {
            format!("network {network} {}", span_text(*span))
        }
        SelectionSummary::Ballot { ballot, span } => {
            format!("ballot {ballot} {}", span_text(*span))
        }
    };
    let (state, at) = (state.name(), time(*begun_at_ms));
    // Texts of administrators may have any characters.
    let (by, reason) = (by.as_str().escape_debug(), reason.as_str().escape_debug());
    let mut text =
        format!("{id}  {state:9}  {at}  {by}  {people} people ({changed})  {selection}  {reason}");
    if let Some(restored) = &entry.restored {
        let (by, at) = (restored.by.as_str().escape_debug(), time(restored.at_ms));
        let _ = write!(text, "  restored {} by {by} at {at}", restored.people);
    }
    text
}

fn span_text(span: SignalSpan) -> String {
    format!("{} to {}", time(span.from_ms()), time(span.until_ms()))
}

fn time(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map(|at| format!("{at:.3}")).unwrap_or_default()
}
