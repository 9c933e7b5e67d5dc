//! `annulments restore`: restores the people of an annulment.

use clap::Args;
use generations::registry::active_log;
use operations::annulment::{EffectDeps, effect, people_annulled_by};
use operations::progress::Progress;
use runtime::config::ConfigArgs;
use runtime::console;
use runtime::progress::ProgressUpdate;
use schemas::job::JobKind;
use schemas::{AnnulmentAction, AnnulmentEffect, AnnulmentId, BudgetId};
use storage::config::{StorageConfig, StoreHandles};
use storage::log::LogReaderOpener;
use tokio_util::sync::CancellationToken;

use super::super::definition::definition;
use super::super::export::budget_id;
use super::super::progress_display::show_while;
use super::confirm::{Confirmation, confirm};
use super::effect_text::effect_text;
use super::part_jobs::run_job;
use super::{AnnulmentsCommandError, CommandEnd};

/// Restore the people of an annulment, after showing what that changes
///
/// People whom a later annulment has annulled stay annulled. Exit code: 0 done, 2 not done, 130 interrupted.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Id of the budget
    #[arg(long, value_name = "ID", value_parser = budget_id)]
    budget: BudgetId,
    /// Id of the annulment, also of one that is no longer listed
    id: AnnulmentId,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before restoring
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(
    args: &RestoreArgs,
    storage: &StorageConfig,
    stop: CancellationToken,
) -> Result<CommandEnd, AnnulmentsCommandError> {
    let stores = storage.open_existing_store().await?;
    let control = storage.open_control_topic()?;
    let budget = definition(&control, &args.budget).await?;
    let computing = effect_of(args, storage, &stores);
    let Some(effect) = stop.run_until_cancelled(computing).await.transpose()? else {
        return Ok(CommandEnd::Interrupted);
    };
    console::out(&effect_text(&effect, AnnulmentAction::Restore, &budget));
    if args.dry_run {
        return Ok(CommandEnd::Done);
    }
    let confirmation = if args.yes { Confirmation::Given } else { Confirmation::Ask };
    let question = format!("Restore {} people of `{}`?", effect.selected, budget.id);
    if !confirm(&question, confirmation)? {
        return Ok(CommandEnd::NotDone);
    }
    let kind =
        JobKind::RestoreAnnulment { budget: budget.id.clone(), annulment: args.id, dry_run: false };
    let ended = run_job("restoring ", stores.jobs.as_ref(), kind, &stop).await?;
    if ended == CommandEnd::Interrupted {
        console::err("annulments: interrupted; the job continues: `jobs list`\n");
    }
    Ok(ended)
}

/// Searches the log for the people, and computes what restoring them changes.
async fn effect_of(
    args: &RestoreArgs,
    storage: &StorageConfig,
    stores: &StoreHandles,
) -> Result<AnnulmentEffect, AnnulmentsCommandError> {
    let log = active_log(stores.store.as_ref(), &storage.first_log()).await?;
    let log = storage.open(&log).await?;
    let progress = Progress::default();
    let current = || {
        let (done, total) = progress.done_and_total();
        let line = format!("{done} of {total} records searched");
        ProgressUpdate { done, total, message: "records searched".to_owned(), line }
    };
    let searching = people_annulled_by(log.as_ref(), &args.budget, args.id, &progress);
    let people = show_while("searching ", current, searching).await?;
    let deps = EffectDeps { store: stores.store.clone() };
    let action = AnnulmentAction::Restore;
    Ok(effect(&deps, &args.budget, &people, action, &Progress::default()).await?)
}
