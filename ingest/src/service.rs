//! What all routes share: the storage handles, and the checks that precede every append.

use std::sync::Arc;

use identity::{Access, Authorizer, PersonScope};
use jiff::Timestamp;
use runtime::clock::now_ms;
use runtime::metrics::{Metrics, MetricsError};
use runtime::principal::PresentedCredentials;
use runtime::problem::{Problem, ProblemKind};
use schemas::{
    Action, Budget, BudgetPersonHasher, ClosingState, IdentityRule, Openness, PersonId, PersonKey,
    PersonSecret, ReceiptSigner, SignalOrigin, Submission, SubmissionId,
};
use storage::control::BudgetDefinitions;
use storage::log::{AppendError, LogWriter};
use uuid::Uuid;

use crate::append::SubmissionAppender;
use crate::config::IngestConfig;
use crate::deps::IngestDeps;
use crate::email::EmailSignIn;
use crate::metrics::IngestMetrics;
use crate::parse::ParsedSubmission;
use crate::pending::PendingSubmission;
use crate::people_cap::PeopleCap;
use crate::problems;
use crate::signals::{OriginDigester, PendingSignals, RequestOrigin, SignalSender};

/// The state of all ingest routes.
pub(crate) struct IngestService {
    pub definitions: Arc<dyn BudgetDefinitions>,
    pub person_secret: PersonSecret,
    pub receipt_signer: ReceiptSigner,
    pub authorizer: Authorizer,
    /// Signs persons in by e-mail; `None` without an SMTP server in the settings.
    pub email: Option<EmailSignIn>,
    pub metrics: Arc<IngestMetrics>,
    log: Arc<dyn LogWriter>,
    pub appender: Arc<SubmissionAppender>,
    /// `None` if no signals are kept.
    digester: Option<Arc<OriginDigester>>,
}

impl IngestService {
    /// Creates the state, and starts its tasks. Also returns the queue of signals.
    pub fn new(
        config: &IngestConfig,
        deps: IngestDeps,
        registry: &Metrics,
    ) -> Result<(Self, PendingSignals), MetricsError> {
        let metrics = Arc::new(IngestMetrics::register(registry, Arc::clone(&deps.log))?);
        let digester = Arc::new(OriginDigester::new(&deps.person_secret, now_ms()));
        // Also if no more signals are kept: the old ones are deleted still.
        let (signals, pending) =
            SignalSender::start(deps.signals, registry, Arc::clone(&digester))?;
        let definitions = Arc::clone(&deps.definitions);
        let people_cap = PeopleCap::start(deps.people, definitions, registry)?;
        let appender = SubmissionAppender::new(
            Arc::clone(&deps.log),
            Arc::clone(&deps.definitions),
            deps.idempotency,
            Arc::clone(&metrics),
            config.max_in_flight_records,
            signals,
            people_cap,
        );
        let service = Self {
            appender: Arc::new(appender),
            digester: config.signals_enabled.then_some(digester),
            log: deps.log,
            definitions: deps.definitions,
            receipt_signer: deps.person_secret.receipt_signer(),
            person_secret: deps.person_secret,
            authorizer: deps.authorizer,
            email: deps.email,
            metrics,
        };
        Ok((service, pending))
    }

    /// Returns the budget if it is open and the log is available.
    ///
    /// # Errors
    /// The problem to respond with at once.
    pub fn open_budget(&self, id: &str) -> Result<Arc<Budget>, Problem> {
        match self.log.available() {
            Ok(()) => {}
            Err(AppendError::Full { .. }) => return Err(problems::log_full()),
            Err(_) => return Err(problems::log_unavailable()),
        }
        let budget = self.budget(id)?;
        require_accepting(&budget)?;
        Ok(budget)
    }

    /// Returns a budget, open or not.
    ///
    /// # Errors
    /// The problem to respond with at once.
    pub fn budget(&self, id: &str) -> Result<Arc<Budget>, Problem> {
        // Read before the catalog: a budget that loads in between must not become a 404.
        let loaded = self.definitions.is_loaded();
        let catalog = self.definitions.catalog();
        let Some(budget) = catalog.get(id) else {
            return Err(if catalog.is_unreadable(id) {
                problems::definition_not_understood("nothing was accepted")
            } else if loaded {
                problems::budget_not_found()
            } else {
                problems::unavailable("the budget definitions are not loaded yet")
            });
        };
        Ok(Arc::clone(budget))
    }

    /// Returns for whom a request may submit or withdraw in a budget.
    ///
    /// # Errors
    /// When the credentials are missing or invalid, or do not allow it.
    pub fn person_scope(
        &self,
        budget: &Budget,
        presented: &PresentedCredentials,
    ) -> Result<PersonScope, Problem> {
        self.authorizer.person_scope(budget, presented, Access::Write)
    }

