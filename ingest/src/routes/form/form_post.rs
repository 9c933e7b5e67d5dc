//! A posted form: its members, who posts it, and which kind of answer is expected.

use http::HeaderMap;
use identity::OpenedSession;
use page::form::FormRequest;
use runtime::http::{has_media_type, prefers_json};
use runtime::principal::{PresentedCredentials, credentials_required, require_same_origin};
use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, IdentityRule, PersonId};

use crate::service::IngestService;

/// A form that one of our own pages posted.
pub(super) struct FormPost {
    pub form: FormRequest,
    pub presented: PresentedCredentials,
    /// Whether a script posted it, which expects JSON instead of a page.
    pub wants_json: bool,
}

impl FormPost {
    /// Reads a posted form.
    ///
    /// # Errors
    /// When another site's page sent it, or it is not urlencoded.
    pub fn read(
        headers: &HeaderMap,
        presented: PresentedCredentials,
        body: &[u8],
    ) -> Result<Self, Problem> {
        require_same_origin(headers)?;
        if !has_media_type(headers, "application/x-www-form-urlencoded") {
            return Err(Problem::new(ProblemKind::UnsupportedMediaType)
                .detail("`Content-Type` must be `application/x-www-form-urlencoded`"));
        }
        let (form, wants_json) = (FormRequest::parse(body), prefers_json(headers));
        Ok(Self { form, presented, wants_json })
    }

    /// Opens a session if the form has a personal code and the budget asks for one.
    ///
    /// # Errors
    /// When the code is not valid.
    pub fn open_session(
        &self,
        service: &IngestService,
        budget: &Budget,
        headers: &HeaderMap,
    ) -> Result<Option<OpenedSession>, Problem> {
        match &self.form.code {
            Some(code) if budget.identity == IdentityRule::Code => {
                let (authorizer, presented) = (&service.authorizer, &self.presented);
                authorizer.open_session(budget, Some(code.reveal()), presented, headers).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Returns the person of the cookies.
    ///
    /// # Errors
    /// Without one: the session has ended, or the browser refuses the cookie, since the page has set it. Or after too
    /// many failures of the address.
    pub fn require_person(
        &self,
        service: &IngestService,
        budget: &Budget,
    ) -> Result<PersonId, Problem> {
        let person = service.authorizer.person_of_form(budget, &self.presented)?;
        person.ok_or_else(|| match budget.identity {
            IdentityRule::Code => {
                credentials_required("this budget needs a personal code; nothing was accepted")
            }
            IdentityRule::Email => credentials_required(
                "this budget needs the session of an e-mail address; nothing was accepted",
            ),
            IdentityRule::Token => credentials_required(
                "this budget needs the token of its identity provider; nothing was accepted",
            ),
            _ => Problem::new(ProblemKind::Forbidden).detail(
                "the request has no cookie of this budget: cookies are blocked, and without one nobody could count once; \
                 nothing was accepted",
            ),
        })
    }
}
