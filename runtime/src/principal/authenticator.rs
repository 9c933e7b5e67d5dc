//! Finds the principal that the credentials of a request prove.

use std::sync::Arc;

use http::HeaderMap;
use prometheus::IntCounterVec;
use tokio_util::sync::CancellationToken;

use super::config::IdentityConfig;
use super::sessions::SessionKey;
use super::token_verifier::TokenVerifier;
use super::{CredentialFault, Person, PresentedCredentials, Principal, Service};
use crate::admin::{self, AdminGuard, Role, bearer_token};
use crate::metrics::{Metrics, MetricsError};
use crate::problem::Problem;

/// Why an authenticator cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticatorError {
    /// A metric's name is taken, which is a bug.
    #[error("metrics: {0}")]
    Metrics(#[from] MetricsError),
    /// No HTTP client for the identity provider's keys.
    #[error("HTTP client for the identity provider's keys: {0}")]
    HttpClient(#[from] reqwest::Error),
}

/// Verifies the credentials of all routes of a process. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator(Arc<Inner>);

struct Inner {
    admin: AdminGuard,
    sessions: SessionKey,
    tokens: Option<TokenVerifier>,
    refused: IntCounterVec,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

impl Authenticator {
    /// Creates the authenticator of a process.
    ///
    /// # Errors
    /// When a metric's name is taken, or no HTTP client can be built.
    pub fn new(
        config: &IdentityConfig,
        sessions: SessionKey,
        admin: AdminGuard,
        metrics: &Metrics,
    ) -> Result<Self, AuthenticatorError> {
        let unreadable = metrics.gauge(
            "identity_keys_unreadable",
            "1 while the identity provider's keys cannot be read and the ones read before stay in use, for a day.",
        )?;
        let tokens = config.tokens.as_ref().map(|tokens| TokenVerifier::new(tokens, unreadable));
        let tokens = tokens.transpose()?;
        let refused = metrics.counter_vec(
            "identity_credentials_refused_total",
            "Credentials of persons and programs that were refused, by reason.",
            &["reason"],
        )?;
        for fault in CredentialFault::ALL {
            refused.with_label_values(&[fault.as_str()]);
        }
        Ok(Self(Arc::new(Inner { admin, sessions, tokens, refused })))
    }

    /// Returns the key of this deployment's sessions.
    pub fn sessions(&self) -> &SessionKey {
        &self.0.sessions
    }

    /// Returns the issuer of the accepted tokens of an identity provider.
    pub fn token_issuer(&self) -> Option<&str> {
        self.0.tokens.as_ref().map(|tokens| &**tokens.issuer())
    }

    /// Returns the guard of administrators, whose tokens are accepted too.
    pub fn admin(&self) -> &AdminGuard {
        &self.0.admin
    }

    /// Returns the organisation of a token of the identity provider; `None` without a valid one that names an
    /// organisation.
    ///
    /// For limits alone: an invalid token is refused, and counted, by the route that takes it.
    pub(crate) fn person_organisation(&self, headers: &HeaderMap, now_s: u64) -> Option<Arc<str>> {
        let token = bearer_token(headers)?;
        self.0.tokens.as_ref()?.verify(token, now_s).ok()?.organisation.map(Arc::from)
    }

    /// Returns the organisation of a service's token; `None` without one that names an organisation.
    pub(crate) fn service_organisation(&self, headers: &HeaderMap) -> Option<Arc<str>> {
        self.0.admin.find_by_token(bearer_token(headers)?)?.service().organisation.clone()
    }

    /// Keeps the identity provider's keys up to date, until `stop`. Does nothing if none is configured.
    pub async fn refresh_keys(self, stop: CancellationToken) {
        if let Some(tokens) = self.0.tokens.clone() {
            tokens.refresh_keys(stop).await;
        }
    }

    /// Returns the principal that a bearer token proves, or that being on the same machine proves.
    ///
    /// # Errors
    /// When there is a token and it proves nobody: an invalid token is never taken for none.
    pub fn authenticate(
        &self,
        presented: &PresentedCredentials,
        now_s: u64,
    ) -> Result<Principal, CredentialFault> {
        match presented.bearer() {
            Some(token) => self.of_token(token, now_s).inspect_err(|fault| self.count(*fault)),
            None if presented.is_local() => Ok(self.of_same_machine()),
            None => Ok(Principal::Anonymous),
        }
    }

    /// Returns the service that a client on the same machine is in a batch; `None` if a token of the role `submitter`
    /// is configured, or the client has any sign of another machine.
    pub fn local_service(&self, presented: &PresentedCredentials) -> Option<Service> {
        let name = self.0.admin.local_service().filter(|_| presented.is_local())?;
        Some(Service { name: name.into(), organisation: None, budgets: None })
    }

    /// Returns the service whose token a request has.
    pub fn service(&self, presented: &PresentedCredentials) -> Option<Service> {
        let holder = self.0.admin.find_by_token(presented.bearer()?)?;
        (holder.role() == Role::Submitter).then(|| service(&holder))
    }

    /// Verifies the token of a session, as a cookie has it.
    ///
    /// # Errors
    /// Why the session is not accepted.
    pub fn session(&self, token: &[u8], now_s: u64) -> Result<Person, CredentialFault> {
        self.0.sessions.verify(token, now_s).inspect_err(|fault| self.count(*fault))
    }

    /// Returns the problem of a request whose credentials were refused. A guess counts as a failure of its address.
    pub fn refuse(&self, fault: CredentialFault, presented: &PresentedCredentials) -> Problem {
        let counted = if fault.is_guess() { self.count_failure(presented) } else { Ok(()) };
        counted.err().unwrap_or_else(|| fault.problem())
    }

    /// Counts a wrong token or code as a failure of the client's address, together with those on administrators'
    /// routes.
    ///
    /// # Errors
    /// If the address has made too many. Right credentials are accepted from it still.
    pub fn count_failure(&self, presented: &PresentedCredentials) -> Result<(), Problem> {
        let address = presented.network().address();
        address.map_or(Ok(()), |address| self.0.admin.count_failure(address))
    }

    fn of_token(&self, token: &[u8], now_s: u64) -> Result<Principal, CredentialFault> {
        if let Some(holder) = self.0.admin.find_by_token(token) {
            return Ok(of_holder(&holder));
        }
        let person = match &self.0.tokens {
            _ if self.0.sessions.has_header(token) => self.0.sessions.verify(token, now_s)?,
            Some(tokens) => tokens.verify(token, now_s)?,
            None => return Err(CredentialFault::Malformed),
        };
        Ok(Principal::Person(person))
    }

    fn of_same_machine(&self) -> Principal {
        match self.0.admin.local_administrator() {
            Some(local) => of_holder(&local),
            None => Principal::Anonymous,
        }
    }

    /// Counts refused credentials in the metrics.
    pub fn count(&self, fault: CredentialFault) {
        self.0.refused.with_label_values(&[fault.as_str()]).inc();
    }
}

fn of_holder(holder: &admin::Principal) -> Principal {
    match holder.role() {
        Role::Submitter => Principal::Service(service(holder)),
        role => Principal::Administrator { name: holder.name().into(), role },
    }
}

fn service(holder: &admin::Principal) -> Service {
    let attributes = holder.service().clone();
    Service {
        name: holder.name().into(),
        organisation: attributes.organisation,
        budgets: attributes.budgets,
    }
}
