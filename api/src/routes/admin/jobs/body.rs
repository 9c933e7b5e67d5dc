//! The body that asks for a job, read with every fault at once.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use runtime::problem::{Fault, Problem, ProblemKind};
use schemas::BudgetId;
use schemas::job::{ExportFormatFault, JobKind, Priority};
use serde_json::{Map, Value};

/// What a body asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub kind: JobKind,
    pub priority: Priority,
}

/// What the route says already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing: the body names the kind.
    Any,
    /// A rebuild.
    Rebuild,
    /// An audit.
    Audit,
}

/// Reads a body. Where the route names the kind, it may be left out.
///
/// # Errors
/// A problem with every fault of it.
pub(super) fn read(form: Form, headers: &HeaderMap, body: &[u8]) -> Result<Asked, Problem> {
    let members = if body.is_empty() && form != Form::Any {
        Map::new()
    } else {
        must_be_json(headers)?;
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => members,
            Ok(_) => return Err(malformed(vec![fault("", "must be an object")])),
            Err(error) => {
                let place = format!("line {}, column {}", error.line(), error.column());
                return Err(malformed(vec![fault("", &format!("is not JSON: {place}"))]));
            }
        }
    };
    let mut faults = Vec::new();
    let kind = match form {
        Form::Any => kind(members.get("kind"), &mut faults),
        Form::Rebuild => Some("rebuild"),
        Form::Audit => Some("audit"),
    };
    let takes = |member: &str| match member {
        "kind" => form == Form::Any,
        "priority" => true,
        // Of an unknown kind it is not known what it takes.
        "dry_run" => matches!(kind, Some("rebuild") | None),
        "budget" | "format" => matches!(kind, Some("export") | None),
        _ => false,
    };
    for name in members.keys().filter(|name| !takes(name)) {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        faults.push(fault(&format!("/{}", clipped(&escaped)), "is not read here"));
    }
    let dry_run = match members.get("dry_run") {
        Some(Value::Bool(dry_run)) => *dry_run,
        Some(_) if takes("dry_run") => {
            faults.push(fault("/dry_run", "must be true or false"));
            false
        }
        _ => false,
    };
    let priority = match members.get("priority") {
        None => Priority::default(),
        Some(value) => value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            faults.push(fault("/priority", "must be critical, high, normal or low"));
            Priority::default()
        }),
    };
    let kind = match kind {
        Some("rebuild") => Some(JobKind::Rebuild { dry_run }),
        Some("audit") => Some(JobKind::Audit),
        Some("warm_caches") => Some(JobKind::WarmCaches),
        Some("export") => export(&members, &mut faults),
        Some("archive") => Some(JobKind::Archive),
        _ => None,
    };
    match kind {
        Some(kind) if faults.is_empty() => Ok(Asked { kind, priority }),
        _ => Err(malformed(faults)),
    }
}

fn kind(value: Option<&Value>, faults: &mut Vec<Fault>) -> Option<&'static str> {
    let known = value
        .and_then(Value::as_str)
        .and_then(|text| JobKind::NAMES.into_iter().find(|name| *name == text));
    if known.is_none() {
        let names = JobKind::NAMES.join(", ");
        faults.push(fault("/kind", &format!("is required: one of {names}")));
    }
    known
}

/// What an export needs.
fn export(members: &Map<String, Value>, faults: &mut Vec<Fault>) -> Option<JobKind> {
    let text = |name| members.get(name).and_then(Value::as_str);
    let budget = text("budget").and_then(|text| BudgetId::parse(text).ok());
    if budget.is_none() {
        faults.push(fault("/budget", "is required: a budget's id"));
    }
    let format = text("format").and_then(|text| text.parse().ok());
    if format.is_none() {
        faults.push(fault("/format", &format!("is required: {ExportFormatFault}")));
    }
    Some(JobKind::Export { budget: budget?, format: format? })
}

fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let essence = given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json") {
        Ok(())
    } else {
        Err(Problem::new(ProblemKind::UnsupportedMediaType)
            .detail("`Content-Type` must be `application/json`"))
    }
}