    /// Whether budgets with an identity rule can be used by this process.
    ///
    /// # Errors
    /// The setting that the rule needs.
    pub fn require_support(&self, rule: IdentityRule) -> Result<(), &'static str> {
        match rule {
            IdentityRule::Email if self.email.is_none() => Err("email.smtp_url"),
            rule if !self.authorizer.supports(rule) => Err("identity.token_issuer"),
            _ => Ok(()),
        }
    }

    /// Returns what signs persons in by e-mail.
    ///
    /// # Errors
    /// Without an SMTP server in the settings, which another process may have.
    pub fn require_email(&self) -> Result<&EmailSignIn, Problem> {
        self.email.as_ref().ok_or_else(|| {
            problems::unavailable("this service has no `email.smtp_url`, so that it sends no codes")
        })
    }

    /// Returns where the submissions of a request come from. `None` if no signal is kept of them.
    pub fn origin(
        &self,
        budget: &Budget,
        request: &RequestOrigin,
        now_ms: u64,
    ) -> Option<SignalOrigin> {
        self.digester.as_ref()?.origin(budget, request, now_ms)
    }

    /// Returns what computes the keys of a budget's persons.
    ///
    /// # Errors
    /// When they are forgotten.
    pub fn persons(&self, budget: &Budget) -> Result<BudgetPersonHasher, Problem> {
        self.person_secret.for_budget(budget).map_err(problems::forgotten)
    }

    /// Completes a parsed submission: missing ids are generated.
    pub fn pending_submission(
        &self,
        (budget, persons): (&Budget, &BudgetPersonHasher),
        parsed: ParsedSubmission,
        origin: Option<SignalOrigin>,
        now_ms: u64,
    ) -> (PendingSubmission, PersonId) {
        let client_supplied_id = parsed.id.is_some();
        let id = parsed.id.unwrap_or_else(new_submission_id);
        let person = parsed.person.unwrap_or_else(|| PersonId::anonymous(id));
        let recorded_id = recorded_id(persons, &person, id);
        let action = Action::Allocate(parsed.allocation);
        let submission = submission(budget, persons.key(&person), recorded_id, action, now_ms);
        let pending = PendingSubmission {
            submission,
            id,
            client_supplied_id,
            publish_step: budget.publish_step(),
            max_people: budget.max_people,
            origin,
        };
        (pending, person)
    }

    /// Builds the withdrawal of a person's allocation.
    ///
    /// # Errors
    /// When the budget's persons are forgotten.
    pub fn pending_withdrawal(
        &self,
        budget: &Budget,
        person: &PersonId,
        id: Option<SubmissionId>,
        origin: Option<SignalOrigin>,
        now_ms: u64,
    ) -> Result<PendingSubmission, Problem> {
        let client_supplied_id = id.is_some();
        let id = id.unwrap_or_else(new_submission_id);
        let persons = self.persons(budget)?;
        let recorded_id = recorded_id(&persons, person, id);
        let submission =
            submission(budget, persons.key(person), recorded_id, Action::Withdraw, now_ms);
        Ok(PendingSubmission {
            submission,
            id,
            client_supplied_id,
            publish_step: budget.publish_step(),
            max_people: None,
            origin,
        })
    }
}

fn submission(
    budget: &Budget,
    person: PersonKey,
    id: SubmissionId,
    action: Action,
    now_ms: u64,
) -> Submission {
    Submission { budget: budget.id.clone(), person, id, accepted_at_ms: now_ms, action }
}

/// Returns the id in the record: a keyed digest of one that is the person's id too, since the log has no person's id.
fn recorded_id(persons: &BudgetPersonHasher, person: &PersonId, id: SubmissionId) -> SubmissionId {
    // In any spelling.
    match Uuid::try_parse(person.reveal()) {
        Ok(uuid) if uuid == id.0 => persons.submission_id(Some(person), &id.to_string()),
        Ok(_) | Err(_) => id,
    }
}

fn new_submission_id() -> SubmissionId {
    SubmissionId(Uuid::new_v4())
}

/// Rejects submissions to a budget whose rules this release does not know, or that is not open.
pub(crate) fn require_accepting(budget: &Budget) -> Result<(), Problem> {
    require_known_identity_rule(budget)?;
    require_open(budget)
}

/// Rejects submissions whose person would be identified by a rule of a newer release.
fn require_known_identity_rule(budget: &Budget) -> Result<(), Problem> {
    match budget.identity {
        IdentityRule::Required
        | IdentityRule::Optional
        | IdentityRule::Anonymous
        | IdentityRule::Code
        | IdentityRule::Email
        | IdentityRule::Token => Ok(()),
        IdentityRule::Unrecognized => Err(problems::definition_not_understood(
            "its identity rule is unknown, and nothing was accepted",
        )),
    }
}

fn require_open(budget: &Budget) -> Result<(), Problem> {
    if budget.closing.is_some_and(|fence| fence.state == ClosingState::Reopening) {
        return Err(problems::budget_reopening());
    }
    // Most budgets have no opening times: skip reading the clock.
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
        .detail(format!("the budget {state}: it accepts submissions{since}{until}")))
}
