//! `annulments create`: annuls people, in parts of as many as a job may name.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use operations::annulment::{EffectDeps, effect, select};
use operations::progress::Progress;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress::ProgressUpdate;
use schemas::job::JobKind;
use schemas::{
    AnnulmentAction, AnnulmentEffect, AnnulmentId, AnnulmentPart, AnnulmentReason,
    AnnulmentRequest, AnnulmentSelection, AnnulmentState, BallotDigest, BudgetId, MAX_NAMED_PEOPLE,
    NetworkDigest, PersonKey, PersonKeys, SignalSpan,
};
use storage::config::StorageConfig;
use storage::signals::SignalReader;
use storage::store::Store;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::super::definition::definition;
use super::super::export::budget_id;
use super::super::progress_display::show_while;
use super::confirm::{Confirmation, confirm};
use super::effect_text::effect_text;
use super::part_jobs::run_job;
use super::{AnnulmentsCommandError, CommandEnd, persons_file};

/// Annul people of a budget, after showing what that changes
///
/// Exit code: 0 done, 2 not done, 130 interrupted: go on with --resume and the same selection and
/// reason.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("selection").required(true)))]
pub(super) struct CreateArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Id of the budget
    #[arg(long, value_name = "ID", value_parser = budget_id)]
    budget: BudgetId,
    /// File with the key of a person in hexadecimal in each line, `-` for standard input
    #[arg(long, value_name = "FILE", group = "selection")]
    persons: Option<PathBuf>,
    /// Whoever submitted from this network between --from and --until
    #[arg(long, value_name = "HEX", group = "selection", requires_all = ["from", "until"], value_parser = network)]
    network: Option<NetworkDigest>,
    /// Whoever submitted this allocation between --from and --until
    #[arg(long, value_name = "HEX", group = "selection", requires_all = ["from", "until"], value_parser = ballot)]
    ballot: Option<BallotDigest>,
    /// Beginning of the time span, such as 2026-11-30T14:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "persons")]
    from: Option<Timestamp>,
    /// End of the time span, which is outside
    #[arg(long, value_name = "TIME", conflicts_with = "persons")]
    until: Option<Timestamp>,
    /// Why, for the list of annulments
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: AnnulmentReason,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before annulling
    #[arg(long)]
    yes: bool,
    /// Go on with an annulment that was interrupted
    #[arg(long, value_name = "ID")]
    resume: Option<AnnulmentId>,
}

const DIGEST_DIGITS: &str = "must be 16 hexadecimal digits, as the signals show them";

fn network(text: &str) -> Result<NetworkDigest, &'static str> {
    NetworkDigest::parse(text).ok_or(DIGEST_DIGITS)
}

fn ballot(text: &str) -> Result<BallotDigest, &'static str> {
    BallotDigest::parse(text).ok_or(DIGEST_DIGITS)
}

fn reason(text: &str) -> Result<AnnulmentReason, String> {
    AnnulmentReason::parse(text).map_err(|fault| fault.to_string())
}

impl CreateArgs {
    /// Returns the selections, of as many people as a job may name each.
    fn selections(&self) -> Result<Vec<AnnulmentSelection>, AnnulmentsCommandError> {
        if let Some(path) = &self.persons {
            let people = persons_file::read(path)?;
            let part = |keys: &[PersonKey]| {
                let persons = PersonKeys::new(keys.to_vec())?;
                Ok(AnnulmentSelection::Persons { persons })
            };
            return people.chunks(MAX_NAMED_PEOPLE).map(part).collect();
        }
        let ms = |at: Option<Timestamp>| {
            let at = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
            at.ok_or(AnnulmentsCommandError::Time)
        };
        let span = SignalSpan::new(ms(self.from)?, ms(self.until)?)?;
        let by_network = self.network.map(|network| AnnulmentSelection::Network { network, span });
        let by_ballot = self.ballot.map(|ballot| AnnulmentSelection::Ballot { ballot, span });
        Ok(by_network.or(by_ballot).into_iter().collect())
    }

    fn confirmation(&self) -> Confirmation {
        if self.yes { Confirmation::Given } else { Confirmation::Ask }
    }
}

pub(super) async fn run(
    args: &CreateArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> Result<CommandEnd, AnnulmentsCommandError> {
    let selections = args.selections()?;
    let stores = storage.open_existing_store().await?;
    let control = storage.open_control_topic()?;
    let budget = definition(&control, &args.budget).await?;
    let mut first_part = 0;
    if let Some(id) = args.resume {
        let stored = control.annulments.annulments(&budget.id).await?;
        let register = stored.register().ok_or(AnnulmentsCommandError::ListUnreadable)?;
        let entry = register.get(id).ok_or(AnnulmentsCommandError::NothingToResume(id))?;
        first_part = entry.parts;
        let (done, of) = (first_part as usize, selections.len());
        if entry.state == AnnulmentState::Running && done >= of {
            return Err(AnnulmentsCommandError::FewerParts { done, of });
        }
        console::err(&format!("annulments: {done} of {of} parts of {id} are done\n"));
    }
    let signals = storage.signal_reader();
    let computing = effect_of(&selections, &budget.id, signals.as_ref(), stores.store);
    let Some(effect) = stop.run_until_cancelled(computing).await.transpose()? else {
        return Ok(CommandEnd::Interrupted);
    };
    console::out(&effect_text(&effect, AnnulmentAction::Annul, &budget));
    if args.dry_run {
        return Ok(CommandEnd::Done);
    }
    let question = format!("Annul {} people of `{}`?", effect.selected, budget.id);
    if !confirm(&question, args.confirmation())? {
        return Ok(CommandEnd::NotDone);
    }
    let id = args.resume.unwrap_or_else(|| AnnulmentId(Uuid::new_v4()));
    console::out(&format!("annulment {id}\n"));
    let parts = selections.len();
    for (number, selection) in (0..).zip(selections).skip(first_part as usize) {
        let part = AnnulmentPart { number, is_last: number as usize + 1 == parts };
        let request = AnnulmentRequest {
            id,
            budget: budget.id.clone(),
            selection,
            reason: args.reason.clone(),
            dry_run: false,
            part,
        };
        let kind = JobKind::Annul { annulment: Box::new(request) };
        let label = format!("part {} of {parts} ", number + 1);
        let ended = run_job(&label, stores.jobs.as_ref(), kind, &stop).await;
        if !matches!(ended, Ok(CommandEnd::Done)) {
            let resume = format!("go on with --resume {id} and the same selection and reason\n");
            console::err(&format!("annulments: not everyone is annulled: {resume}"));
            return ended;
        }
    }
    Ok(CommandEnd::Done)
}

/// Selects the people, and computes what annulling them changes.
async fn effect_of(
    selections: &[AnnulmentSelection],
    budget: &BudgetId,
    signals: &dyn SignalReader,
    store: Arc<dyn Store>,
) -> Result<AnnulmentEffect, AnnulmentsCommandError> {
    let mut people = Vec::new();
    for selection in selections {
        people.extend(select(signals, budget, selection).await?);
    }
    if people.is_empty() {
        return Err(AnnulmentsCommandError::Nobody);
    }
    let progress = Progress::default();
    let current = || {
        let (done, total) = progress.done_and_total();
        let line = format!("{done} of {total} people read");
        ProgressUpdate { done, total, message: "people read".to_owned(), line }
    };
    let deps = EffectDeps { store };
    let computing = effect(&deps, budget, &people, AnnulmentAction::Annul, &progress);
    Ok(show_while("reading ", current, computing).await?)
}
