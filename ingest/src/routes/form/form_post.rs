//! A posted form: its members, who posts it, and which kind of answer is expected.

use http::HeaderMap;
use http::header::COOKIE;
use page::form::FormRequest;
use page::person;
use runtime::http::{has_media_type, prefers_json};
use runtime::problem::{Problem, ProblemKind};
use schemas::PersonId;

use super::same_origin::require_same_origin;

/// A form that one of our own pages posted.
pub(super) struct FormPost {
    pub form: FormRequest,
    /// The person of the cookie.
    pub person: Option<PersonId>,
    /// Whether a script posted it, which expects JSON instead of a page.
    pub wants_json: bool,
}

impl FormPost {
    /// Reads a posted form.
    ///
    /// # Errors
    /// When another site's page sent it, or it is not urlencoded.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        require_same_origin(headers)?;
        if !has_media_type(headers, "application/x-www-form-urlencoded") {
            return Err(Problem::new(ProblemKind::UnsupportedMediaType)
                .detail("`Content-Type` must be `application/x-www-form-urlencoded`"));
        }
        Ok(Self {
            form: FormRequest::parse(body),
            person: person_of(headers),
            wants_json: prefers_json(headers),
        })
    }

    /// Returns the person of the cookie.
    ///
    /// # Errors
    /// Without a cookie: the browser refuses them, since the page has set it.
    pub fn require_person(&self) -> Result<&PersonId, Problem> {
        self.person.as_ref().ok_or_else(|| {
            Problem::new(ProblemKind::Forbidden).detail(
                "the request has no cookie of this budget: cookies are blocked, and without one nobody could count once; \
                 nothing was accepted",
            )
        })
    }
}

/// Returns the person of the request's cookie.
pub(super) fn person_of(headers: &HeaderMap) -> Option<PersonId> {
    person::from_cookies(headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()))
}
