//! Parses a request for a session.

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
