//! Parses a request for a session.

use identity::email::{EmailAddress, OneTimeCode};
use runtime::problem::{Faults, Problem, ProblemKind};

use super::json::{parse_known_members, parse_string};

/// Parses the body of `POST /v1/budgets/{budget}/session`: the personal code, if the body has one.
///
/// # Errors
/// A problem with every fault of the body. It does not repeat the code.
pub(crate) fn session_code(body: &[u8]) -> Result<Option<String>, Problem> {
    let mut faults = Faults::default();
    let [code] = parse_known_members(body, "", ["code"], &mut faults).unwrap_or_else(|error| {
        faults.malformed("", error.detail("an object"));
        [None]
    });
    let code = code.and_then(|code| {
        let text = parse_string(code).map_err(|detail| faults.malformed("/code", detail));
        text.ok().map(|text| text.into_owned())
    });
    if faults.is_empty() { Ok(code) } else { Err(faults.into_problem(ProblemKind::Malformed)) }
}

/// A request for a session by e-mail.
pub(crate) struct EmailSessionRequest {
    /// The address.
    pub address: EmailAddress,
    /// The one-time code that was sent to it; `None` asks for one.
    pub otp: Option<OneTimeCode>,
}

/// Parses the body of `POST /v1/budgets/{budget}/session` in a budget whose persons are known by e-mail.
///
/// # Errors
/// A problem with every fault of the body. It repeats neither the address nor the code.
pub(crate) fn email_session(body: &[u8]) -> Result<EmailSessionRequest, Problem> {
    let mut faults = Faults::default();
    let members = parse_known_members(body, "", ["email", "otp"], &mut faults);
    let [email, otp] = members.unwrap_or_else(|error| {
        faults.malformed("", error.detail("an object"));
        [None; 2]
    });
    if email.is_none() && !faults.covers("") {
        faults.malformed("/email", "is required");
    }
    let email = email.and_then(|email| {
        let address = parse_string(email)
            .and_then(|text| EmailAddress::parse(&text).map_err(|fault| fault.to_string().into()));
        address.map_err(|detail| faults.malformed("/email", detail)).ok()
    });
    let otp = otp.and_then(|otp| {
        let code = parse_string(otp)
            .and_then(|text| OneTimeCode::parse(&text).ok_or_else(|| "must be six digits".into()));
        code.map_err(|detail| faults.malformed("/otp", detail)).ok()
    });
    match email {
        Some(address) if faults.is_empty() => Ok(EmailSessionRequest { address, otp }),
        _ => Err(faults.into_problem(ProblemKind::Malformed)),
    }
}
