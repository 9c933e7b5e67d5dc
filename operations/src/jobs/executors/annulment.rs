//! Annulling and restoring people as jobs.
//!
//! The effect is computed and stored before the first record, so that a later attempt does not mistake its own records
//! for earlier ones. A later attempt appends for everyone again, which changes nothing. Jobs of one budget exclude each
//! other: see `annulment_lock`.

use std::cmp::Ordering;
use std::sync::Arc;

use generations::registry::{
    FoldVersionError, FoldVersionGate, RegistryUpdateError, check_fold_version,
};
use runtime::clock::now_ms;
use schemas::job::{AnnulmentCheckpoint, Verdict};
use schemas::{
    ANNULMENT_FOLD_VERSION, AnnulmentAction, AnnulmentChange, AnnulmentEffect, AnnulmentEntry,
    AnnulmentId, AnnulmentRequest, AnnulmentState, Budget, BudgetId, PersonKey, PublishStep,
    Restoration,
};
use storage::control::{AnnulmentChangeError, ControlTopicError};

use super::annulment_lock::{LockedRegister, lock};
use super::{JobExecutorDeps, JobFailure, JobLease, JobOutcome, report_while};
use crate::annulment::{
    AnnulmentAppender, AppendFailed, EffectDeps, effect, people_annulled_by, select,
};
use crate::progress::Progress;

impl From<AnnulmentChangeError> for JobFailure {
    fn from(error: AnnulmentChangeError) -> Self {
        match error {
            AnnulmentChangeError::Unavailable(ControlTopicError::Unavailable(_)) => {
                Self::Transient(error.to_string())
            }
            AnnulmentChangeError::NotUnderstood
            | AnnulmentChangeError::Full(_)
            | AnnulmentChangeError::Unavailable(ControlTopicError::Refused(_)) => {
                Self::Permanent(error.to_string())
            }
        }
    }
}

