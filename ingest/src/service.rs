//! What all routes share: where things rest, the limits, and the questions that every route asks first.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runtime::metrics::{Metrics, MetricsError};
use runtime::problem::{Problem, ProblemKind};
use schemas::{Action, Budget, Openness, PersonKeyHasher, PersonName, Submission, SubmissionId};
use storage::definitions::{ChangeRefused, DefinitionError, Definitions};
use storage::idempotency::Idempotency;
use storage::log::LogWriter;
use uuid::Uuid;

use crate::acceptance::{Candidate, Outcome};
use crate::answer::unavailable;
use crate::freeze::Freezes;
use crate::metrics::{IngestMetrics, Room};
use crate::parse::Draft;
use crate::to_the_end::to_the_end;
use crate::{IngestConfig, IngestParts};

/// How long a client should wait before it asks again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Ingest at work.
pub(crate) struct Ingest {
    pub log: Arc<dyn LogWriter>,
    pub definitions: Arc<dyn Definitions>,
    pub idempotency: Arc<dyn Idempotency>,
    pub hasher: PersonKeyHasher,
    pub metrics: IngestMetrics,
    freezes: Freezes,
    room: Room,
}

impl Ingest {
    pub fn new(
        config: &IngestConfig,
        parts: IngestParts,
        metrics: &Metrics,
    ) -> Result<Self, MetricsError> {
        let metrics = IngestMetrics::register(metrics)?;
        Ok(Self {
            freezes: Freezes::new(Arc::clone(&parts.definitions)),
            room: Room::new(config.max_in_flight_records, &metrics),
            log: parts.log,
            definitions: parts.definitions,
            idempotency: parts.idempotency,
            hasher: parts.hasher,
            metrics,
        })
    }

    /// The budget, if it and the log take submissions now.
    ///
    /// # Errors
    /// The problem to answer at once if not.
    pub fn open_budget(&self, id: &str) -> Result<Arc<Budget>, Problem> {
        if self.log.available().is_err() {
            return Err(unavailable("the log does not take submissions now"));
        }
        // Asked before the catalog is: what is loaded in between must not be missed.
        let loaded = self.definitions.is_loaded();
        let catalog = self.definitions.catalog();
        let Some(budget) = catalog.get(id) else {
            return Err(if loaded {
                no_such_budget()
            } else {
                unavailable("the budgets' definitions are not loaded yet")
            });
        };
        must_be_open(budget)?;
        Ok(Arc::clone(budget))
    }

    /// Reads a body against the budget's definition. If there is anything in it to append, the definition it was read
    /// against is frozen.
    ///
    /// # Errors
    /// What `read` says, or why the budget could not be frozen.
    pub async fn read_against_frozen<T>(
        &self,
        budget: Arc<Budget>,
        read: impl Fn(&Budget) -> Result<T, Problem>,
        appends: impl Fn(&T) -> bool,
    ) -> Result<(Arc<Budget>, T), Problem> {
        let body = read(&budget)?;
        if budget.frozen || !appends(&body) {
            return Ok((budget, body));
        }
        let budget = self.freezes.frozen(&budget.id).await.map_err(|error| match error {
            DefinitionError::Refused(ChangeRefused::Unknown) => no_such_budget(),
            DefinitionError::Refused(ChangeRefused::Frozen) | DefinitionError::Unavailable(_) => {
                unavailable("the budget's rules could not be frozen for its first submission")
            }
        })?;
        // Between our look at it and its freezing it may have changed.
        must_be_open(&budget)?;
        let body = read(&budget)?;
        Ok((budget, body))
    }

    /// Names a draft and its person where they have no names, and makes it ready for the log.
    pub fn candidate(&self, budget: &Budget, draft: Draft, now_ms: u64) -> (Candidate, PersonName) {
        let named = draft.id.is_some();
        let id = draft.id.unwrap_or_else(new_id);
        let person = draft.person.unwrap_or_else(|| PersonName::anonymous(id));
        let candidate = self.candidate_of(
            budget,
            &person,
            id,
            named,
            Action::Allocate(draft.allocation),
            now_ms,
        );
        (candidate, person)
    }

    pub fn candidate_of(
        &self,
        budget: &Budget,
        person: &PersonName,
        id: SubmissionId,
        named: bool,
        action: Action,
        now_ms: u64,
    ) -> Candidate {
        let submission = Submission {
            budget: budget.id.clone(),
            person: self.hasher.key(&budget.id, person),
            id,
            accepted_at_ms: now_ms,
            action,
        };
        Candidate { submission, named }
    }

    /// Brings candidates into the log, whether or not the caller waits for the end, and says what became of each.
    ///
    /// # Errors
    /// When too many records wait for the log already: then nothing is accepted.
    pub async fn accept(
        self: &Arc<Self>,
        candidates: Vec<Candidate>,
    ) -> Result<Vec<Outcome>, Problem> {
        let Some(room) = self.room.take(candidates.len()) else {
            return Err(unavailable("too many submissions wait for the log"));
        };
        let this = Arc::clone(self);
        let outcomes = to_the_end(async move {
            let outcomes = this.append_each_once(candidates).await;
            this.metrics.count(&outcomes);
            drop(room);
            outcomes
        });
        Ok(outcomes.await)
    }
}

pub(crate) fn new_id() -> SubmissionId {
    SubmissionId(Uuid::new_v4())
}

fn no_such_budget() -> Problem {
    Problem::new(ProblemKind::NotFound).detail("there is no such budget")
}

fn must_be_open(budget: &Budget) -> Result<(), Problem> {
    // A budget without times is always open, and most have none: do not ask the clock.
    if budget.opens_at.is_none() && budget.closes_at.is_none() {
        return Ok(());
    }
    let state = match budget.openness(Timestamp::now()) {
        Openness::Open => return Ok(()),
        Openness::NotYet(opens_at) => format!("opens at {opens_at}"),
        Openness::Closed(closes_at) => format!("closed at {closes_at}"),
    };
    let since = budget.opens_at.map(|at| format!(" from {at}")).unwrap_or_default();
    let until = budget.closes_at.map(|at| format!(" until {at}")).unwrap_or_default();
    Err(Problem::new(ProblemKind::BudgetClosed)
        .detail(format!("the budget {state}: it takes submissions{since}{until}")))
}
