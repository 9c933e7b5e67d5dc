//! Sessions: who gets one, and for which person.

use http::HeaderMap;
use jiff::Timestamp;
use runtime::principal::{PresentedCredentials, RequestOrigin, Session, credentials_required};
use runtime::problem::{Problem, ProblemKind};
use runtime::random::{NoRandomBits, random_128_bits};
use schemas::{Budget, CodeValidity, IdentityRule, PersonId};

use crate::authorizer::{Authorizer, revocations_unknown};
use crate::code::{CodeKey, Serial};
use crate::cookie;
use crate::email::EmailAddress;
use crate::issuer::{ANONYMOUS, CODE, EMAIL};
use crate::person_cookie::new_person;
use crate::person_scope::{Access, PersonScope};

/// A session that was opened.
#[derive(Clone)]
pub struct OpenedSession {
    /// The token, for `Authorization: Bearer`.
    pub token: String,
    /// When it expires.
    pub expires_at: Timestamp,
    /// The person of the session.
    pub person: PersonId,
    /// The `Set-Cookie` headers with which a browser keeps the session or its person; none for another site's page.
    pub cookies: Vec<String>,
}

impl std::fmt::Debug for OpenedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenedSession(hidden)")
    }
}

impl Authorizer {
    /// Opens a session in a budget: for the holder of a code; or, in an anonymous budget, for the person who asks, and
    /// otherwise for a new one.
    ///
    /// # Errors
    /// When the budget has no sessions, or the code is not one of its codes. Nothing says why it is not.
    pub fn open_session(
        &self,
        budget: &Budget,
        code: Option<&str>,
        presented: &PresentedCredentials,
        headers: &HeaderMap,
    ) -> Result<OpenedSession, Problem> {
        self.counted(self.open(budget, code, presented, headers))
    }

    /// Opens a session in a budget for whoever reads the mailbox of an address. The caller has redeemed the one-time
    /// code that was sent to it.
    ///
    /// # Errors
    /// When the budget's persons are not known by e-mail.
    pub fn open_email_session(
        &self,
        budget: &Budget,
        address: &EmailAddress,
        presented: &PresentedCredentials,
        headers: &HeaderMap,
    ) -> Result<OpenedSession, Problem> {
        self.counted(match budget.identity {
            IdentityRule::Email => self.begin(budget, EMAIL, address.reveal(), presented, headers),
            _ => Err(no_sessions()),
        })
    }

    /// Returns the problem of a one-time code that is not right, whatever the reason. It counts as a failure of the
    /// client's address.
    pub fn refuse_one_time_code(&self, presented: &PresentedCredentials) -> Problem {
        self.sessions.with_label_values(&["refused"]).inc();
        let counted = self.authenticator.count_failure(presented);
        counted.err().unwrap_or_else(|| {
            credentials_required(
                "the one-time code is not valid; `POST` the address alone for a new one",
            )
        })
    }

    fn counted(&self, opened: Result<OpenedSession, Problem>) -> Result<OpenedSession, Problem> {
        let outcome = if opened.is_ok() { "opened" } else { "refused" };
        self.sessions.with_label_values(&[outcome]).inc();
        opened
    }

    /// Returns the `Set-Cookie` headers that end the session of the browser that asks; none for another site's page.
    ///
    /// The token stays valid until it expires or its code is revoked. The cookie of an anonymous person is no session,
    /// and stays.
    ///
    /// # Errors
    /// When the budget has no sessions.
    pub fn end_session(
        &self,
        budget: &Budget,
        presented: &PresentedCredentials,
        headers: &HeaderMap,
    ) -> Result<Vec<String>, Problem> {
        match budget.identity {
            IdentityRule::Code | IdentityRule::Email | IdentityRule::Anonymous => {
                Ok(match presented.origin() {
                    RequestOrigin::Other => Vec::new(),
                    _ => cookie::clear_session(budget, cookie::is_https(headers)),
                })
            }
            _ => Err(no_sessions()),
        }
    }

