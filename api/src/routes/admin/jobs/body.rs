//! The body that asks for a job, read with every fault at once.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use runtime::problem::{Faults, Problem, ProblemKind, member_pointer};
use schemas::job::{ExportFormatFault, JobKind, Priority, PriorityFault};
use schemas::{BudgetId, Receipt};
use serde_json::{Map, Value};

/// What a body asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub kind: JobKind,
    pub priority: Priority,
}

/// What the route says already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Nothing: the body names the kind.
    Any,
    /// A rebuild.
    Rebuild,
    /// An audit.
    Audit,
    /// Warming the caches.
    WarmCaches,
    /// The replay of this dead letter.
    ReplayDeadLetter(Receipt),
    /// That this dead letter is dropped.
    DropDeadLetter(Receipt),
}

impl Form {
    /// The kind's name, as far as the route says it.
    fn kind(self) -> Option<&'static str> {
        match self {
            Self::Any => None,
            Self::Rebuild => Some("rebuild"),
            Self::Audit => Some("audit"),
            Self::WarmCaches => Some("warm_caches"),
            Self::ReplayDeadLetter(_) => Some("replay_dead_letter"),
            Self::DropDeadLetter(_) => Some("drop_dead_letter"),
        }
    }

    /// The dead letter, as far as the route says it.
    fn letter(self) -> Option<Receipt> {
        match self {
            Self::ReplayDeadLetter(letter) | Self::DropDeadLetter(letter) => Some(letter),
            Self::Any | Self::Rebuild | Self::Audit | Self::WarmCaches => None,
        }
    }
}

/// Reads a body. Where the route names the kind, it may be left out.
///
/// # Errors
/// A problem with every fault of it.
pub(super) fn read(form: Form, headers: &HeaderMap, body: &[u8]) -> Result<Asked, Problem> {
    let mut faults = Faults::default();
    let members = if body.is_empty() && form != Form::Any {
        Map::new()
    } else {
        must_be_json(headers)?;
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => members,
            Ok(_) => {
                faults.malformed("", "must be an object");
                return Err(faults.into_problem(ProblemKind::Malformed));
            }
            Err(error) => {
                let place = format!("line {}, column {}", error.line(), error.column());
                faults.malformed("", format!("is not JSON: {place}"));
                return Err(faults.into_problem(ProblemKind::Malformed));
            }
        }
    };
    let mut body = Body { form, members, faults };
    let kind = form.kind().or_else(|| body.kind());
    body.refuse_what_is_not_read(kind);
    let priority = body.priority();
    let kind = body.job(kind);
    let Body { faults, .. } = body;
    match kind {
        Some(kind) if faults.is_empty() => Ok(Asked { kind, priority }),
        _ => Err(faults.into_problem(ProblemKind::Malformed)),
    }
}

/// The members of a body, and what is wrong with them so far.
struct Body {
    form: Form,
    members: Map<String, Value>,
    faults: Faults,
}

