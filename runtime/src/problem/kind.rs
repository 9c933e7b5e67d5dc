//! The catalogue: every kind of problem, its status, and what somebody who gets it should do.

use http::StatusCode;

/// A kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// Not what the route reads at all: not JSON, wrong types.
    Malformed,
    /// No or bad credentials.
    Unauthorized,
    /// Good credentials that do not allow this.
    Forbidden,
    /// No such route, budget or person.
    NotFound,
    /// The route exists, for other methods.
    MethodNotAllowed,
    /// No form of the answer is one that the client accepts.
    NotAcceptable,
    /// The client took too long to send its request.
    RequestTimeout,
    /// The body is larger than is taken.
    ContentTooLarge,
    /// The URI is longer than is taken.
    UriTooLong,
    /// The body is of a media type that the route does not read.
    UnsupportedMediaType,
    /// The headers are larger than is taken.
    HeadersTooLarge,
    /// The budget is not open yet, or closed.
    BudgetClosed,
    /// The rules of a budget that has submissions cannot change.
    BudgetFrozen,
    /// A request with the same idempotency key is not finished.
    InFlight,
    /// What was asked for cannot be done to it as it is.
    WrongState,
    /// The submission asked for is not counted yet.
    NotYetVisible,
    /// A precondition of the request does not hold.
    PreconditionFailed,
    /// The allocation breaks a rule.
    InvalidAllocation,
    /// The budget's definition breaks a rule.
    InvalidBudget,
    /// The idempotency key was used for something else.
    KeyReused,
    /// Over a limit.
    RateLimited,
    /// Something behind this service cannot take the request now.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl ProblemKind {
    /// Every kind, in the order of the index page.
    pub const ALL: &[Self] = &[
        Self::Malformed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::BudgetClosed,
        Self::BudgetFrozen,
        Self::InFlight,
        Self::WrongState,
        Self::NotYetVisible,
        Self::PreconditionFailed,
        Self::ContentTooLarge,
        Self::UriTooLong,
        Self::UnsupportedMediaType,
        Self::InvalidAllocation,
        Self::InvalidBudget,
        Self::KeyReused,
        Self::RateLimited,
        Self::HeadersTooLarge,
        Self::Internal,
        Self::Unavailable,
    ];

    /// The last part of the problem's `type`, `/problems/<slug>`.
    pub const fn slug(self) -> &'static str {
        self.entry().0
    }

    /// The status with which it is answered.
    pub const fn status(self) -> StatusCode {
        self.entry().1
    }

    /// What kind of problem it is, in a few words.
    pub const fn title(self) -> &'static str {
        self.entry().2
    }

    /// What somebody who gets it should do.
    pub const fn advice(self) -> &'static str {
        self.entry().3
    }

    /// The kind that says what a bare status says; for statuses without one of their own, the nearest.
    pub fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND | StatusCode::GONE => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::NOT_ACCEPTABLE => Self::NotAcceptable,
            StatusCode::REQUEST_TIMEOUT => Self::RequestTimeout,
            StatusCode::PRECONDITION_FAILED => Self::PreconditionFailed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::ContentTooLarge,
            StatusCode::URI_TOO_LONG => Self::UriTooLong,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::HeadersTooLarge,
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Self::Unavailable,
            other if other.is_server_error() => Self::Internal,
            _ => Self::Malformed,
        }
    }

    #[rustfmt::skip]
    const fn entry(self) -> (&'static str, StatusCode, &'static str, &'static str) {
        match self {
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST, "The request cannot be read",
                "The request is not what this route reads: its body is not JSON, a field is missing or of another \
                 type, or a parameter has no meaning here. `detail` and `errors` say where. Correct the request; the \
                 same one again will be refused again."),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "Credentials are needed",
                "The route needs credentials, and the request had none or had bad ones. Send valid ones as the \
                 `WWW-Authenticate` header says."),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "The credentials do not allow this",
                "The credentials are good, but what was asked for belongs to somebody else or needs more rights. \
                 Trying again with the same credentials will not help."),
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND, "There is nothing here",
                "No route, no budget, no person and no published export answers to this path. Check the path's spelling and the budget's id; \
                 `GET /v1/budgets` lists the budgets. A person who was just submitted may not be counted yet: send the \
                 receipt as `Consistency-Token` to wait for it."),
            Self::MethodNotAllowed => ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "The route has other methods",
                "The path exists, but not for this method. The `Allow` header lists the methods that it takes."),
            Self::NotAcceptable => ("not-acceptable", StatusCode::NOT_ACCEPTABLE, "No acceptable form",
                "The answer exists in no form that the `Accept` header allows. Ask for `application/json` or for \
                 anything."),
            Self::RequestTimeout => ("request-timeout", StatusCode::REQUEST_TIMEOUT, "The request took too long to arrive",
                "The request did not arrive whole in the time that a request has. Nothing was accepted. Send it again, \
                 and send less at once if the connection is slow."),
            Self::BudgetClosed => ("budget-closed", StatusCode::CONFLICT, "The budget is not open",
                "The budget does not take submissions at this time. `GET /v1/budgets/{budget}` tells when it opens and \
                 closes."),
            Self::BudgetFrozen => ("budget-frozen", StatusCode::CONFLICT, "The rules are frozen",
                "The budget has submissions, so its categories and its identity rule can no longer change. Change only \
                 what else it has, or create another budget."),
            Self::InFlight => ("in-flight", StatusCode::CONFLICT, "The same request is not finished",
                "Another request with the same idempotency key is being worked on. Wait a moment and repeat this one: \
                 it then gets the other one's answer."),
            Self::WrongState => ("wrong-state", StatusCode::CONFLICT, "Not possible as it is now",
                "What was asked for does not fit to where it stands: a job that has ended cannot be cancelled, and only a \
                 dead one can be retried; a dead letter that has been replayed cannot be dropped. Look at it, and decide anew."),
            Self::NotYetVisible => ("not-yet-visible", StatusCode::PRECONDITION_FAILED, "Not counted yet",
                "The submission that `Consistency-Token` or `at_least` names was accepted, but is not counted in what \
                 can be read here yet. Repeat the request, or let it wait with `Prefer: wait=N` (seconds)."),
            Self::PreconditionFailed => ("precondition-failed", StatusCode::PRECONDITION_FAILED, "A condition does not hold",
                "A condition in the request's headers does not hold. Read the current state and decide anew."),
            Self::ContentTooLarge => ("content-too-large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large",
                "The body is larger than this service takes. Split it into several requests; nothing of this one was \
                 accepted."),
            Self::UriTooLong => ("uri-too-long", StatusCode::URI_TOO_LONG, "The URI is too long",
                "The path and query are longer than this service reads. Ask for less at once."),
            Self::UnsupportedMediaType => ("unsupported-media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The media type is not read here",
                "The `Content-Type` is missing or is one that this route does not read. Send `application/json`, or \
                 `application/x-ndjson` where the route takes it."),
            Self::InvalidAllocation => ("invalid-allocation", StatusCode::UNPROCESSABLE_ENTITY, "The allocation breaks a rule",
                "Every percentage must belong to a category of the budget, be at least 0 and have at most two decimals, \
                 and all together must make exactly 100. `errors` lists every fault at once, each with a pointer to it. \
                 Nothing was accepted."),
            Self::InvalidBudget => ("invalid-budget", StatusCode::UNPROCESSABLE_ENTITY, "The definition breaks a rule",
                "A budget has a name, 2 to 64 categories with ids of their own, and rules that fit together. `errors` \
                 lists every fault at once, each with a pointer to it. Nothing was changed."),
            Self::KeyReused => ("key-reused", StatusCode::UNPROCESSABLE_ENTITY, "The key was used for something else",
                "This idempotency key or submission id came before with other content. Use a new one for \
                 something new, and the old one only to repeat the same."),
            Self::RateLimited => ("rate-limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests",
                "A limit is reached. `Retry-After` tells how many seconds to wait, the `RateLimit` headers tell what is \
                 left. Nothing was accepted."),
            Self::HeadersTooLarge => ("headers-too-large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large",
                "The headers are more, or larger, than this service reads. Send fewer: large cookies are the usual \
                 cause."),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "A fault of this service",
                "Something is wrong on our side. Whether the request took effect is not known: repeat it with the same \
                 `Idempotency-Key` or `submission_id`, and it counts once. If it persists, report `instance`."),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Not possible right now",
                "Something that this service needs does not answer, or it is at its limit. `detail` says whether \
                 anything was accepted. Repeat the request after the seconds in `Retry-After`; with the same \
                 `Idempotency-Key` or `submission_id` it counts once."),
        }
    }
}
