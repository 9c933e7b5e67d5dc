//! Appends validated submissions to the log, at most once per submission id.
//!
//! Recent ids are looked up in memory and Redis. An older id is recognised by the log itself where it can be (the
//! embedded log), and by the fold otherwise.
//!
//! The decisions that need no I/O are in [`plan`]; this module does the calls in order: look the ids up, refuse new
//! people of full budgets ([`cap`]), freeze the budget's rules before its first record ([`freeze`]), append, confirm that
//! the budget was not closed meanwhile ([`fences`]), store the receipts, queue the signals.
//!
//! An id is in flight for as long as the steps may take that its attempt needs, so that the retry of a client whose ingest
//! was killed waits no longer than that.

mod cap;
mod fences;
mod freeze;
mod permits;
mod plan;

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::{Budget, RecordAddress, RecordEncoder, RecordStamp};
use storage::control::{BudgetDefinitions, ControlTopicError};
use storage::idempotency::{AttemptOutcome, BeginOutcome, Idempotency, IdempotentSubmission};
use storage::log::{AppendError, LogWriter, NewRecord};

use crate::budget_freezer::BudgetFreezer;
use crate::detach_on_drop::detach_on_drop;
use crate::metrics::IngestMetrics;
use crate::pending::{AppendOutcome, PendingSubmission};
use crate::people_cap::{self, PeopleCap};
use crate::signals::SignalSender;
use fences::Fences;
use permits::{AppendLimits, AppendPermits};
use plan::{Plan, Step};

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppendRefused {
    /// Too many records wait for the log, or for the control topic.
    TooManyInFlight,
    /// The budget's rules could not be frozen.
    NotFrozen(ControlTopicError),
    /// It could not be confirmed that the definition which withdrawals were checked against is still in force.
    NotConfirmed(ControlTopicError),
    /// The submissions were checked against another definition than this one, which is in force.
    DefinitionChanged(Arc<Budget>),
}

/// Appends submissions and remembers the receipts of client-supplied ids.
pub(crate) struct SubmissionAppender {
    log: Arc<dyn LogWriter>,
    definitions: Arc<dyn BudgetDefinitions>,
    idempotency: Arc<dyn Idempotency>,
    metrics: Arc<IngestMetrics>,
    limits: AppendLimits,
    freezer: BudgetFreezer,
    signals: SignalSender,
    people_cap: PeopleCap,
}

impl SubmissionAppender {
    pub fn new(
        log: Arc<dyn LogWriter>,
        definitions: Arc<dyn BudgetDefinitions>,
        idempotency: Arc<dyn Idempotency>,
        metrics: Arc<IngestMetrics>,
        max_in_flight_records: usize,
        signals: SignalSender,
        people_cap: PeopleCap,
    ) -> Self {
        let limits = AppendLimits::new(max_in_flight_records, &metrics);
        let freezer = BudgetFreezer::new(Arc::clone(&definitions));
        Self { log, definitions, idempotency, metrics, limits, freezer, signals, people_cap }
    }

    /// Appends submissions of one budget, which were checked against a definition, and returns their outcomes in order.
    /// The definition is frozen before the first record.
    ///
    /// The append runs to its end even if the caller stops waiting: an id that stayed marked as in flight would reject
    /// the client's own retry.
    ///
    /// # Errors
    /// When nothing was appended: too many records wait, the definition cannot be frozen, or another one is in force.
    pub async fn append(
        self: &Arc<Self>,
        checked: &Arc<Budget>,
        submissions: Vec<PendingSubmission>,
    ) -> Result<Vec<AppendOutcome>, AppendRefused> {
        let fences = Fences::before(&self.definitions.catalog(), &submissions);
        let permits = self
            .limits
            .acquire(checked, &fences, &submissions)
            .ok_or(AppendRefused::TooManyInFlight)?;
        let (this, checked) = (Arc::clone(self), Arc::clone(checked));
        detach_on_drop(async move {
            let outcomes = this.append_once_per_id(&checked, submissions, fences, permits).await?;
            this.metrics.count_outcomes(&outcomes);
            Ok(outcomes)
        })
        .await
    }

