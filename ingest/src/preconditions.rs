//! The preconditions of a request on a person's submission.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use runtime::http::WriteConditions;
use runtime::problem::{Problem, ProblemKind};

/// Whether a request has `If-Match` or `If-None-Match`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Preconditions {
    is_conditional: bool,
}

impl Preconditions {
    /// Refuses a request that would succeed without its conditions.
    ///
    /// Ingest does not know what is counted for a person, so it cannot tell whether a condition holds; a write whose
    /// condition does not hold must not be made (RFC 9110, 13.1 and 13.2.1).
    ///
    /// # Errors
    /// If the request has a condition.
    pub fn refuse_any(self) -> Result<(), Problem> {
        if !self.is_conditional {
            return Ok(());
        }
        Err(Problem::new(ProblemKind::PreconditionFailed).detail(
            "`If-Match` and `If-None-Match` cannot be checked for a submission; send it without them; nothing was \
             accepted",
        ))
    }
}

impl<S: Sync> FromRequestParts<S> for Preconditions {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self { is_conditional: !WriteConditions::of(&parts.headers).is_empty() })
    }
}
