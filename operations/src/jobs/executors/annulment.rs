//! Annulling and restoring people as jobs.
//!
//! The effect is computed and stored before the first record, so that a later attempt does not mistake its own records
//! for earlier ones. A later attempt appends for everyone again, which changes nothing.

use std::sync::Arc;

use generations::registry::{RegistryUpdateError, require_fold_version};
use runtime::clock::now_ms;
use schemas::job::{AnnulmentCheckpoint, Job, JobKind, Verdict};
use schemas::{
    ANNULMENT_FOLD_VERSION, AnnulmentAction, AnnulmentChange, AnnulmentEffect, AnnulmentEntry,
    AnnulmentId, AnnulmentRequest, AnnulmentState, Budget, BudgetId, PersonKey, PublishStep,
    Restoration,
};
use storage::control::{AnnulmentChangeError, DefinitionError};

use super::{JobExecutorDeps, JobFailure, JobLease, JobOutcome, report_while};
use crate::annulment::{
    AnnulmentAppender, AppendFailed, EffectDeps, effect, people_annulled_by, select,
};
use crate::progress::Progress;

impl From<AnnulmentChangeError> for JobFailure {
    fn from(error: AnnulmentChangeError) -> Self {
        match error {
            AnnulmentChangeError::Unavailable(DefinitionError::Unavailable(_)) => {
                Self::Transient(error.to_string())
            }
            AnnulmentChangeError::NotUnderstood
            | AnnulmentChangeError::Full(_)
            | AnnulmentChangeError::Unavailable(DefinitionError::Refused(_)) => {
                Self::Permanent(error.to_string())
            }
        }
    }
}

impl From<AppendFailed> for JobFailure {
    fn from(error: AppendFailed) -> Self {
        Self::Transient(error.to_string())
    }
}

pub(super) async fn annul(
    deps: &JobExecutorDeps,
    job: &JobLease,
    request: &AnnulmentRequest,
) -> Result<JobOutcome, JobFailure> {
    let definition = deps.definition(&request.budget)?;
    if !definition.frozen {
        return Ok(refused("the budget has no submissions"));
    }
    let people = select(deps.signals.as_ref(), &request.budget, &request.selection).await?;
    if people.is_empty() {
        return Ok(refused("nobody is selected"));
    }
    let action = AnnulmentAction::Annul;
    let effect = stored_effect(deps, job, &request.budget, &people, action).await?;
    if request.dry_run {
        return Ok(outcome("would annul", &effect));
    }
    let AnnulmentRequest { id, ref budget, part, .. } = *request;
    let begun = AnnulmentChange::Begin(entry(job, request));
    let register = deps.annulments.change_annulments(budget, &begun).await?;
    match register.get(id).map(|entry| (entry.state, entry.parts)) {
        Some((AnnulmentState::Running, parts)) if parts < part.number => {
            return Ok(refused("an earlier part of the annulment is not done"));
        }
        Some((AnnulmentState::Running, parts)) if parts == part.number => {}
        Some((AnnulmentState::Running | AnnulmentState::Done, _)) => {
            return Ok(outcome("annulled", &effect));
        }
        Some((
            AnnulmentState::Restoring | AnnulmentState::Restored | AnnulmentState::Cancelled,
            _,
        ))
        | None => return Ok(refused("the annulment has been restored")),
    }
    let appender = appender(deps, &definition, id, action);
    append(deps, job, &appender, &people).await?;
    let done = AnnulmentChange::CompletePart {
        id,
        part,
        people: effect.selected,
        changed: effect.changed,
    };
    deps.annulments.change_annulments(budget, &done).await?;
    Ok(outcome("annulled", &effect))
}

pub(super) async fn restore(
    deps: &JobExecutorDeps,
    job: &JobLease,
    budget: &BudgetId,
    id: AnnulmentId,
    dry_run: bool,
) -> Result<JobOutcome, JobFailure> {
    let definition = deps.definition(budget)?;
    if !dry_run {
        // From here on, no other part of the annulment begins.
        let begin = AnnulmentChange::BeginRestoration(id);
        deps.annulments.change_annulments(budget, &begin).await?;
        let annuls = |job: &Job| match &job.kind {
            JobKind::Annul { annulment } => annulment.id == id && !annulment.dry_run,
            _ => false,
        };
        if job.other_open_jobs().await?.iter().any(annuls) {
            let reason = "a job of the annulment has not ended: wait for it, or cancel it";
            return Err(JobFailure::Transient(reason.to_owned()));
        }
    }
    let log = deps.logs.open(&deps.active_log().await?).await?;
    let progress = Progress::default();
    let current = || {
        let (done, total) = progress.done_and_total();
        (done, total, format!("{done} of {total} records searched"))
    };
    let searching = people_annulled_by(log.as_ref(), budget, id, &progress);
    let people = report_while(job, current, searching).await?;
    let action = AnnulmentAction::Restore;
    let effect = stored_effect(deps, job, budget, &people, action).await?;
    if dry_run {
        return Ok(outcome("would restore", &effect));
    }
    append(deps, job, &appender(deps, &definition, id, action), &people).await?;
    let restoration = Restoration {
        by: job.job().requested_by.clone(),
        at_ms: now_ms(),
        people: effect.selected,
    };
    let done = AnnulmentChange::CompleteRestoration(id, restoration);
    deps.annulments.change_annulments(budget, &done).await?;
    Ok(outcome("restored", &effect))
}

