//! Services and administrators, who act for the persons of their budgets.

use std::sync::Arc;

use runtime::admin::Role;
use runtime::principal::{Service, credentials_required};
use runtime::problem::{Problem, ProblemKind};
use schemas::Budget;

use crate::person_scope::{Access, PersonScope};

/// What to say to a batch without the token that it needs.
pub(crate) const TOKEN_REQUIRED: &str = "a batch needs the token of a service or an administrator: `Authorization: Bearer TOKEN`, with \
    a line of the role `submitter` or `admin` in the file of `admin.tokens_file`; a single submission needs neither";

/// A service, or an administrator with the rights of the role `submitter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitter {
    service: Service,
    /// Whether a token proves it. Otherwise it is a client on the same machine, any account of which can be it.
    has_token: bool,
}

impl Submitter {
    /// Takes a service that a token proves.
    pub(crate) fn service(service: Service) -> Self {
        Self { service, has_token: true }
    }

    /// Takes a service on the same machine, which no token proves.
    pub(crate) fn without_token(service: Service) -> Self {
        Self { service, has_token: false }
    }

    /// Takes an administrator.
    ///
    /// # Errors
    /// When the role does not include that of a submitter.
    pub(crate) fn administrator(name: Arc<str>, role: Role) -> Result<Self, Problem> {
        if role.includes(Role::Submitter) {
            return Ok(Self::service(Service { name, organisation: None, budgets: None }));
        }
        Err(Problem::new(ProblemKind::Forbidden)
            .detail("persons' submissions are for the roles `submitter` and `admin`"))
    }

    /// Returns for whom the submitter may act in a budget, whose persons `issuer` vouches for; `None` if nobody does.
    ///
    /// # Errors
    /// When the submitter's token is not for the budget, or it has none and the budget's persons must be proven.
    pub(crate) fn scope_in(
        &self,
        budget: &Budget,
        issuer: Option<Arc<str>>,
        access: Access,
    ) -> Result<PersonScope, Problem> {
        self.require_token_for(budget)?;
        require_budget(&self.service, budget)?;
        // Logs who acts for others. A batch whose budget changes meanwhile has a line for each attempt.
        tracing::info!(by = &*self.service.name, budget = %budget.id, ?access, "request on behalf of persons");
        Ok(issuer.map_or(PersonScope::Unproven, |issuer| PersonScope::OnBehalf { issuer }))
    }

    /// Refuses a submitter without a token where persons prove who they are: it could replace their submissions.
    pub(crate) fn require_token_for(&self, budget: &Budget) -> Result<(), Problem> {
        if self.has_token || budget.identity.is_named_by_client() {
            return Ok(());
        }
        Err(credentials_required(TOKEN_REQUIRED))
    }
}

/// Refuses the token of a service for other budgets.
pub(crate) fn require_budget(service: &Service, budget: &Budget) -> Result<(), Problem> {
    if service.acts_in(budget.id.as_str()) {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::Forbidden).detail("the service's token is not for this budget"))
}
