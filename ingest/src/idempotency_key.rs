//! The submission id that a client supplies in the body or in `Idempotency-Key`.

use axum::extract::FromRequestParts;
use http::request::Parts;
use runtime::http::idempotency_key;
use runtime::problem::{Problem, ProblemKind};
use schemas::{BudgetId, PersonKeyHasher, SubmissionId};
use uuid::Uuid;

/// The header `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdempotencyKey {
    Absent,
    /// A UUID, which is the submission id itself.
    Uuid(Uuid),
    /// Any other text, from which an id is derived.
    Text(String),
}

impl IdempotencyKey {
    /// Returns the id from the header or the body, if either has one.
    ///
    /// # Errors
    /// When header and body have different ids.
    pub fn submission_id(
        &self,
        in_body: Option<SubmissionId>,
        budget: &BudgetId,
        hasher: &PersonKeyHasher,
    ) -> Result<Option<SubmissionId>, Problem> {
        let in_header = match self {
            Self::Absent => return Ok(in_body),
            Self::Uuid(uuid) => SubmissionId(*uuid),
            Self::Text(text) => hasher.submission_id(budget, text),
        };
        if in_body.is_some_and(|in_body| in_body != in_header) {
            return Err(Problem::new(ProblemKind::Malformed)
                .detail("`Idempotency-Key` and `submission_id` are different ids")
                .fault("/submission_id", "differs from the header `Idempotency-Key`"));
        }
        Ok(Some(in_header))
    }
}

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(idempotency_key(&parts.headers)?.map_or(Self::Absent, |text| {
            Uuid::try_parse(text).map_or_else(|_| Self::Text(text.to_owned()), Self::Uuid)
        }))
    }
}