impl From<FoldVersionError> for JobFailure {
    fn from(error: FoldVersionError) -> Self {
        match error {
            FoldVersionError::Registry(RegistryUpdateError::Store(error)) => error.into(),
            FoldVersionError::EarlierOwners { .. }
            | FoldVersionError::Registry(
                RegistryUpdateError::Unknown | RegistryUpdateError::NoRegistry,
            ) => Self::Transient(error.to_string()),
            FoldVersionError::Registry(
                RegistryUpdateError::Refused(_) | RegistryUpdateError::NotUnderstood(_),
            ) => Self::Permanent(error.to_string()),
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
    fold_version: &FoldVersionGate,
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
    if request.dry_run {
        let effect =
            stored_effect(deps, job, &request.budget, &people, AnnulmentAction::Annul).await?;
        return Ok(outcome("would annul", &effect));
    }
    match check_fold_version(deps.store.as_ref(), ANNULMENT_FOLD_VERSION).await {
        Err(error @ FoldVersionError::EarlierOwners { .. }) => {
            return Ok(refused(&error.to_string()));
        }
        checked => checked?,
    }
    let locked = lock(deps, job, &request.budget).await?;
    let annulled =
        annul_locked(deps, fold_version, job, request, &people, &definition, &locked).await;
    locked.unlock(deps, &request.budget).await;
    annulled
}

/// Annuls people, while no other job annuls or restores people of the budget.
async fn annul_locked(
    deps: &JobExecutorDeps,
    fold_version: &FoldVersionGate,
    job: &JobLease,
    request: &AnnulmentRequest,
    people: &[PersonKey],
    definition: &Budget,
    locked: &LockedRegister,
) -> Result<JobOutcome, JobFailure> {
    let AnnulmentRequest { id, ref budget, part, .. } = *request;
    // The checkpoint is stored once an attempt of this job was allowed to begin.
    let has_begun = job.has_checkpoint();
    let begin = begin(locked.register.get(id), request, has_begun);
    if let Begin::Refused(reason) = begin {
        return Ok(refused(reason));
    }
    let effect = stored_effect(deps, job, budget, people, AnnulmentAction::Annul).await?;
    if begin == Begin::IsDone {
        return Ok(outcome("annulled", &effect));
    }
    let begun = AnnulmentChange::Begin(entry(job, request));
    deps.annulments.change_annulments(budget, &begun).await?;
    let appender = appender(deps, definition, id, AnnulmentAction::Annul);
    append(deps, fold_version, job, &appender, people).await?;
    let done = AnnulmentChange::CompletePart {
        id,
        part,
        people: effect.selected,
        changed: effect.changed,
    };
    deps.annulments.change_annulments(budget, &done).await?;
    Ok(outcome("annulled", &effect))
}

/// Whether a job may annul people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// The job annuls its people, perhaps again.
    Allowed,
    /// The part is done.
    IsDone,
    Refused(&'static str),
}

/// Decides whether a job may begin, by the listed annulment that has the id of the request. `has_begun`: whether an
/// earlier attempt of the job was allowed to.
fn begin(listed: Option<&AnnulmentEntry>, request: &AnnulmentRequest, has_begun: bool) -> Begin {
    use AnnulmentState::{Cancelled, Done, Restored, Restoring, Running};
    let part = request.part.number;
    let Some(listed) = listed else {
        return if part == 0 { Begin::Allowed } else { Begin::Refused(EARLIER_PART) };
    };
    if listed.selection != (&request.selection).into() || listed.reason != request.reason {
        let reason = "this id is already used by an annulment of another selection or reason";
        return Begin::Refused(reason);
    }
    match listed.state {
        Restoring | Restored => Begin::Refused("the annulment has been restored"),
        Done if has_begun => Begin::IsDone,
        Done => Begin::Refused("this id is already used: the annulment is done"),
        Running | Cancelled => match part.cmp(&listed.parts) {
            Ordering::Less => Begin::IsDone,
            Ordering::Equal => Begin::Allowed,
            Ordering::Greater => Begin::Refused(EARLIER_PART),
        },
    }
}

const EARLIER_PART: &str = "an earlier part of the annulment is not done";

pub(super) async fn restore(
    deps: &JobExecutorDeps,
    fold_version: &FoldVersionGate,
    job: &JobLease,
    budget: &BudgetId,
    id: AnnulmentId,
    dry_run: bool,
) -> Result<JobOutcome, JobFailure> {
    let definition = deps.definition(budget)?;
    if dry_run {
        let (_, effect) = restorable(deps, job, budget, id).await?;
        return Ok(outcome("would restore", &effect));
    }
    let locked = lock(deps, job, budget).await?;
    let appender = appender(deps, &definition, id, AnnulmentAction::Restore);
    let restored = restore_locked(deps, fold_version, job, &appender).await;
    locked.unlock(deps, budget).await;
    restored
}

/// Restores people, while no other job annuls or restores people of the budget.
async fn restore_locked(
    deps: &JobExecutorDeps,
    fold_version: &FoldVersionGate,
    job: &JobLease,
    appender: &AnnulmentAppender,
) -> Result<JobOutcome, JobFailure> {
    let (budget, id) = (&appender.budget, appender.id);
    // From here on, no other part of the annulment begins.
    let begin = AnnulmentChange::BeginRestoration(id);
    deps.annulments.change_annulments(budget, &begin).await?;
    let (people, effect) = restorable(deps, job, budget, id).await?;
    append(deps, fold_version, job, appender, &people).await?;
    let restoration = Restoration {
        by: job.job().requested_by.clone(),
        at_ms: now_ms(),
        people: effect.selected,
    };
    let done = AnnulmentChange::CompleteRestoration(id, restoration);
    deps.annulments.change_annulments(budget, &done).await?;
    Ok(outcome("restored", &effect))
}

/// Searches the log for the people whom an annulment holds, and computes what restoring them changes.
async fn restorable(
    deps: &JobExecutorDeps,
    job: &JobLease,
    budget: &BudgetId,
    id: AnnulmentId,
) -> Result<(Vec<PersonKey>, AnnulmentEffect), JobFailure> {
    let log = deps.logs.open(&deps.active_log().await?).await?;
    let progress = Progress::default();
    let current = || {
        let (done, total) = progress.done_and_total();
        (done, total, format!("{done} of {total} records searched"))
    };
    let searching = people_annulled_by(log.as_ref(), budget, id, &progress);
    let people = report_while(job, current, searching).await?;
    let effect = stored_effect(deps, job, budget, &people, AnnulmentAction::Restore).await?;
    Ok((people, effect))
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
    fold_version: &FoldVersionGate,
    job: &JobLease,
    appender: &AnnulmentAppender,
    people: &[PersonKey],
) -> Result<(), JobFailure> {
    fold_version.require(deps.store.as_ref(), ANNULMENT_FOLD_VERSION).await?;
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