/// Records that an annulment ends before all people are annulled. Those who are stay so until they are restored.
pub(super) async fn cancel(
    deps: &JobExecutorDeps,
    request: &AnnulmentRequest,
) -> Result<Option<JobOutcome>, JobFailure> {
    if !request.dry_run {
        let cancel = AnnulmentChange::Cancel(request.id);
        deps.annulments.change_annulments(&request.budget, &cancel).await?;
    }
    Ok(None)
}

fn entry(job: &JobLease, request: &AnnulmentRequest) -> AnnulmentEntry {
    AnnulmentEntry {
        id: request.id,
        by: job.job().requested_by.clone(),
        begun_at_ms: now_ms(),
        selection: (&request.selection).into(),
        reason: request.reason.clone(),
        state: AnnulmentState::Running,
        people: 0,
        changed: 0,
        parts: 0,
        restored: None,
    }
}

/// Returns the effect that an earlier attempt stored, or computes and stores it.
async fn stored_effect(
    deps: &JobExecutorDeps,
    job: &JobLease,
    budget: &BudgetId,
    people: &[PersonKey],
    action: AnnulmentAction,
) -> Result<AnnulmentEffect, JobFailure> {
    if let Some(AnnulmentCheckpoint { effect }) = job.checkpoint()? {
        return Ok(effect);
    }
    let progress = Progress::default();
    let current = || {
        let (done, total) = progress.done_and_total();
        (done, total, format!("{done} of {total} people read"))
    };
    let effect_deps = EffectDeps { store: Arc::clone(&deps.store) };
    let computing = effect(&effect_deps, budget, people, action, &progress);
    let effect = report_while(job, current, computing).await?;
    job.save(&AnnulmentCheckpoint { effect: effect.clone() }).await?;
    Ok(effect)
}

fn appender(
    deps: &JobExecutorDeps,
    definition: &Budget,
    id: AnnulmentId,
    action: AnnulmentAction,
) -> AnnulmentAppender {
    AnnulmentAppender {
        writer: Arc::clone(&deps.writer),
        budget: definition.id.clone(),
        id,
        action,
        publish_step: PublishStep::nearest(definition.publish_step),
        now_ms,
    }
}

/// Appends the records, once every processor is one that folds them.
async fn append(
    deps: &JobExecutorDeps,
    job: &JobLease,
    appender: &AnnulmentAppender,
    people: &[PersonKey],
) -> Result<(), JobFailure> {
    let required = require_fold_version(deps.store.as_ref(), ANNULMENT_FOLD_VERSION).await;
    required.map_err(|error| match error {
        RegistryUpdateError::Store(error) => error.into(),
        RegistryUpdateError::Unknown | RegistryUpdateError::NoRegistry => {
            JobFailure::Transient(error.to_string())
        }
        RegistryUpdateError::Refused(_) | RegistryUpdateError::NotUnderstood(_) => {
            JobFailure::Permanent(error.to_string())
        }
    })?;
    // A stalled worker may have lost the job.
    job.heartbeat_unless_cancelling().await?;
    let progress = Progress::default();
    let current = || {
        let (done, total) = progress.done_and_total();
        (done, total, format!("{done} of {total} records appended"))
    };
    Ok(report_while(job, current, appender.append(people, &progress)).await?)
}

/// A refusal is an answer to the operator. No retry changes it, so the job is not dead.
fn refused(reason: &str) -> JobOutcome {
    JobOutcome { verdict: Verdict::Incomplete, result: format!("refused: {reason}").into() }
}

fn outcome(verb: &str, effect: &AnnulmentEffect) -> JobOutcome {
    JobOutcome { verdict: Verdict::Clean, result: format!("{verb} {effect}").into() }
}