    async fn append_once_per_id(
        &self,
        checked: &Arc<Budget>,
        submissions: Vec<PendingSubmission>,
        fences: Fences,
        mut permits: AppendPermits,
    ) -> Result<Vec<AppendOutcome>, AppendRefused> {
        let plan = Plan::new(&submissions);
        let begun = match plan.attempts.as_slice() {
            [] => Vec::new(),
            attempts => {
                let around_append = max_duration_around_append(checked, &fences, &submissions);
                self.idempotency.begin(attempts, around_append).await
            }
        };

        let refused = cap::refusals(&self.people_cap, &submissions, &plan, &begun).await;

        // Every outcome that is not set below is of a submission that was not appended.
        let mut outcomes = vec![AppendOutcome::Unavailable; submissions.len()];
        let mut encoder = RecordEncoder::default();
        let mut records = Vec::with_capacity(submissions.len());
        let mut appended: Vec<usize> = Vec::with_capacity(submissions.len());
        for (index, ((pending, step), outcome)) in
            submissions.iter().zip(&plan.steps).zip(&mut outcomes).enumerate()
        {
            let Some(begun) = step.begun(&begun) else { continue };
            match begun {
                _ if fences.is_closed(&pending.submission.budget) => {
                    *outcome = AppendOutcome::Closed;
                }
                BeginOutcome::First | BeginOutcome::Unchecked => match refused.get(&index) {
                    Some(refusal) => *outcome = *refusal,
                    None => {
                        appended.push(index);
                        records.push(encode(pending, &mut encoder));
                    }
                },
                BeginOutcome::Repeat(address) => *outcome = repeated(address),
                BeginOutcome::InFlight => *outcome = AppendOutcome::InFlight,
                BeginOutcome::Reused => *outcome = AppendOutcome::IdReused,
            }
        }

        if !checked.frozen && !appended.is_empty() {
            let freezes = |index: &usize| submissions.get(*index).is_some_and(freeze::freezes);
            let freezes = appended.iter().any(freezes);
            let _waiting = permits.into_freeze_permit();
            let required = self.require_definition(checked, freezes).await;
            permits = match required.and_then(|()| self.permits_of_frozen(&fences, &submissions)) {
                Ok(permits) => permits,
                Err(refused) => {
                    self.finish_attempts(&submissions, &plan, &begun, &outcomes).await;
                    return Err(refused);
                }
            };
        }

        for (index, result) in appended.iter().zip(self.append_records(records).await) {
            if let Some(outcome) = outcomes.get_mut(*index) {
                let begun = plan.steps.get(*index).and_then(|step| step.begun(&begun));
                let id_checked = begun != Some(BeginOutcome::Unchecked);
                *outcome = match result {
                    Ok(address) => AppendOutcome::Accepted { address, repeated: false, id_checked },
                    Err(
                        AppendError::Unavailable(_)
                        | AppendError::Sealed
                        | AppendError::Full { .. },
                    ) => AppendOutcome::Unavailable,
                    Err(AppendError::Closed) => AppendOutcome::Closed,
                    Err(AppendError::Unknown(_)) => AppendOutcome::Unknown,
                    Err(AppendError::Repeated(address)) => repeated(address),
                    Err(AppendError::IdReused) => AppendOutcome::IdReused,
                };
            }
        }
        let _permit = permits.into_confirmation_permit();
        // Before receipts are stored: a later repetition must not be answered with that of a record that does not
        // count.
        fences.confirm(self.definitions.as_ref(), &submissions, &mut outcomes).await;
        self.finish_attempts(&submissions, &plan, &begun, &outcomes).await;
        self.send_signals(&submissions, &outcomes);

        for (index, step) in plan.steps.iter().enumerate() {
            if let Step::DuplicateOf(first) = step
                && let Some(first) = outcomes.get(*first).copied()
                && let Some(outcome) = outcomes.get_mut(index)
            {
                *outcome = first.for_duplicate();
            }
        }
        Ok(outcomes)
    }

