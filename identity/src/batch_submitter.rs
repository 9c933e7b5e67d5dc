//! The submitter of a batch: who may send the submissions of many persons.

use runtime::clock::now_ms;
use runtime::principal::{PresentedCredentials, Principal, credentials_required};
use runtime::problem::{Problem, ProblemKind};
use schemas::Budget;

use crate::authorizer::Authorizer;
use crate::person_scope::{Access, PersonScope};
use crate::submitter::{Submitter, TOKEN_REQUIRED};

impl Authorizer {
    /// Returns the submitter that sends a request with the submissions of many persons. Wrong credentials count as a
    /// failure of the client's address.
    ///
    /// Applies under every identity rule, because a batch can create many persons. Where the budget's clients name
    /// persons, and no token of the role `submitter` is configured, a client on the same machine needs none. `budget`
    /// is `None` if there is no such budget.
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
                let submitter = Submitter::without_token(service);
                budget.map_or(Ok(()), |budget| submitter.require_token_for(budget))?;
                Ok(submitter)
            }
        }
    }

    /// Returns for whom a submitter may submit in a budget.
    ///
    /// # Errors
    /// As [`submitter`](Self::submitter), since the budget may have changed; and when the submitter's token is not for
    /// the budget, or the budget's identity rule cannot be applied.
    pub fn scope_of_submitter(
        &self,
        submitter: &Submitter,
        budget: &Budget,
    ) -> Result<PersonScope, Problem> {
        submitter.scope_in(budget, self.issuer(budget.identity)?, Access::Write)
    }
}
