//! The submission id that a client supplies in the body or in `Idempotency-Key`.

use axum::extract::FromRequestParts;
use http::request::Parts;
use runtime::http::idempotency_key;
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, PersonId, PersonSecret, SubmissionId};
use utoipa::IntoParams;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use uuid::Uuid;

use crate::problems::forgotten;

/// Minimum length of a key that no person scopes, unless it is a UUID: strangers must not choose the same.
const UNSCOPED_KEY_MIN_LENGTH: usize = 16;

/// How a key begins that a gateway has made for the retries of one request: its client does not know it.
const GATEWAY_PREFIX: &str = "gateway-";

/// The header `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IdempotencyKey {
    Absent,
    /// A UUID, which is the submission id itself.
    Uuid(Uuid),
    /// Any other text, from which an id is derived.
    Text(String),
}

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(255))
            .pattern(Some("^[!-~]+$"));
        let key = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some("A repeated request with the same key is one submission"))
            .schema(Some(text));
        vec![key.build()]
    }
}

impl IdempotencyKey {
    /// Whether a gateway has made the key, for its own retries of one request.
    pub fn is_of_gateway(&self) -> bool {
        matches!(self, Self::Text(text) if text.starts_with(GATEWAY_PREFIX))
    }

    /// Returns the id from the header or the body, if either has one. A text means something to its person alone.
    ///
    /// # Errors
    /// When the budget's persons are forgotten, when header and body have different ids, or when strangers may send the
    /// same key, and one of them would get the other's receipt.
    pub fn submission_id(
        &self,
        in_body: Option<SubmissionId>,
        budget: &Budget,
        person: Option<&PersonId>,
        person_secret: &PersonSecret,
    ) -> Result<Option<SubmissionId>, Problem> {
        let in_header = match self {
            Self::Absent => return Ok(in_body),
            Self::Uuid(uuid) => SubmissionId(*uuid),
            Self::Text(text) if person.is_none() && text.len() < UNSCOPED_KEY_MIN_LENGTH => {
                return Err(Problem::new(ProblemKind::Malformed).detail(format!(
                    "without a `person`, `Idempotency-Key` must be a UUID or have at least {UNSCOPED_KEY_MIN_LENGTH} \
                     characters, so that nobody else sends the same",
                )));
            }
            Self::Text(text) => {
                let persons = person_secret.for_budget(budget).map_err(forgotten)?;
                persons.submission_id(person, text)
            }
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
