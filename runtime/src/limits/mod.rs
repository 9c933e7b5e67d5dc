//! Rate limits: any number of policies at once, over all processes of a deployment for writes, in each process for
//! reads. Under overload, requests of limited routes are shed by class.
//!
//! | module | owns |
//! |---|---|
//! | `quota`, `state` | the decision of one limit: numbers, state and time to an outcome; pure |
//! | `policy`, `config` | whom and what a limit counts, and its configuration |
//! | `subject` | whom a request counts against |
//! | `counters` | a charge, and the seam to counters that processes share |
//! | `local` | counters in bounded memory |
//! | `admission_limits` | how many requests may be admitted for each class; pure |
//! | `admission` | the count of admitted requests |
//! | `denials` | refusals that hold still, so that they cost no call |
//! | `request_limits` | which policies apply to a request, and what follows |
//! | `verdict` | headers and problem of the outcome |
//! | `middleware` | the layers of limited routes |
//! | `metrics` | how often each limit allowed and refused, and which requests were shed |
//!
//! This module does not decide which routes are limited, and what a person or an item is.

mod admission;
mod admission_limits;
mod config;
mod counters;
mod denials;
mod local;
mod metrics;
mod middleware;
mod policy;
mod quota;
mod request_limits;
mod state;
mod subject;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod verdict;

pub use config::LimitsConfig;
pub use counters::{Charge, CountersUnavailable, SharedCounters, is_within_all};
pub use local::LocalCounters;
pub use middleware::{
    ChargeTiming, LimitTicket, LimitedRead, LimitedReads, ReadLimitLayer, SignInTicket, WriteLimit,
    limit_write,
};
pub use policy::{ClientClass, EndpointClass, OutageMode, Policy, PolicyFault, Scope, Unit};
pub use quota::{
    Algorithm, MAX_UNITS, MAX_WINDOW_MS, MIN_WINDOW_MS, Quota, QuotaDecision, QuotaFault,
    QuotaStatus,
};
pub use request_limits::RequestLimits;
pub use state::State;
pub use subject::{PersonHash, Subject, SubjectKey};
pub(crate) use verdict::copy_limit_headers;
pub(crate) use verdict::{Source, Verdict};
