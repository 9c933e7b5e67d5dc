//! Where a request comes from: its network and user agent, in memory only until they are digested.

use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::FromRequestParts;
use http::HeaderValue;
use http::header::USER_AGENT;
use http::request::Parts;
use runtime::client::{Client, RoutedPrefix};
use runtime::principal::PresentedCredentials;
use schemas::{
    Action, BallotDigest, Budget, IdentityLevel, PersonSecret, SignalAction, SignalDayKey,
    SignalHasher, SignalOrigin, Submission,
};

use crate::service::IngestService;

/// Bytes of a user agent that are digested.
const MAX_AGENT_BYTES: usize = 512;

/// What a request's head tells about its client. Personal data: never stored or logged.
pub(crate) struct RequestOrigin {
    prefix: Option<RoutedPrefix>,
    agent: Option<HeaderValue>,
    /// The credential is a program's or an administrator's, who submit for others.
    is_program: bool,
    /// The request is of this machine and has no credentials.
    is_local: bool,
}

impl FromRequestParts<Arc<IngestService>> for RequestOrigin {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        service: &Arc<IngestService>,
    ) -> Result<Self, Infallible> {
        let presented = PresentedCredentials::of(parts);
        Ok(Self {
            // Noted by the layer of limits.
            prefix: parts.extensions.get::<Client>().and_then(Client::routed_prefix),
            agent: parts.headers.get(USER_AGENT).cloned(),
            is_program: service.authorizer.is_program(&presented),
            is_local: presented.is_local(),
        })
    }
}

impl RequestOrigin {
    /// Returns the origin of a request that acts for the person alone who sends it, as forms do.
    pub fn of_person(self) -> Self {
        Self { is_program: false, is_local: false, ..self }
    }
}

/// Computes the digests of requests and ballots.
pub(crate) struct OriginDigester {
    hasher: SignalHasher,
    /// The key of the day, kept because nearly all requests of a day follow each other.
    day_key: ArcSwap<SignalDayKey>,
}

impl OriginDigester {
    /// Creates a digester with keys derived from the deployment's secret.
    pub fn new(person_secret: &PersonSecret, now_ms: u64) -> Self {
        let hasher = SignalHasher::new(person_secret);
        let day_key = ArcSwap::from_pointee(hasher.day_key(now_ms));
        Self { hasher, day_key }
    }

    /// Returns the digests of a request. `None` if it submits on behalf of others: its address says nothing about them.
    pub fn origin(
        &self,
        budget: &Budget,
        request: &RequestOrigin,
        now_ms: u64,
    ) -> Option<SignalOrigin> {
        // Without credentials, this machine speaks for others where the budget demands a proof.
        let for_others =
            request.is_program || (request.is_local && !budget.identity.is_named_by_client());
        if for_others {
            return None;
        }
        let mut key = self.day_key.load_full();
        if !key.covers(now_ms) {
            key = Arc::new(self.hasher.day_key(now_ms));
            self.day_key.store(Arc::clone(&key));
        }
        let agent = request.agent.as_ref().map(|agent| {
            let bytes = agent.as_bytes();
            bytes.get(..MAX_AGENT_BYTES).unwrap_or(bytes)
        });
        Some(SignalOrigin {
            network: request.prefix.map(|prefix| key.network(&budget.id, prefix.as_bytes())),
            agent: agent.map(|agent| key.agent(&budget.id, agent)),
            identity: IdentityLevel::of_rule(budget.identity),
        })
    }

    /// Returns what a submission does, with the digest of its ballot.
    pub fn action(&self, submission: &Submission) -> SignalAction {
        match &submission.action {
            Action::Allocate(allocation) => {
                let ballot: BallotDigest = self.hasher.ballot(&submission.budget, allocation);
                SignalAction::Allocate(ballot)
            }
            Action::Withdraw => SignalAction::Withdraw,
        }
    }
}
