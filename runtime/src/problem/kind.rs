//! The catalogue of problem kinds: slug, status, title and advice.

use http::StatusCode;

/// A kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The request has invalid syntax, for example no JSON or wrong types.
    Malformed,
    /// The credentials are missing or invalid.
    Unauthorized,
    /// The credentials are valid but do not allow the request.
    Forbidden,
    /// The route, budget, person or export does not exist.
    NotFound,
    /// The route exists, but not for this method.
    MethodNotAllowed,
    /// The response has no form that the client accepts.
    NotAcceptable,
    /// The client took too long to send its request.
    RequestTimeout,
    /// The body exceeds the size limit.
    ContentTooLarge,
    /// The URI exceeds the size limit.
    UriTooLong,
    /// The route does not read the body's media type.
    UnsupportedMediaType,
    /// The headers exceed the size limit.
    HeadersTooLarge,
    /// The budget is not open yet, or closed.
    BudgetClosed,
    /// The budget has reached its cap on people, and the person is new.
    BudgetFull,
    /// The budget has submissions, so its rules cannot change.
    BudgetFrozen,
    /// A request with the same idempotency key is in progress.
    InFlight,
    /// The resource's state does not allow the request.
    WrongState,
    /// The budget's persons are forgotten: nobody is found again.
    Forgotten,
    /// The requested submission is not counted yet.
    NotYetVisible,
    /// A precondition of the request does not hold, or cannot be checked.
    PreconditionFailed,
    /// The allocation breaks a rule.
    InvalidAllocation,
    /// The budget definition breaks a rule.
    InvalidBudget,
    /// The idempotency key was used for a different request.
    KeyReused,
    /// A rate limit is exceeded.
    RateLimited,
    /// The service or a backend cannot handle the request now.
    Unavailable,
    /// A fault of the service.
    Internal,
}

impl ProblemKind {
    /// All kinds, in the order of the index page.
    pub const ALL: &[Self] = &[
        Self::Malformed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::BudgetClosed,
        Self::BudgetFull,
        Self::BudgetFrozen,
        Self::InFlight,
        Self::WrongState,
        Self::Forgotten,
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

    /// Returns the last part of the problem's `type`, `/problems/<slug>`.
    pub const fn slug(self) -> &'static str {
        self.entry().0
    }

    /// Returns the response status.
    pub const fn status(self) -> StatusCode {
        self.entry().1
    }