    /// Returns the `Set-Cookie` headers with which a browser becomes one person of a budget, or stays the one that it
    /// is. None if it has them, and for whoever has a token; none where persons are known otherwise.
    ///
    /// # Errors
    /// Without random bits for a new person.
    pub fn cookies_of_person(
        &self,
        budget: &Budget,
        presented: &PresentedCredentials,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Vec<String>, NoRandomBits> {
        let is_known_otherwise = matches!(
            budget.identity,
            IdentityRule::Code | IdentityRule::Email | IdentityRule::Token
        );
        if is_known_otherwise || presented.bearer().is_some() {
            return Ok(Vec::new());
        }
        let id = match self.person_cookies.read(budget, presented.cookies()) {
            Some(browser) if browser.is_signed => return Ok(Vec::new()),
            // An earlier release gave the id.
            Some(browser) => browser.person.reveal().to_owned(),
            None => new_person(random_128_bits()?),
        };
        Ok(self.person_cookies.set(budget, &id, now, cookie::is_https(headers)))
    }

    /// Returns the person of a browser's cookies; `None` without valid ones.
    pub(crate) fn browser_person(
        &self,
        budget: &Budget,
        presented: &PresentedCredentials,
    ) -> Option<PersonId> {
        Some(self.person_cookies.read(budget, presented.cookies())?.person)
    }

    /// Whether the browser has the session of a person.
    pub fn has_session(&self, budget: &Budget, presented: &PresentedCredentials) -> bool {
        matches!(budget.identity, IdentityRule::Code | IdentityRule::Email)
            && cookie::session(presented.cookies()).is_some()
            && self.person_of_page(budget, presented).is_some()
    }

    fn open(
        &self,
        budget: &Budget,
        code: Option<&str>,
        presented: &PresentedCredentials,
        headers: &HeaderMap,
    ) -> Result<OpenedSession, Problem> {
        let (method, subject) = match (budget.identity, code) {
            (IdentityRule::Code, Some(code)) => (CODE, self.holder(budget, code, presented)?),
            (IdentityRule::Code, None) => {
                return Err(Problem::new(ProblemKind::Malformed)
                    .detail("this budget needs a personal code")
                    .fault("/code", "is required"));
            }
            (IdentityRule::Anonymous, None) => (ANONYMOUS, self.known_or_new(budget, presented)?),
            (IdentityRule::Anonymous, Some(_)) => {
                return Err(Problem::new(ProblemKind::Malformed)
                    .detail("this budget has no personal codes")
                    .fault("/code", "is not known in this budget"));
            }
            _ => {
                return Err(no_sessions());
            }
        };
        self.begin(budget, method, &subject, presented, headers)
    }

    /// Begins the session of a person who has proved to be `subject`.
    fn begin(
        &self,
        budget: &Budget,
        method: &str,
        subject: &str,
        presented: &PresentedCredentials,
        headers: &HeaderMap,
    ) -> Result<OpenedSession, Problem> {
        let now = Timestamp::now();
        let expires_at = now.saturating_add(self.session_lifetime).unwrap_or(Timestamp::MAX);
        let token = self.authenticator.sessions().sign(&Session {
            method,
            subject,
            budget: budget.id.as_str(),
            begins_at_s: seconds(now),
            ends_at_s: seconds(expires_at),
        });
        let secure = cookie::is_https(headers);
        let cookies = match presented.origin() {
            RequestOrigin::Other => Vec::new(),
            _ if method == ANONYMOUS => self.person_cookies.set(budget, subject, now, secure),
            _ => cookie::set_session(budget, &token, self.session_lifetime, secure),
        };
        let person = PersonId::of_issuer(method, subject)
            .map_err(|_| Problem::new(ProblemKind::Internal))?;
        Ok(OpenedSession { token, expires_at, person, cookies })
    }

    /// Returns the serial number of a code that is not revoked. A wrong code counts as a failure of the client's
    /// address.
    fn holder(
        &self,
        budget: &Budget,
        code: &str,
        presented: &PresentedCredentials,
    ) -> Result<String, Problem> {
        let revoked = self.revoked.borrow();
        let validity = |serial: u32| revoked.validity(&budget.id, serial);
        // Unknown for one is unknown for all: said to right and wrong codes alike.
        if validity(0) == CodeValidity::Unknown {
            return Err(revocations_unknown());
        }
        let key = CodeKey::new(&self.person_secret, &budget.id);
        let is_revoked = |serial: Serial| validity(serial.number()) != CodeValidity::Valid;
        match key.verify_unless(code, is_revoked) {
            Some(serial) => Ok(serial.to_string()),
            None => {
                self.authenticator.count_failure(presented)?;
                Err(credentials_required("the code is not valid for this budget"))
            }
        }
    }

    /// Returns the anonymous person who asks, or a new one.
    fn known_or_new(
        &self,
        budget: &Budget,
        presented: &PresentedCredentials,
    ) -> Result<String, Problem> {
        // A cookie that another site's page sends does not tell that page who its reader is.
        if presented.bearer().is_some() || presented.origin() != RequestOrigin::Other {
            match self.person_scope(budget, presented, Access::Read) {
                Ok(PersonScope::Person { person, .. }) => return Ok(person.reveal().to_owned()),
                // An invalid token is not taken for none: its holder would become a second person.
                Err(problem) if presented.bearer().is_some() => return Err(problem),
                _ => {}
            }
        }
        let random = random_128_bits().map_err(|_| Problem::new(ProblemKind::Internal))?;
        Ok(new_person(random))
    }
}

fn no_sessions() -> Problem {
    Problem::new(ProblemKind::Forbidden).detail(
        "this budget has no sessions: a submission names its person, or has an identity provider's token",
    )
}

fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_second()).unwrap_or_default()
}