/// A client's own text is repeated to it in part.
fn clipped(text: &str) -> String {
    text.chars().take(64).collect()
}

fn fault(pointer: &str, detail: &str) -> Fault {
    Fault { pointer: pointer.to_owned(), detail: detail.to_owned() }
}

fn malformed(faults: Vec<Fault>) -> Problem {
    Problem::new(ProblemKind::Malformed)
        .detail("the body asks for no job that there is")
        .faults(faults)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use schemas::job::ExportFormat;

    use super::*;

    fn json() -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap())])
    }

    fn asked(form: Form, body: &str) -> (JobKind, Priority) {
        let asked = read(form, &json(), body.as_bytes()).unwrap();
        (asked.kind, asked.priority)
    }

    fn pointers(form: Form, body: &str) -> Vec<String> {
        let problem = read(form, &json(), body.as_bytes()).unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::Malformed);
        problem.noted_faults().iter().map(|fault| fault.pointer.clone()).collect()
    }

    #[test]
    fn a_body_names_kind_arguments_and_priority_and_a_short_form_may_say_nothing() {
        let rebuild = |dry_run| JobKind::Rebuild { dry_run };
        assert_eq!(
            asked(Form::Any, r#"{"kind":"rebuild","dry_run":true,"priority":"critical"}"#),
            (rebuild(true), Priority::Critical)
        );
        assert_eq!(asked(Form::Any, r#"{"kind":"audit"}"#), (JobKind::Audit, Priority::Normal));
        for name in JobKind::NAMES {
            let arguments =
                if name == "export" { r#","budget":"taxes","format":"csv""# } else { "" };
            let body = format!(r#"{{"kind":"{name}"{arguments}}}"#);
            assert_eq!(asked(Form::Any, &body).0.name(), name);
        }
        let (budget, format) = (BudgetId::parse("taxes").unwrap(), ExportFormat::Pb);
        assert_eq!(
            asked(Form::Any, r#"{"kind":"export","budget":"taxes","format":"pb"}"#).0,
            JobKind::Export { budget, format }
        );
        assert_eq!(asked(Form::Rebuild, ""), (rebuild(false), Priority::Normal));
        assert_eq!(asked(Form::Rebuild, r#"{"dry_run":true}"#), (rebuild(true), Priority::Normal));
        assert_eq!(asked(Form::Audit, r#"{"priority":"low"}"#), (JobKind::Audit, Priority::Low));
        // Nothing has no media type.
        assert!(read(Form::Audit, &HeaderMap::new(), b"").is_ok());
        let problem = read(Form::Audit, &HeaderMap::new(), b"{}").unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::UnsupportedMediaType);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let body = r#"{"kind":"dance","dry_run":1,"priority":"now","a/b":1}"#;
        assert_eq!(pointers(Form::Any, body), ["/kind", "/a~1b", "/dry_run", "/priority"]);
        assert_eq!(pointers(Form::Any, r#"{"kind":"audit","dry_run":true}"#), ["/dry_run"]);
        assert_eq!(pointers(Form::Rebuild, r#"{"kind":"audit"}"#), ["/kind"]);
        let body = r#"{"kind":"export","dry_run":1,"budget":"No Slug","format":"xls"}"#;
        assert_eq!(pointers(Form::Any, body), ["/dry_run", "/budget", "/format"]);
        assert_eq!(pointers(Form::Any, r#"{"kind":"export"}"#), ["/budget", "/format"]);
        assert_eq!(pointers(Form::Audit, r#"{"budget":"taxes"}"#), ["/budget"]);
        for nothing in ["", "{", "[]", "null"] {
            assert_eq!(pointers(Form::Any, nothing), [""], "{nothing}");
        }
        assert_eq!(pointers(Form::Any, "{}"), ["/kind"]);
    }

    proptest! {
        #[test]
        fn no_body_panics_the_reader(body in ".{0,80}") {
            let _ = read(Form::Any, &json(), body.as_bytes());
        }
    }
}
