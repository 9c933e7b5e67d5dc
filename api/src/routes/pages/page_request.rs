//! What a page needs of its request.

use http::header::ACCEPT_LANGUAGE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use identity::email::EmailAddress;
use identity::{Authorizer, cookie};
use jiff::Timestamp;
use page::form::FormRequest;
use page::language::Language;
use page::texts::Texts;
use runtime::principal::PresentedCredentials;
use schemas::{Budget, PersonId};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A request of a page.
pub(super) struct PageRequest {
    pub headers: HeaderMap,
    presented: PresentedCredentials,
    pub path: String,
    pub query: String,
    /// The query's members.
    pub form: FormRequest,
    /// The texts of the chosen language.
    pub texts: &'static Texts,
    pub now: Timestamp,
}

impl PageRequest {
    /// Reads a request. A link on another site cannot fill in the form, nor claim that something failed.
    pub fn of(parts: &Parts) -> Self {
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let mut form = FormRequest::parse(query.as_bytes());
        if parts.headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site") {
            form = FormRequest { lang: form.lang, ..FormRequest::default() };
        }
        let accept = parts.headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        let language = Language::choose(form.lang.as_deref(), accept);
        Self {
            headers: parts.headers.clone(),
            presented: PresentedCredentials::of(parts),
            path: parts.uri.path().to_owned(),
            query,
            texts: Texts::of(language),
            form,
            now: Timestamp::now(),
        }
    }

    /// The page's language.
    pub fn language(&self) -> Language {
        self.texts.language()
    }

    /// Whether the browser has the session of a person in a budget.
    pub fn has_session(&self, authorizer: &Authorizer, budget: &Budget) -> bool {
        authorizer.has_session(budget, &self.presented)
    }

    /// Returns the address for which the browser has asked a one-time code.
    pub fn email(&self) -> Option<EmailAddress> {
        cookie::email(self.presented.cookies())
    }

    /// Builds the cookies with which the browser becomes a person of a budget, or stays one; `None` without random
    /// bits.
    pub fn cookies_of_person(
        &self,
        authorizer: &Authorizer,
        budget: &Budget,
    ) -> Option<Vec<HeaderValue>> {
        let cookies =
            authorizer.cookies_of_person(budget, &self.presented, &self.headers, self.now);
        cookies.ok()?.iter().map(|cookie| HeaderValue::from_str(cookie).ok()).collect()
    }

    /// Returns the person of the request in a budget.
    pub fn person(&self, authorizer: &Authorizer, budget: &Budget) -> Option<PersonId> {
        authorizer.person_of_page(budget, &self.presented)
    }
}
