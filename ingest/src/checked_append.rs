//! Charges and appends the submissions of a request, as checked against the definition that is or gets frozen.

use std::sync::Arc;

use runtime::limits::LimitTicket;
use runtime::problem::Problem;
use schemas::Budget;
use storage::control::{ChangeRefused, ControlTopicError};

use crate::append::AppendRefused;
use crate::charge::charge;
use crate::metrics::IngestMetrics;
use crate::pending::{AppendOutcome, PendingSubmission};
use crate::problems;
use crate::service::{IngestService, require_accepting};

/// Attempts to append what may freeze a budget. Each retry means that its definition has been changed meanwhile.
const MAX_APPEND_ATTEMPTS: u32 = 10;

/// The submissions of a request, checked against a definition.
pub(crate) struct Prepared<T> {
    /// What is to be appended.
    pub submissions: Vec<PendingSubmission>,
    /// The number of items that the request is charged.
    pub items: usize,
    /// What the response needs besides the outcomes.
    pub rest: T,
}

/// A request that was rejected as a whole.
pub(crate) struct Rejected {
    pub problem: Problem,
    /// How many submissions were rejected: 1 when the items were not counted.
    pub submissions: u64,
}

impl From<Problem> for Rejected {
    fn from(problem: Problem) -> Self {
        Self { problem, submissions: 1 }
    }
}

impl Rejected {
    /// Counts the rejected submissions and returns the problem.
    pub fn counted(self, metrics: &IngestMetrics) -> Problem {
        metrics.count_rejected(self.problem.kind(), self.submissions);
        self.problem
    }
}

impl IngestService {
    /// Prepares submissions against a definition, charges them to the limits once, and appends them. Returns their
    /// outcomes in order.
    ///
    /// The first allocation freezes the definition that it was prepared against, and no other, and a withdrawal is appended
    /// under that definition alone: if it has changed meanwhile, the submissions are prepared again, so that what their check
    /// refuses freezes and withdraws nothing.
    ///
    /// # Errors
    /// The problem of `prepare`, a limit that is reached, or why nothing can be appended.
    pub async fn append_checked<T>(
        &self,
        ticket: &LimitTicket,
        mut budget: Arc<Budget>,
        prepare: impl Fn(&Budget) -> Result<Prepared<T>, Problem>,
    ) -> Result<(Vec<AppendOutcome>, T), Rejected> {
        let (mut is_charged, mut counted) = (false, 1);
        for _ in 0..MAX_APPEND_ATTEMPTS {
            let Prepared { submissions, items, rest } = prepare(&budget)?;
            let rejected = |problem| Rejected { problem, submissions: items as u64 };
            if !is_charged {
                charge(ticket, &submissions, items).await.map_err(rejected)?;
                is_charged = true;
            }
            if submissions.is_empty() {
                return Ok((Vec::new(), rest));
            }
            budget = match self.appender.append(&budget, submissions).await {
                Ok(outcomes) => return Ok((outcomes, rest)),
                Err(AppendRefused::DefinitionChanged(changed)) => changed,
                Err(AppendRefused::TooManyInFlight) => {
                    return Err(rejected(problems::too_many_in_flight()));
                }
                Err(AppendRefused::NotFrozen(error)) => {
                    return Err(rejected(not_in_force(&error, "frozen")));
                }
                Err(AppendRefused::NotConfirmed(error)) => {
                    return Err(rejected(not_in_force(&error, "read")));
                }
            };
            require_accepting(&budget).map_err(rejected)?;
            counted = items as u64;
        }
        let problem = problems::unavailable("the budget's rules are being changed");
        Err(Rejected { problem, submissions: counted })
    }
}

/// The definition that submissions were checked against could not be `frozen` or `read`.
fn not_in_force(error: &ControlTopicError, step: &str) -> Problem {
    match error {
        ControlTopicError::Refused(ChangeRefused::Unknown) => problems::budget_not_found(),
        ControlTopicError::Refused(ChangeRefused::NotUnderstood) => {
            problems::definition_not_understood(&format!(
                "its rules could not be {step}, and nothing was accepted",
            ))
        }
        ControlTopicError::Refused(
            ChangeRefused::Frozen
            | ChangeRefused::Closed
            | ChangeRefused::NotClosed
            | ChangeRefused::NoSalt
            | ChangeRefused::Forgotten
            | ChangeRefused::PreconditionFailed,
        )
        | ControlTopicError::Unavailable(_) => {
            problems::unavailable(&format!("the budget's rules could not be {step}"))
        }
    }
}
