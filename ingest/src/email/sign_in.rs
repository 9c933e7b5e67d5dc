//! Who gets a one-time code, and whether one is right.
//!
//! Every address of valid syntax takes the same way with the same one call of the store, whether it may take part, is
//! throttled or has a code already.

use std::sync::Arc;

use identity::email::{EmailAddress, EmailCodeKey, EmailDomains, OneTimeCode};
use page::language::Language;
use page::mail::code_mail;
use runtime::client::ClientNetwork;
use runtime::problem::{Problem, ProblemKind};
use runtime::random::random_128_bits;
use schemas::{Budget, PersonSecret};
use storage::one_time_codes::{CodesUnavailable, IssueOutcome, OneTimeCodes};

use super::sender::{MailOrder, MailSender, Withheld};
use crate::problems;

/// Signs persons in by e-mail. Cheap to clone.
#[derive(Clone)]
pub struct EmailSignIn(Arc<Inner>);

struct Inner {
    domains: EmailDomains,
    key: EmailCodeKey,
    codes: Arc<dyn OneTimeCodes>,
    sender: MailSender,
}

impl std::fmt::Debug for EmailSignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EmailSignIn")
    }
}

impl EmailSignIn {
    pub(super) fn new(
        domains: EmailDomains,
        person_secret: &PersonSecret,
        codes: Arc<dyn OneTimeCodes>,
        sender: MailSender,
    ) -> Self {
        Self(Arc::new(Inner { domains, key: EmailCodeKey::new(person_secret), codes, sender }))
    }

    /// Makes a code for an address in a budget and sends it in the background, if the address may take part and its
    /// mailbox may get another mail.
    ///
    /// # Errors
    /// When codes cannot be stored, or there are no random bits. Never because of the address.
    pub(crate) async fn send_code(
        &self,
        budget: &Budget,
        address: EmailAddress,
        language: Language,
    ) -> Result<(), Problem> {
        let Inner { domains, key, codes, sender } = &*self.0;
        let random = random_128_bits().map_err(|_| Problem::new(ProblemKind::Internal))?;
        let code = OneTimeCode::new(random);
        let is_allowed = domains.allow(&address);
        let (holder, decoy) = (key.holder(&budget.id, &address), key.decoy(random));
        // Denied addresses are free to invent: the store makes the same call, and does not grow with them.
        let holder = if is_allowed { holder } else { decoy };
        let hash = key.code(&budget.id, &address, &code);
        let issued = codes.issue(&holder, &hash).await.map_err(|error| unavailable(&error))?;
        let withheld = match (is_allowed, issued) {
            (false, _) => Some(Withheld::Denied),
            (true, IssueOutcome::Throttled) => Some(Withheld::Throttled),
            (true, IssueOutcome::Issued) => None,
        };
        let mail = code_mail(budget, language, code.reveal());
        sender.take(MailOrder { to: address, mail, withheld });
        Ok(())
    }

    /// Uses up the code of an address in a budget, for a client. Returns whether it was right.
    ///
    /// # Errors
    /// When it cannot be told.
    pub(crate) async fn redeem(
        &self,
        budget: &Budget,
        address: &EmailAddress,
        code: &OneTimeCode,
        client: ClientNetwork,
    ) -> Result<bool, Problem> {
        let Inner { domains, key, codes, .. } = &*self.0;
        let holder = key.holder(&budget.id, address);
        let hash = key.code(&budget.id, address, code);
        let is_right = codes.redeem(&holder, &hash, key.client(client).as_ref()).await;
        let is_right = is_right.map_err(|error| unavailable(&error))?;
        // A domain may have been denied meanwhile.
        Ok(is_right & domains.allow(address))
    }
}

fn unavailable(error: &CodesUnavailable) -> Problem {
    tracing::debug!(%error, "one-time codes unavailable");
    problems::unavailable("one-time codes cannot be checked at the moment")
}
