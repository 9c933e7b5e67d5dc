//! The name that a client gives a submission, in the body or in `Idempotency-Key`.

use axum::extract::FromRequestParts;
use http::request::Parts;
use runtime::http::idempotency_key;
use runtime::problem::{Problem, ProblemKind};
use schemas::{BudgetId, PersonKeyHasher, SubmissionId};
use uuid::Uuid;

/// What the header says, if it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdempotencyKey {
    Absent,
    /// A UUID is the submission's id itself.
    Uuid(Uuid),
    /// Any other text stands for one.
    Text(String),
}

impl IdempotencyKey {
    /// The submission's id, from the header or from the body; none if neither has one.
    ///
    /// # Errors
    /// When both have one and they differ.
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
                .detail("`Idempotency-Key` and `submission_id` name different submissions")
                .fault("/submission_id", "is not the one of the header `Idempotency-Key`"));
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