    /// Waits until a definition is in force, and frozen if one of its records freezes it.
    async fn require_definition(
        &self,
        checked: &Arc<Budget>,
        freezes: bool,
    ) -> Result<(), AppendRefused> {
        if freezes {
            freeze::freeze(&self.freezer, checked).await
        } else {
            freeze::require_in_force(self.definitions.as_ref(), checked).await
        }
    }

    /// Takes log permits after the freeze; none are held while waiting.
    fn permits_of_frozen(
        &self,
        fences: &Fences,
        submissions: &[PendingSubmission],
    ) -> Result<AppendPermits, AppendRefused> {
        let permits = self.limits.acquire_frozen(fences, submissions);
        permits.ok_or(AppendRefused::TooManyInFlight)
    }

    /// Queues the signals of what was accepted now: before duplicates of this batch have outcomes, and whether or not the
    /// client waits.
    fn send_signals(&self, submissions: &[PendingSubmission], outcomes: &[AppendOutcome]) {
        for (pending, outcome) in submissions.iter().zip(outcomes) {
            if let (Some(origin), AppendOutcome::Accepted { repeated: false, .. }) =
                (pending.origin, outcome)
            {
                self.signals.send(&pending.submission, origin);
            }
        }
    }

    /// Appends records and returns one result for each.
    async fn append_records(
        &self,
        records: Vec<NewRecord>,
    ) -> Vec<Result<RecordAddress, AppendError>> {
        if records.is_empty() {
            return Vec::new();
        }
        let (count, started) = (records.len(), Instant::now());
        let mut results = self.log.append_once_per_id(records).await;
        self.metrics.observe_append(started.elapsed());
        // A record without a result may or may not be in the log.
        results.resize(count, Err(AppendError::Unknown("no answer".to_owned())));
        results
    }

    /// Stores the outcomes of the attempts that this batch marked as in flight. Of server-generated ids only those whose
    /// outcome is unknown: the client is told the id for its retry.
    async fn finish_attempts(
        &self,
        submissions: &[PendingSubmission],
        plan: &Plan,
        begun: &[BeginOutcome],
        outcomes: &[AppendOutcome],
    ) {
        let finished: Vec<(IdempotentSubmission, AttemptOutcome)> = plan
            .steps
            .iter()
            .zip(submissions)
            .zip(outcomes)
            .filter_map(|((step, pending), outcome)| match (step, outcome.of_attempt()) {
                (Step::LookUp(attempt), outcome)
                    if begun.get(*attempt).is_some_and(|begun| begun.may_append()) =>
                {
                    Some((plan.attempts.get(*attempt)?.clone(), outcome))
                }
                (Step::Append, AttemptOutcome::Unknown) => {
                    Some((pending.attempt(), AttemptOutcome::Unknown))
                }
                _ => None,
            })
            .collect();
        if !finished.is_empty() {
            self.idempotency.finish(&finished).await;
        }
    }
}

/// The outcome of a submission that is in the log since an earlier request.
fn repeated(address: RecordAddress) -> AppendOutcome {
    AppendOutcome::Accepted { address, repeated: true, id_checked: true }
}

/// Bounds what may happen around an append to the log while its submission ids are in flight.
fn max_duration_around_append(
    checked: &Budget,
    fences: &Fences,
    submissions: &[PendingSubmission],
) -> Duration {
    let is_capped = submissions.iter().any(|pending| pending.max_people.is_some());
    let steps = [
        (is_capped, people_cap::READ_TIMEOUT),
        (!checked.frozen, freeze::FREEZE_TIMEOUT),
        (true, fences.confirmation_timeout()),
    ];
    steps.iter().filter(|(is_needed, _)| *is_needed).map(|(_, timeout)| *timeout).sum()
}

fn encode(pending: &PendingSubmission, encoder: &mut RecordEncoder) -> NewRecord {
    let PendingSubmission { submission, client_supplied_id, publish_step, .. } = pending;
    let stamp = RecordStamp { generated_id: !client_supplied_id, publish_step: *publish_step };
    NewRecord { key: submission.person, value: encoder.encode_stamped(submission, stamp) }
}
