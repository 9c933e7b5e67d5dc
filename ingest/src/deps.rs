//! The handles that ingest is built on.

use std::sync::Arc;

use identity::Authorizer;
use runtime::admin::AdminGuard;
use runtime::limits::RequestLimits;
use schemas::PersonSecret;
use storage::control::BudgetDefinitions;
use storage::idempotency::Idempotency;
use storage::log::LogWriter;
use storage::signals::SignalWriter;

use crate::email::EmailSignIn;
use crate::people_cap::CountedPeople;

/// The dependencies of the ingest routes.
#[derive(Clone)]
pub struct IngestDeps {
    /// Appends submissions.
    pub log: Arc<dyn LogWriter>,
    /// The budget definitions.
    pub definitions: Arc<dyn BudgetDefinitions>,
    /// Recent submission ids and their receipts.
    pub idempotency: Arc<dyn Idempotency>,
    /// Derives person keys from person ids.
    pub person_secret: PersonSecret,
    /// Appends signals of accepted submissions.
    pub signals: Arc<dyn SignalWriter>,
    /// Numbers and rows of the people of budgets with a cap.
    pub people: Arc<CountedPeople>,
    /// Authorizes administrators to change definitions.
    pub admin: AdminGuard,
    /// Limits the requests of the public.
    pub limits: RequestLimits,
    /// Decides who may submit, and for whom.
    pub authorizer: Authorizer,
    /// Signs persons in by e-mail; `None` without an SMTP server in the settings.
    pub email: Option<EmailSignIn>,
}
