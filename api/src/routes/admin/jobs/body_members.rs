//! The members of a JSON body of an administrators' request, and the faults found so far.

use http::HeaderMap;
use runtime::http::{has_media_type, without_byte_order_mark};
use runtime::problem::{Faults, Problem, ProblemKind, member_pointer};
use schemas::job::{Priority, PriorityFault};
use serde_json::{Map, Value};

/// Whether a body may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::routes::admin) enum EmptyBody {
    /// It has no members.
    Allowed,
    /// It is a fault.
    Refused,
}

/// The members of a body, and the faults found so far.
pub(in crate::routes::admin) struct BodyMembers {
    pub members: Map<String, Value>,
    pub faults: Faults,
}

impl BodyMembers {
    /// Parses a body.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn parse(headers: &HeaderMap, body: &[u8], empty: EmptyBody) -> Result<Self, Problem> {
        let mut faults = Faults::default();
        if body.is_empty() && empty == EmptyBody::Allowed {
            return Ok(Self { members: Map::new(), faults });
        }
        require_json(headers)?;
        match serde_json::from_slice(without_byte_order_mark(body)) {
            Ok(Value::Object(members)) => return Ok(Self { members, faults }),
            Ok(_) => faults.malformed("", "must be an object"),
            Err(error) => {
                let position = format!("line {}, column {}", error.line(), error.column());
                faults.malformed("", format!("is not JSON: {position}"));
            }
        }
        Err(faults.into_problem(ProblemKind::Malformed))
    }

    /// Records a fault of each member that is not accepted.
    pub fn reject_unknown(&mut self, accepts: impl Fn(&str) -> bool) {
        for name in self.members.keys().filter(|name| !accepts(name)) {
            self.faults.malformed(member_pointer("", name), "is not supported here");
        }
    }

    /// Parses the job's priority.
    pub fn priority(&mut self) -> Priority {
        let Some(value) = self.members.get("priority") else { return Priority::default() };
        let known = value.as_str().and_then(|text| text.parse().ok());
        known.unwrap_or_else(|| {
            self.faults.malformed("/priority", PriorityFault.to_string());
            Priority::default()
        })
    }

    /// Parses an optional truth value.
    pub fn flag(&mut self, name: &str) -> bool {
        match self.members.get(name) {
            None => false,
            Some(Value::Bool(value)) => *value,
            Some(_) => {
                self.faults.malformed(format!("/{name}"), "must be true or false");
                false
            }
        }
    }

    /// Parses a required text member.
    pub fn required<T>(
        &mut self,
        name: &str,
        must_be: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.members.get(name);
        let parsed = value.and_then(Value::as_str).and_then(parse);
        if parsed.is_none() {
            let required = if value.is_none() { "is required, and " } else { "" };
            self.faults.malformed(format!("/{name}"), format!("{required}{must_be}"));
        }
        parsed
    }

    /// Returns what was parsed, unless there is a fault.
    ///
    /// # Errors
    /// A problem with every fault.
    pub fn finish<T>(self, parsed: Option<T>) -> Result<T, Problem> {
        match parsed {
            Some(parsed) if self.faults.is_empty() => Ok(parsed),
            _ => Err(self.faults.into_problem(ProblemKind::Malformed)),
        }
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    if has_media_type(headers, "application/json") {
        Ok(())
    } else {
        Err(Problem::new(ProblemKind::UnsupportedMediaType)
            .detail("`Content-Type` must be `application/json`"))
    }
}
