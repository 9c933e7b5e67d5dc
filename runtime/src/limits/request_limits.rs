//! Applies the configured policies to requests: which of them count, where they are counted, and what follows.

use std::sync::Arc;

use http::request::Parts;
use tokio::time::Instant;

use super::admission::{Admission, RequestPermit};
use super::admission_limits::AdmissionLimits;
use super::config::LimitsConfig;
use super::counters::{Charge, SharedCounters, is_within_all};
use super::denials::Denials;
use super::local::LocalCounters;
use super::metrics::LimitMetrics;
use super::policy::{ClientClass, EndpointClass, OutageMode, Policy, Scope};
use super::subject::{PersonHash, Subject};
use super::verdict::{Source, Verdict};
use crate::clock::now_ms;
use crate::metrics::{Metrics, MetricsError};
use crate::principal::Authenticator;
use crate::problem::{Problem, ProblemKind};

/// `Retry-After` of a request that is shed.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// The rate limits of a process. Cheap to clone.
#[derive(Clone)]
pub struct RequestLimits(Arc<Inner>);

struct Inner {
    admission: Admission,
    policies: Vec<Arc<Policy>>,
    instances: u32,
    /// Tells clients with a valid token, proxies that name their clients, and the organisation of a person's token.
    authenticator: Authenticator,
    /// Counters of reads: each process counts on its own.
    reads: LocalCounters,
    shared: Arc<dyn SharedCounters>,
    /// Counters while the shared ones are unreachable.
    fallback: LocalCounters,
    denials: Denials,
    metrics: LimitMetrics,
}

impl RequestLimits {
    /// Creates the limits. Writes are counted in `shared`, and at most `max_requests` requests are admitted at the same time.
    ///
    /// # Errors
    /// If a metric's name is taken.
    pub fn new(
        config: &LimitsConfig,
        max_requests: usize,
        authenticator: Authenticator,
        shared: Arc<dyn SharedCounters>,
        metrics: &Metrics,
    ) -> Result<Self, MetricsError> {
        Ok(Self(Arc::new(Inner {
            admission: Admission::new(AdmissionLimits::new(max_requests)),
            policies: config.policies.clone(),
            instances: config.instances,
            authenticator,
            reads: LocalCounters::default(),
            shared,
            fallback: LocalCounters::default(),
            denials: Denials::default(),
            metrics: LimitMetrics::register(metrics, &config.policies)?,
        })))
    }

    /// Admits a request that is about to be charged, or sheds it.
    ///
    /// # Errors
    /// The problem of a request that is shed.
    pub(super) fn admit(&self, class: EndpointClass) -> Result<RequestPermit, Problem> {
        self.0.admission.admit(class).ok_or_else(|| self.shed(class))
    }

    /// Sheds a request that would not be admitted now.
    ///
    /// # Errors
    /// The problem of a request that is shed.
    pub(super) fn check_admission(&self, class: EndpointClass) -> Result<(), Problem> {
        if self.0.admission.admits(class) { Ok(()) } else { Err(self.shed(class)) }
    }

    fn shed(&self, class: EndpointClass) -> Problem {
        self.0.metrics.count_shed(class);
        Problem::new(ProblemKind::Unavailable)
            .detail("too many requests are being handled at the same time; nothing was accepted")
            .retry_after(RETRY_AFTER)
    }

    /// Returns whom a request counts against, and the policies that apply. Inserts the
    /// [`Client`](crate::client::Client) into its extensions.
    pub(super) fn applicable(&self, class: EndpointClass, request: &mut Parts) -> Applicable {
        let authenticator = &self.0.authenticator;
        let network = authenticator.admin().trusted_proxies().note_client(request).network();
        let of_class = |policy: &&Arc<Policy>| policy.endpoints.contains(&class);
        let mut policies: Vec<Arc<Policy>> =
            self.0.policies.iter().filter(of_class).cloned().collect();
        // Almost no reader has a token: it is looked at only if a policy could apply.
        let is_trusted = !policies.is_empty() && authenticator.admin().trusts(request);
        let clients = if is_trusted { ClientClass::Trusted } else { ClientClass::Public };
        policies.retain(|policy| policy.clients == clients);
        if !network.is_known() {
            let count = policies.len();
            policies.retain(|policy| policy.scope != Scope::Address);
            if policies.len() < count {
                self.0.metrics.requests_without_address.inc();
            }
        }
        // A signature is verified only for a limit that needs it.
        let organisation = policies
            .iter()
            .any(|policy| policy.scope == Scope::Organisation)
            .then(|| match is_trusted {
                // Persons behind a trusted client are not its organisation.
                true => authenticator.service_organisation(&request.headers),
                false => authenticator.person_organisation(&request.headers, now_ms() / 1_000),
            })
            .flatten();
        Applicable { class, network, organisation, policies }
    }