impl Body {
    fn kind(&mut self) -> Option<&'static str> {
        let must_be = format!("must be one of {}", JobKind::NAMES.join(", "));
        let known = |text: &str| JobKind::NAMES.into_iter().find(|name| *name == text);
        self.needed("kind", &must_be, known)
    }

    fn refuse_what_is_not_read(&mut self, kind: Option<&str>) {
        let form = self.form;
        let takes = |member: &str| match (member, kind) {
            ("kind", _) => form == Form::Any,
            ("priority", _) => true,
            // Of an unknown kind it is not known what it takes.
            ("dry_run", Some("rebuild") | None) => true,
            ("budget" | "format" | "publish", Some("export") | None) => true,
            ("letter", Some("replay_dead_letter" | "drop_dead_letter") | None) => {
                form.letter().is_none()
            }
            ("resume", Some("replay_dead_letter") | None) => true,
            _ => false,
        };
        for name in self.members.keys().filter(|name| !takes(name)) {
            self.faults.malformed(member_pointer("", name), "is not read here");
        }
    }

    fn priority(&mut self) -> Priority {
        let Some(value) = self.members.get("priority") else { return Priority::default() };
        let known = value.as_str().and_then(|text| text.parse().ok());
        known.unwrap_or_else(|| {
            self.faults.malformed("/priority", PriorityFault.to_string());
            Priority::default()
        })
    }

    fn job(&mut self, kind: Option<&str>) -> Option<JobKind> {
        Some(match kind? {
            "rebuild" => JobKind::Rebuild { dry_run: self.flag("dry_run") },
            "audit" => JobKind::Audit,
            "warm_caches" => JobKind::WarmCaches,
            "export" => {
                let budget = self
                    .needed("budget", "must be a budget's id", |text| BudgetId::parse(text).ok());
                let must_be = ExportFormatFault.to_string();
                let format = self.needed("format", &must_be, |text| text.parse().ok());
                let publish = self.flag("publish");
                JobKind::Export { budget: budget?, format: format?, publish }
            }
            "archive" => JobKind::Archive,
            "replay_dead_letter" => {
                let (letter, resume) = (self.letter(), self.flag("resume"));
                JobKind::ReplayDeadLetter { letter: letter?, resume }
            }
            "drop_dead_letter" => JobKind::DropDeadLetter { letter: self.letter()? },
            _ => return None,
        })
    }

    fn letter(&mut self) -> Option<Receipt> {
        self.form.letter().or_else(|| {
            let must_be = "must be a dead letter's id: partition.offset";
            self.needed("letter", must_be, |text| text.parse().ok())
        })
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.members.get(name) {
            None => false,
            Some(Value::Bool(value)) => *value,
            Some(_) => {
                self.faults.malformed(format!("/{name}"), "must be true or false");
                false
            }
        }
    }

    /// A text that there has to be.
    fn needed<T>(
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use schemas::job::ExportFormat;
    use schemas::{LogNumber, Offset, PartitionId};

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
            let arguments = match name {
                "export" => r#","budget":"taxes","format":"csv""#,
                "replay_dead_letter" | "drop_dead_letter" => r#","letter":"3.1042""#,
                _ => "",
            };
            let body = format!(r#"{{"kind":"{name}"{arguments}}}"#);
            assert_eq!(asked(Form::Any, &body).0.name(), name);
        }
        let (budget, format) = (BudgetId::parse("taxes").unwrap(), ExportFormat::Pb);
        assert_eq!(
            asked(Form::Any, r#"{"kind":"export","budget":"taxes","format":"pb","publish":true}"#)
                .0,
            JobKind::Export { budget, format, publish: true }
        );
        assert_eq!(asked(Form::Rebuild, ""), (rebuild(false), Priority::Normal));
        assert_eq!(asked(Form::Rebuild, r#"{"dry_run":true}"#), (rebuild(true), Priority::Normal));
        assert_eq!(asked(Form::Audit, r#"{"priority":"low"}"#), (JobKind::Audit, Priority::Low));
        let letter =
            Receipt { log: LogNumber::FIRST, partition: PartitionId(3), offset: Offset(1042) };
        let resumed = JobKind::ReplayDeadLetter { letter, resume: true };
        let body = r#"{"kind":"replay_dead_letter","letter":"3.1042","resume":true}"#;
        assert_eq!(asked(Form::Any, body).0, resumed);
        assert_eq!(asked(Form::ReplayDeadLetter(letter), r#"{"resume":true}"#).0, resumed);
        let dropped = JobKind::DropDeadLetter { letter };
        assert_eq!(asked(Form::DropDeadLetter(letter), "").0, dropped);
        assert_eq!(asked(Form::WarmCaches, "").0, JobKind::WarmCaches);
        // Nothing has no media type.
        assert!(read(Form::Audit, &HeaderMap::new(), b"").is_ok());
        let problem = read(Form::Audit, &HeaderMap::new(), b"{}").unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::UnsupportedMediaType);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let body = r#"{"kind":"dance","dry_run":1,"priority":"now","a/b":1}"#;
        assert_eq!(pointers(Form::Any, body), ["/kind", "/a~1b", "/priority"]);
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
        let letter =
            Receipt { log: LogNumber::FIRST, partition: PartitionId(3), offset: Offset(1042) };
        let body = r#"{"letter":"3.1043","resume":1}"#;
        assert_eq!(pointers(Form::ReplayDeadLetter(letter), body), ["/letter", "/resume"]);
        assert_eq!(pointers(Form::DropDeadLetter(letter), body), ["/letter", "/resume"]);
        let body = r#"{"kind":"drop_dead_letter","letter":"-1.5"}"#;
        assert_eq!(pointers(Form::Any, body), ["/letter"]);
    }

    #[test]
    fn a_fault_reads_well_whether_something_is_missing_or_wrong() {
        let said = |body: &str| -> Vec<String> {
            let problem = read(Form::Any, &json(), body.as_bytes()).unwrap_err();
            problem.noted_faults().iter().map(|fault| fault.detail.clone()).collect()
        };
        assert_eq!(
            said(r#"{"kind":"export"}"#),
            [
                "is required, and must be a budget's id",
                "is required, and must be csv, ndjson, pb or parquet"
            ]
        );
        assert_eq!(
            said(r#"{"kind":"export","budget":1,"format":"xls","priority":"now"}"#),
            [
                "must be critical, high, normal or low",
                "must be a budget's id",
                "must be csv, ndjson, pb or parquet"
            ]
        );
    }

    #[test]
    fn a_body_of_very_many_faults_is_answered_with_few() {
        let members: Vec<String> = (0..50_000).map(|number| format!("\"x{number}\":1")).collect();
        let body = format!("{{{},\"{}\":1}}", members.join(","), "y".repeat(100_000));
        let problem = read(Form::Audit, &json(), body.as_bytes()).unwrap_err();
        assert_eq!(problem.noted_faults().len(), 100);
        assert!(serde_json::to_vec(&problem).unwrap().len() < 10_000);
    }

    proptest! {
        #[test]
        fn no_body_panics_the_reader(body in ".{0,80}") {
            let _ = read(Form::Any, &json(), body.as_bytes());
        }
    }
}
