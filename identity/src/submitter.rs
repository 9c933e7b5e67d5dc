//! Services and administrators, who act for the persons of their budgets.

use std::sync::Arc;

use runtime::admin::Role;
use runtime::clock::now_ms;
use runtime::principal::{PresentedCredentials, Principal, Service, credentials_required};
use runtime::problem::{Problem, ProblemKind};
use schemas::Budget;

use crate::authorizer::{Access, Authorizer};
use crate::person_scope::PersonScope;

const TOKEN_REQUIRED: &str = "a batch needs the token of a service or an administrator: `Authorization: Bearer TOKEN`, with \
    a line of the role `submitter` or `admin` in the file of `admin.tokens_file`; a single submission needs neither";

/// A service, or an administrator with the rights of the role `submitter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitter {
    service: Service,
    /// Whether a token proves it. Otherwise it is a client on the same machine, any account of which can be it.
    has_token: bool,
}

impl Submitter {
    /// Takes a service.
    pub(crate) fn service(service: Service) -> Self {
        Self { service, has_token: true }
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
        // Whoever acts for others is in the log. A batch whose budget changes meanwhile is there once for each attempt.
        tracing::info!(by = &*self.service.name, budget = %budget.id, ?access, "request on behalf of persons");
        Ok(issuer.map_or(PersonScope::Unproven, |issuer| PersonScope::OnBehalf { issuer }))
    }

    /// Refuses a submitter without a token where persons prove who they are: it could replace their submissions.
    fn require_token_for(&self, budget: &Budget) -> Result<(), Problem> {
        if self.has_token || budget.identity.is_named_by_client() {
            return Ok(());
        }
        Err(credentials_required(TOKEN_REQUIRED))
    }
}

impl Authorizer {
    /// Returns the submitter that sends a request with the submissions of many persons. Wrong credentials count as a
    /// failure of the client's address.
    ///
    /// Applies under every identity rule, because a batch can create many persons. Where the budget's clients name persons,
    /// and no token of the role `submitter` is configured, a client on the same machine needs none. `budget` is `None` if
    /// there is no such budget.
    ///
    /// # Errors
    /// When the credentials are missing, invalid, a person's or of a role that does not suffice.
    pub fn submitter(
        &self,
        presented: &PresentedCredentials,
        budget: Option<&Budget>,
    ) -> Result<Submitter, Problem> {
        let principal = self.authenticator.authenticate(presented, now_ms() / 1_000);
        match principal.map_err(|fault| self.authenticator.refuse(fault, presented))? {
            Principal::Service(service) => Ok(Submitter::service(service)),
            Principal::Administrator { name, role } => Submitter::administrator(name, role),
            Principal::Person(_) => Err(Problem::new(ProblemKind::Forbidden).detail(
                "batches are for the roles `submitter` and `admin`; send your own submission alone",
            )),
            Principal::Anonymous => {
                let service = self.authenticator.local_service(presented);
                let service = service.ok_or_else(|| credentials_required(TOKEN_REQUIRED))?;
                let submitter = Submitter { service, has_token: false };
                budget.map_or(Ok(()), |budget| submitter.require_token_for(budget))?;
                Ok(submitter)
            }
        }
    }

    /// Returns for whom a submitter may submit in a budget.
    ///
    /// # Errors
    /// As [`submitter`](Self::submitter), since the budget may have changed; and when the submitter's token is not for the
    /// budget, or the budget's identity rule cannot be applied.
    pub fn scope_of_submitter(
        &self,
        submitter: &Submitter,
        budget: &Budget,
    ) -> Result<PersonScope, Problem> {
        submitter.scope_in(budget, self.issuer(budget.identity)?, Access::Write)
    }

    /// Refuses the token of a service for other budgets, where nobody needs a token.
    pub(crate) fn require_budget_of_service(
        &self,
        budget: &Budget,
        presented: &PresentedCredentials,
    ) -> Result<(), Problem> {
        let service = self.authenticator.service(presented);
        service.map_or(Ok(()), |service| require_budget(&service, budget))
    }
}

fn require_budget(service: &Service, budget: &Budget) -> Result<(), Problem> {
    if service.acts_in(budget.id.as_str()) {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::Forbidden).detail("the service's token is not for this budget"))
}