    /// Returns a short description of the kind.
    pub const fn title(self) -> &'static str {
        self.entry().2
    }

    /// Returns what the client should do.
    pub const fn advice(self) -> &'static str {
        self.entry().3
    }

    /// Returns the kind of a status, or the nearest kind if the status has none.
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
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST, "Malformed request",
                "The route cannot read the request: the body is not JSON, a field is missing or has the wrong type, or a \
                 parameter is unknown. `detail` and `errors` say where. Correct the request before you repeat it."),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "Credentials required",
                "The route needs credentials, and the request had none or invalid ones. Send valid credentials as the \
                 `WWW-Authenticate` header says."),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "Forbidden",
                "The credentials are valid, but do not allow this request. A retry with the same credentials will not \
                 help."),
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND, "Not found",
                "No route, budget, person or published export matches this path. Check the path's spelling and the \
                 budget's id; `GET /v1/budgets` lists the budgets. A person who submitted just now may not be counted \
                 yet: send the receipt as `Consistency-Token` to wait for it."),
            Self::MethodNotAllowed => ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "Method not allowed",
                "The path exists, but not for this method. The `Allow` header lists the methods that it supports."),
            Self::NotAcceptable => ("not-acceptable", StatusCode::NOT_ACCEPTABLE, "Not acceptable",
                "The response has no form that the `Accept` header allows. Accept `application/json`, or omit the \
                 header."),
            Self::RequestTimeout => ("request-timeout", StatusCode::REQUEST_TIMEOUT, "Request timeout",
                "The request did not arrive completely within the time limit. Nothing was accepted. Repeat it; on a slow \
                 connection, send smaller requests."),
            Self::BudgetClosed => ("budget-closed", StatusCode::CONFLICT, "The budget is not open",
                "The budget does not accept submissions now. `GET /v1/budgets/{budget}` shows when it opens and closes."),
            Self::BudgetFull => ("budget-full", StatusCode::CONFLICT, "The budget has reached its number of people",
                "The budget has reached its `max_people` and accepts no new people. Who is counted can still change the                  submission or withdraw; a person whose first submission was accepted moments ago can do so a moment                  later."),
            Self::BudgetFrozen => ("budget-frozen", StatusCode::CONFLICT, "The budget is frozen",
                "The budget has submissions, so its categories, its identity rule and its publish step can no longer change, \
                 and it cannot be deleted. Change other fields only, or create another budget."),
            Self::InFlight => ("in-flight", StatusCode::CONFLICT, "The same request is in progress",
                "Another request with the same idempotency key is in progress. Repeat this request after a moment: it \
                 then gets the response of the first one."),
            Self::WrongState => ("wrong-state", StatusCode::CONFLICT, "Not possible in the current state",
                "The resource's state does not allow the request: a job that has ended cannot be cancelled, only a dead \
                 job can be retried, and a dead letter that was replayed cannot be dropped. Read the current state \
                 first."),
            Self::Forgotten => ("forgotten", StatusCode::GONE, "The budget's persons are forgotten",
                "The budget has closed, and what its persons were found by has been destroyed. Nobody can find the \
                 submission of a person again; the results remain. Do not repeat the request."),
            Self::NotYetVisible => ("not-yet-visible", StatusCode::PRECONDITION_FAILED, "Submission not counted yet",
                "The submission in `Consistency-Token` or `at_least` was accepted, but the readable results do not count \
                 it yet. Repeat the request, or let it wait with `Prefer: wait=N` (seconds)."),
            Self::PreconditionFailed => ("precondition-failed", StatusCode::PRECONDITION_FAILED, "Precondition failed",
                "A condition in the request's headers does not hold, or cannot be checked. Read the current state \
                 and decide again; or, where it cannot be checked, send the request without the condition."),
            Self::ContentTooLarge => ("content-too-large", StatusCode::PAYLOAD_TOO_LARGE, "Body too large",
                "The body exceeds the size limit. Nothing was accepted. Split it into several requests."),
            Self::UriTooLong => ("uri-too-long", StatusCode::URI_TOO_LONG, "URI too long",
                "The path and query exceed the size limit. Ask for less per request."),
            Self::UnsupportedMediaType => ("unsupported-media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type",
                "The `Content-Type` is missing, or the route does not read it. Send `application/json`, or \
                 `application/x-ndjson` where the route reads it."),
            Self::InvalidAllocation => ("invalid-allocation", StatusCode::UNPROCESSABLE_ENTITY, "Invalid allocation",
                "Every percentage must belong to a category of the budget, be at least 0 and have at most two decimals; \
                 their sum must be exactly 100. `errors` lists all faults, each with a pointer. Nothing was accepted."),
            Self::InvalidBudget => ("invalid-budget", StatusCode::UNPROCESSABLE_ENTITY, "Invalid budget definition",
                "A budget needs a name, 2 to 64 categories with unique ids, and consistent rules. `errors` lists all \
                 faults, each with a pointer. Nothing was changed."),
            Self::KeyReused => ("key-reused", StatusCode::UNPROCESSABLE_ENTITY, "Idempotency key reused",
                "This idempotency key or submission id was used for different content. Use a new key for new content, and \
                 the same key only to repeat a request."),
            Self::RateLimited => ("rate-limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests",
                "A limit of this client is exceeded. Nothing was accepted. `Retry-After` says how many seconds to wait; \
                 `RateLimit` headers, if there are any, show the remaining quota."),
            Self::HeadersTooLarge => ("headers-too-large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Headers too large",
                "The headers are too many or too large. Send fewer: large cookies are the usual cause."),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Internal error",
                "The service failed. It is unknown whether the request took effect: repeat it with the same \
                 `Idempotency-Key` or `submission_id`, and it counts once. If the error persists, report `instance`."),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Temporarily unavailable",
                "A backend is unavailable, or the service is at a limit. `detail` says whether anything was accepted. \
                 Repeat the request after the seconds in `Retry-After`; with the same `Idempotency-Key` or \
                 `submission_id` it counts once."),
        }
    }
}
