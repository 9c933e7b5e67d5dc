//! Decides for which persons a request may act, by its credentials and the budget's identity rule.

use std::sync::Arc;

use jiff::SignedDuration;
use prometheus::{IntCounterVec, IntGauge};
use runtime::admin::AdminGuard;
use runtime::clock::now_ms;
use runtime::metrics::{Metrics, MetricsError};
use runtime::principal::{
    Authenticator, AuthenticatorError, CredentialFault, IdentityConfig, Person,
    PresentedCredentials, Principal, RequestOrigin, SessionKey, credentials_required,
};
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, CodeValidity, IdentityRule, PersonId, PersonSecret, RevokedCodes};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::code::Serial;
use crate::cookie;
use crate::issuer::{ANONYMOUS, CODE, EMAIL};
use crate::person_cookie::PersonCookieKey;
use crate::person_scope::{Access, PersonScope};
use crate::submitter::{Submitter, require_budget};

/// `Retry-After` while it is unknown which codes are revoked.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// Why the authorizer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizerError {
    /// The authenticator cannot be created.
    #[error(transparent)]
    Authenticator(#[from] AuthenticatorError),
    /// A metric's name is taken, which is a bug.
    #[error("metrics: {0}")]
    Metrics(#[from] MetricsError),
}

/// Decides who may act for whom. Cheap to clone.
#[derive(Clone)]
pub struct Authorizer {
    pub(crate) authenticator: Authenticator,
    pub(crate) person_secret: PersonSecret,
    pub(crate) person_cookies: PersonCookieKey,
    pub(crate) revoked: watch::Receiver<RevokedCodes>,
    pub(crate) session_lifetime: SignedDuration,
    pub(crate) sessions: IntCounterVec,
    unreadable_revocations: IntGauge,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorizer")
    }
}

impl Authorizer {
    /// Creates the authorizer of a process.
    ///
    /// # Errors
    /// When a metric's name is taken, or no HTTP client can be built.
    pub fn new(
        config: &IdentityConfig,
        person_secret: &PersonSecret,
        revoked: watch::Receiver<RevokedCodes>,
        admin: AdminGuard,
        metrics: &Metrics,
    ) -> Result<Self, AuthorizerError> {
        let sessions = metrics.counter_vec(
            "identity_sessions_total",
            "Sessions that were asked for, by outcome: opened, refused.",
            &["outcome"],
        )?;
        let unreadable_revocations = metrics.gauge(
            "identity_revocations_unreadable",
            "Budgets whose record of revoked codes this process cannot read: it refuses all codes of these budgets.",
        )?;
        let key = SessionKey::new(&person_secret.derived_secret("sessions"));
        Ok(Self {
            authenticator: Authenticator::new(config, key, admin, metrics)?,
            person_secret: person_secret.clone(),
            person_cookies: PersonCookieKey::new(person_secret),
            revoked,
            session_lifetime: SignedDuration::try_from(config.session_lifetime)
                .unwrap_or(SignedDuration::MAX),
            sessions,
            unreadable_revocations,
        })
    }

