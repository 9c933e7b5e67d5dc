//! The problem responses that several routes share.

use std::time::Duration;

use runtime::problem::{Problem, ProblemKind};
use schemas::{PersonsForgotten, SubmissionId};

/// `Retry-After` of every problem that a retry may resolve.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// `Retry-After` while the log is full: only an operator can resolve it.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(60);

/// Nothing was accepted, for a reason that may pass.
pub(crate) fn unavailable(detail: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable)
        .detail(format!("{detail}; nothing was accepted"))
        .retry_after(RETRY_AFTER)
}

/// The log rejects records: nothing was accepted.
pub(crate) fn log_unavailable() -> Problem {
    unavailable("the log is unavailable")
}

/// The log has reached its configured size: nothing is accepted until an operator raises it.
pub(crate) fn log_full() -> Problem {
    Problem::new(ProblemKind::Unavailable)
        .detail(
            "the log has reached its configured size, and takes no submissions until an operator raises it; nothing was \
             accepted",
        )
        .retry_after(RETRY_AFTER_FULL)
}

/// The log did not confirm the record, which may be appended.
pub(crate) fn outcome_unknown(id: SubmissionId) -> Problem {
    Problem::new(ProblemKind::Unavailable)
        .detail(format!(
            "the log did not confirm the submission in time, so it is unknown whether it was accepted; repeat it with \
             \"submission_id\": \"{id}\", and it counts once"
        ))
        .retry_after(RETRY_AFTER)
}

/// Too many records wait for the log, or for the control topic.
pub(crate) fn too_many_in_flight() -> Problem {
    unavailable("too many submissions are waiting for the log")
}

/// The budget is closed: nothing was accepted.
pub(crate) fn budget_closed() -> Problem {
    Problem::new(ProblemKind::BudgetClosed).detail("the budget is closed; nothing was accepted")
}

/// The budget has reached its cap on people: nothing of a new person was accepted.
pub(crate) fn budget_full() -> Problem {
    Problem::new(ProblemKind::BudgetFull).detail(
        "the budget has reached its `max_people`, and this person is not counted; this submission was not accepted",
    )
}

/// The budget has reached its cap on people, and the store does not say whether the person is counted.
pub(crate) fn standing_unknown() -> Problem {
    unavailable(
        "the budget has reached its `max_people`, and it cannot be looked up now whether this person is counted",
    )
}

/// The processors reopen the budget: nothing was accepted.
pub(crate) fn budget_reopening() -> Problem {
    Problem::new(ProblemKind::BudgetClosed)
        .detail("the budget is being reopened, which takes a moment; nothing was accepted")
        .retry_after(RETRY_AFTER)
}

/// The budget was closed while the submission was appended.
pub(crate) fn closed_meanwhile() -> Problem {
    Problem::new(ProblemKind::BudgetClosed).detail(
        "the budget was closed while the submission was on its way, so it was not accepted; it is unknown whether it came in \
         time to be counted",
    )
}

/// Another request with the same submission id has not finished.
pub(crate) fn in_flight() -> Problem {
    Problem::new(ProblemKind::InFlight)
        .detail(
            "another request with this submission id is still in progress; retry to get its result",
        )
        .retry_after(RETRY_AFTER)
}

/// The submission id belongs to a submission with different content.
pub(crate) fn id_reused() -> Problem {
    Problem::new(ProblemKind::KeyReused).detail(
        "this submission id was already used with another allocation or a withdrawal of this person; nothing was accepted",
    )
}

/// A newer release wrote the budget's definition. Another process, or this one after its update, can handle the
/// request.
pub(crate) fn definition_not_understood(consequence: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable)
        .detail(format!(
            "a newer release wrote the budget's definition, and this process does not understand all of it: {consequence}"
        ))
        .retry_after(RETRY_AFTER)
}

/// The problem of a request that needs the key of a person of a forgotten budget.
pub(crate) fn forgotten(forgotten: PersonsForgotten) -> Problem {
    Problem::new(ProblemKind::Forgotten).detail(forgotten.to_string())
}

pub(crate) fn budget_not_found() -> Problem {
    Problem::new(ProblemKind::NotFound).detail("there is no such budget")
}
