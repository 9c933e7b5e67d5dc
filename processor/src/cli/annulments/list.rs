//! `annulments list`: the annulments of a budget.

use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;
use runtime::config::ConfigArgs;
use runtime::console;
use schemas::job::Job;
use schemas::{AnnulmentEntry, AnnulmentState, BudgetId, SelectionSummary, SignalSpan};
use storage::config::StorageConfig;

use super::super::definition::definition;
use super::super::export::budget_id;
use super::{AnnulmentsCommandError, CommandEnd};

/// List the annulments of a budget, newest first
///
/// Each line has the id, the state, the time, the administrator, the people (and how many of them counted), the
/// selection and the reason. INTERRUPTED means that some of the people are annulled and others are not, and no job goes
/// on: resume with `annulments create --resume`, or restore.
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
    let jobs = jobs(storage).await;
    let stored = control.annulments.annulments(&budget.id).await?;
    let register = stored.register().ok_or(AnnulmentsCommandError::ListUnreadable)?;
    let mut text = String::new();
    for entry in register.entries().iter().rev() {
        let is_interrupted = jobs.as_ref().is_some_and(|jobs| entry.is_interrupted(jobs));
        let _ = writeln!(text, "{}", line(entry, is_interrupted));
    }
    let _ = writeln!(text, "ANNULMENTS {}", register.entries().len());
    console::out(&text);
    Ok(CommandEnd::Done)
}

/// Reads the jobs; `None` if they are unknown, which is said.
async fn jobs(storage: &StorageConfig) -> Option<Vec<Job>> {
    let jobs = match storage.open_existing_store().await {
        Ok(stores) => stores.jobs.jobs().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let unknown = |reason| {
        console::err(&format!("annulments: which ones are interrupted is unknown: {reason}\n"));
    };
    jobs.map_err(unknown).ok()
}

fn line(entry: &AnnulmentEntry, is_interrupted: bool) -> String {
    let AnnulmentEntry {
        id,
        by,
        begun_at_ms,
        selection,
        reason,
        state,
        people,
        changed,
        parts,
        ..
    } = entry;
    let selection = match selection {
        SelectionSummary::Persons => "named".to_owned(),
        SelectionSummary::Network { network, span } => {
            format!("network {network} {}", span_text(*span))
        }
        SelectionSummary::Ballot { ballot, span } => {
            format!("ballot {ballot} {}", span_text(*span))
        }
    };
    let (name, at) = (state.name(), time(*begun_at_ms));
    // Texts of administrators may have any characters.
    let (by, reason) = (by.as_str().escape_debug(), reason.as_str().escape_debug());
    let mut text =
        format!("{id}  {name:9}  {at}  {by}  {people} people ({changed})  {selection}  {reason}");
    if is_interrupted {
        let what = match state {
            AnnulmentState::Restoring => "restore it again".to_owned(),
            _ => format!("{parts} parts are done; resume or restore it"),
        };
        let _ = write!(text, "  INTERRUPTED: {what}");
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemas::{AnnulmentId, AnnulmentReason};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_interrupted_annulment_says_what_is_done_and_what_to_do() {
        let entry = AnnulmentEntry {
            id: AnnulmentId(Uuid::from_u128(7)),
            by: "anna".into(),
            begun_at_ms: 0,
            selection: SelectionSummary::Persons,
            reason: AnnulmentReason::parse("spam").unwrap(),
            state: AnnulmentState::Running,
            people: 400,
            changed: 390,
            parts: 2,
            restored: None,
        };
        let end = "  INTERRUPTED: 2 parts are done; resume or restore it";
        assert!(line(&entry, true).ends_with(end), "{}", line(&entry, true));
        assert!(line(&entry, false).ends_with("  400 people (390)  named  spam"));
        let restoring = AnnulmentEntry { state: AnnulmentState::Restoring, ..entry };
        assert!(line(&restoring, true).ends_with("  INTERRUPTED: restore it again"));
    }
}