    /// Returns what verifies the credentials of this process.
    pub fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// Keeps the identity provider's keys up to date, and the metric of unreadable records, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let keys = self.authenticator.clone().refresh_keys(stop.clone());
        tokio::join!(keys, stop.run_until_cancelled(self.count_unreadable_revocations()));
    }

    async fn count_unreadable_revocations(&self) {
        let mut revoked = self.revoked.clone();
        loop {
            let unreadable = revoked.borrow_and_update().unreadable();
            self.unreadable_revocations.set(i64::try_from(unreadable).unwrap_or(i64::MAX));
            // The sender lives as long as the process.
            if revoked.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether budgets with a rule can be used in this deployment.
    pub fn supports(&self, rule: IdentityRule) -> bool {
        rule != IdentityRule::Token || self.authenticator.token_issuer().is_some()
    }

    /// Returns for whom a request may act in a budget. Wrong credentials count as a failure of the client's address.
    ///
    /// # Errors
    /// When the credentials are missing or invalid, or do not allow the request.
    pub fn person_scope(
        &self,
        budget: &Budget,
        presented: &PresentedCredentials,
        access: Access,
    ) -> Result<PersonScope, Problem> {
        self.find_scope(budget, presented, access)
            .map_err(|refusal| self.refuse(refusal, presented))
    }

    fn refuse(&self, refusal: Refusal, presented: &PresentedCredentials) -> Problem {
        match refusal {
            Refusal::Credentials(fault) => self.authenticator.refuse(fault, presented),
            Refusal::Request(problem) => problem,
        }
    }

    fn find_scope(
        &self,
        budget: &Budget,
        presented: &PresentedCredentials,
        access: Access,
    ) -> Result<PersonScope, Refusal> {
        let Some(issuer) = self.issuer(budget.identity)? else {
            self.require_budget_of_service(budget, presented)?;
            return Ok(PersonScope::Unproven);
        };
        let now_s = now_ms() / 1_000;
        let principal = match self.authenticator.authenticate(presented, now_s)? {
            Principal::Anonymous => match self.person_of_cookies(budget, presented, now_s)? {
                Some(_) if access == Access::Write && !is_own_page(presented) => {
                    return Err(cross_site().into());
                }
                Some(person) => Principal::Person(person),
                None => Principal::Anonymous,
            },
            principal => principal,
        };
        match principal {
            Principal::Person(person) => {
                let scope = scope_of_person(budget, issuer, &person)?;
                if budget.identity == IdentityRule::Code {
                    self.require_valid_code(budget, &person.subject)?;
                }
                Ok(scope)
            }
            Principal::Service(service) => {
                Ok(Submitter::service(service).scope_in(budget, Some(issuer), access)?)
            }
            Principal::Administrator { name, role } => {
                Ok(Submitter::administrator(name, role)?.scope_in(budget, Some(issuer), access)?)
            }
            Principal::Anonymous => {
                Err(credentials_required(how_to_get_credentials(budget)).into())
            }
        }
    }

    /// Whether a request has the token of a program or an administrator, who submit on behalf of persons.
    pub fn is_program(&self, presented: &PresentedCredentials) -> bool {
        let token = presented.bearer();
        token.is_some_and(|token| self.authenticator.admin().find_by_token(token).is_some())
    }

    /// Returns the person of a page's request: of its cookies, or of its token. `None` without one.
    pub fn person_of_page(
        &self,
        budget: &Budget,
        presented: &PresentedCredentials,
    ) -> Option<PersonId> {
        if budget.identity.is_named_by_client() {
            return self.browser_person(budget, presented);
        }
        self.find_scope(budget, presented, Access::Read).ok()?.own_person().ok()
    }

    /// Returns the person of a posted form, as [`person_of_page`](Self::person_of_page). Wrong credentials count as a
    /// failure of the client's address.
    ///
    /// # Errors
    /// When the credentials are missing, invalid or no person's.
    pub fn person_of_form(
        &self,
        budget: &Budget,
        presented: &PresentedCredentials,
    ) -> Result<Option<PersonId>, Problem> {
        if budget.identity.is_named_by_client() {
            return Ok(self.browser_person(budget, presented));
        }
        match self.find_scope(budget, presented, Access::Read) {
            Ok(scope) => Ok(scope.own_person().ok()),
            Err(Refusal::Credentials(fault)) => {
                let problem = self.authenticator.refuse(fault, presented);
                // Whoever has no valid session is asked for a code, unless there were too many failures.
                if problem.kind() == ProblemKind::Unauthorized { Ok(None) } else { Err(problem) }
            }
            Err(Refusal::Request(_)) => Ok(None),
        }
    }

    /// Refuses the token of a service for other budgets, where nobody needs a token.
    fn require_budget_of_service(
        &self,
        budget: &Budget,
        presented: &PresentedCredentials,
    ) -> Result<(), Problem> {
        let service = self.authenticator.service(presented);
        service.map_or(Ok(()), |service| require_budget(&service, budget))
    }

    /// Requires that the code of a session is not revoked.
    fn require_valid_code(&self, budget: &Budget, serial: &str) -> Result<(), Refusal> {
        let serial = Serial::parse(serial).ok_or(CredentialFault::Claims)?;
        match self.revoked.borrow().validity(&budget.id, serial.number()) {
            CodeValidity::Valid => Ok(()),
            CodeValidity::Revoked => {
                self.authenticator.count(CredentialFault::Revoked);
                Err(CredentialFault::Revoked.into())
            }
            CodeValidity::Unknown => Err(revocations_unknown().into()),
        }
    }

    /// Returns who vouches for the persons of a rule; `None` if nobody does.
    pub(crate) fn issuer(&self, rule: IdentityRule) -> Result<Option<Arc<str>>, Problem> {
        match rule {
            IdentityRule::Required | IdentityRule::Optional => Ok(None),
            IdentityRule::Unrecognized => Err(Problem::new(ProblemKind::Unavailable).detail(
                "a newer release wrote the budget's identity rule, and this process cannot apply it",
            )),
            IdentityRule::Anonymous => Ok(Some(ANONYMOUS.into())),
            IdentityRule::Code => Ok(Some(CODE.into())),
            IdentityRule::Email => Ok(Some(EMAIL.into())),
            IdentityRule::Token => match self.authenticator.token_issuer() {
                Some(issuer) => Ok(Some(issuer.into())),
                None => Err(Problem::new(ProblemKind::Unavailable).detail(
                    "this service has no `identity.token_issuer`, so that it knows no persons of this budget",
                )),
            },
        }
    }

    /// Returns the person of the budget's cookies.
    fn person_of_cookies(
        &self,
        budget: &Budget,
        presented: &PresentedCredentials,
        now_s: u64,
    ) -> Result<Option<Person>, CredentialFault> {
        match budget.identity {
            IdentityRule::Anonymous => {
                Ok(self.browser_person(budget, presented).map(|person| Person {
                    issuer: ANONYMOUS.into(),
                    subject: person.reveal().to_owned(),
                    organisation: None,
                    budgets: None,
                }))
            }
            IdentityRule::Code | IdentityRule::Email => cookie::session(presented.cookies())
                .map(|token| self.authenticator.session(token.as_bytes(), now_s))
                .transpose(),
            _ => Ok(None),
        }
    }
}

/// Why a request may act for nobody.
enum Refusal {
    /// Its credentials prove nobody.
    Credentials(CredentialFault),
    /// It has none, or they do not allow it.
    Request(Problem),
}

impl From<CredentialFault> for Refusal {
    fn from(fault: CredentialFault) -> Self {
        Self::Credentials(fault)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Request(problem)
    }
}

/// The problem of a request while it is unknown which codes are revoked.
pub(crate) fn revocations_unknown() -> Problem {
    Problem::new(ProblemKind::Unavailable)
        .detail(
            "this process cannot read which codes of the budget are revoked; nothing was accepted",
        )
        .retry_after(RETRY_AFTER)
}

fn scope_of_person(
    budget: &Budget,
    issuer: Arc<str>,
    person: &Person,
) -> Result<PersonScope, Refusal> {
    let forbidden = |detail| Err(Problem::new(ProblemKind::Forbidden).detail(detail).into());
    if person.issuer != issuer {
        return forbidden("the token is of another kind than the budget's identity rule asks for");
    }
    let allows = |budgets: &Vec<String>| budgets.iter().any(|id| *id == *budget.id.as_str());
    if !person.budgets.as_ref().is_none_or(allows) {
        return forbidden("the token is not for this budget");
    }
    match PersonId::of_issuer(&issuer, &person.subject) {
        Ok(id) => Ok(PersonScope::Person { person: id, issuer }),
        Err(_) => Err(CredentialFault::Claims.into()),
    }
}

fn is_own_page(presented: &PresentedCredentials) -> bool {
    presented.origin() == RequestOrigin::Own
}

fn cross_site() -> Problem {
    Problem::new(ProblemKind::Forbidden).detail(
        "a cookie suffices only for this service's own pages (`Sec-Fetch-Site: same-origin`, or `Origin` of this host); \
         programs send a token",
    )
}

fn how_to_get_credentials(budget: &Budget) -> &'static str {
    match budget.identity {
        IdentityRule::Code => {
            "this budget needs a personal code: `POST /v1/budgets/{budget}/session` with {\"code\": \"…\"} gives a token, to \
             be sent as `Authorization: Bearer`"
        }
        IdentityRule::Email => {
            "this budget needs a one-time code: `POST /v1/budgets/{budget}/session` with {\"email\": \"…\"} sends one, and with \
             {\"email\": \"…\", \"otp\": \"…\"} gives a token, to be sent as `Authorization: Bearer`"
        }
        IdentityRule::Token => {
            "this budget needs the token of its identity provider, to be sent as `Authorization: Bearer`"
        }
        _ => {
            "this budget needs a session: `POST /v1/budgets/{budget}/session` with {} gives a token, to be sent as \
             `Authorization: Bearer`"
        }
    }
}