    /// Charges a read to the counters of this process; `None` if no policy applies.
    pub(super) fn charge_read(&self, applicable: &Applicable) -> Option<Verdict> {
        let charges = applicable.charges(&[], 1);
        if charges.is_empty() {
            return None;
        }
        let statuses = self.0.reads.charge(&charges);
        Some(self.counted(Verdict::new(&charges, statuses, Source::Regular)))
    }

    /// Returns the verdict of a request that is refused still; `None` if the counters have to be asked.
    pub(super) fn find_denial(&self, applicable: &Applicable) -> Option<Verdict> {
        if self.0.denials.is_empty() {
            return None;
        }
        self.find_denial_of(&applicable.charges(&[], 1))
    }

    fn find_denial_of(&self, charges: &[Charge]) -> Option<Verdict> {
        let (refused, statuses) = self.0.denials.find(charges);
        if refused.is_empty() {
            return None;
        }
        Some(self.counted(Verdict::new(&refused, statuses, Source::Regular)))
    }

    /// Charges a write to the shared counters, in one call; `None` if no policy applies.
    pub(super) async fn charge_write(
        &self,
        applicable: &Applicable,
        people: &[(PersonHash, u32)],
        items: u32,
    ) -> Option<Verdict> {
        let charges = applicable.charges(people, items);
        if charges.is_empty() {
            return None;
        }
        if let Some(refused) = self.find_denial_of(&charges) {
            return Some(refused);
        }
        let asked_at = Instant::now();
        let verdict = match self.0.shared.charge(&charges).await {
            Ok(statuses) => {
                if self.0.metrics.unreachable.get() != 0 {
                    tracing::info!("rate limit counters are reachable again");
                }
                self.0.metrics.unreachable.set(0);
                if !is_within_all(&statuses) {
                    self.0.denials.remember(&charges, &statuses, asked_at);
                }
                Verdict::new(&charges, statuses, Source::Regular)
            }
            Err(error) => {
                if self.0.metrics.unreachable.get() == 0 {
                    tracing::warn!(%error, "rate limit counters are unreachable, using each limit's outage mode");
                }
                self.0.metrics.unreachable.set(1);
                self.charge_without_shared(charges)
            }
        };
        Some(self.counted(verdict))
    }

    /// Decides as each policy says for an outage. Nothing is charged if one of them refuses.
    fn charge_without_shared(&self, mut charges: Vec<Charge>) -> Verdict {
        for charge in &mut charges {
            self.0.metrics.count_outage(&charge.policy);
            charge.quota = charge.quota.share(self.0.instances);
        }
        let refusing = policies_with(&charges, OutageMode::Refuse);
        if !refusing.is_empty() {
            return Verdict::new(&[], Vec::new(), Source::LocalShare).with_uncounted(refusing);
        }
        let allowing = policies_with(&charges, OutageMode::Allow);
        charges.retain(|charge| charge.policy.outage == OutageMode::LocalShare);
        let statuses = self.0.fallback.charge(&charges);
        Verdict::new(&charges, statuses, Source::LocalShare).with_uncounted(allowing)
    }

    fn counted(&self, verdict: Verdict) -> Verdict {
        self.0.metrics.count(&verdict);
        verdict
    }
}

/// Returns the policies of the charges that have an outage mode, each once.
fn policies_with(charges: &[Charge], mode: OutageMode) -> Vec<Arc<Policy>> {
    let mut policies: Vec<Arc<Policy>> = Vec::new();
    for Charge { policy, .. } in charges {
        if policy.outage == mode && policies.iter().all(|other| other.name != policy.name) {
            policies.push(Arc::clone(policy));
        }
    }
    policies
}

impl std::fmt::Debug for RequestLimits {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RequestLimits")
            .field("policies", &self.0.policies)
            .finish_non_exhaustive()
    }
}

/// The policies that apply to a request, and whom it counts against.
#[derive(Debug)]
pub(super) struct Applicable {
    class: EndpointClass,
    network: crate::client::ClientNetwork,
    /// The organisation of the request's token.
    organisation: Option<Arc<str>>,
    policies: Vec<Arc<Policy>>,
}

impl Applicable {
    /// Returns the class of the request's route.
    pub(super) fn class(&self) -> EndpointClass {
        self.class
    }

    /// Whether no policy applies.
    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Returns the charges of a request with so many items, of them so many of each person.
    fn charges(&self, people: &[(PersonHash, u32)], items: u32) -> Vec<Charge> {
        let mut charges = Vec::with_capacity(self.policies.len());
        let mut charge = |policy: &Arc<Policy>, person: Option<PersonHash>, items: u32| {
            let organisation = self.organisation.clone();
            let subject = Subject { network: self.network, person, organisation };
            if let Some(key) = subject.key(policy.scope, self.class) {
                charges.push(Charge::new(Arc::clone(policy), key, policy.cost(items)));
            }
        };
        for policy in &self.policies {
            if policy.scope == Scope::Person {
                for (person, items) in people {
                    charge(policy, Some(*person), *items);
                }
            } else {
                charge(policy, None, items);
            }
        }
        charges
    }
}
