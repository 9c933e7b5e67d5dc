//! Parses the body of a new job, and reports every fault at once.

use http::HeaderMap;
use runtime::problem::Problem;
use schemas::job::{ExportFormatFault, JobKind, Priority};
use schemas::{BudgetId, RecordAddress};

use super::body_members::{BodyMembers, EmptyBody};

/// A valid request for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::routes::admin) struct RequestedJob {
    pub kind: JobKind,
    pub priority: Priority,
}

/// What a route determines about the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobRoute {
    /// Nothing; the body names the kind.
    Any,
    /// A rebuild.
    Rebuild,
    /// An audit.
    Audit,
    /// Warming the caches.
    WarmCaches,
    /// A replay of this dead letter.
    ReplayDeadLetter(RecordAddress),
    /// Dropping this dead letter.
    DropDeadLetter(RecordAddress),
}

impl JobRoute {
    /// Returns the kind's name, if the route determines it.
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

    /// Returns the dead letter, if the route determines it.
    fn dead_letter(self) -> Option<RecordAddress> {
        match self {
            Self::ReplayDeadLetter(id) | Self::DropDeadLetter(id) => Some(id),
            Self::Any | Self::Rebuild | Self::Audit | Self::WarmCaches => None,
        }
    }
}

/// Kinds that are submitted through the routes of their budget.
const ELSEWHERE: [&str; 2] = ["annul", "restore_annulment"];

/// Parses a body. It may be empty if the route determines the kind.
///
/// # Errors
/// A problem with every fault of the body.
pub(super) fn parse(
    route: JobRoute,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<RequestedJob, Problem> {
    let empty = if route == JobRoute::Any { EmptyBody::Refused } else { EmptyBody::Allowed };
    let mut body = Body { route, body: BodyMembers::parse(headers, body, empty)? };
    let kind = route.kind().or_else(|| body.kind());
    body.reject_unknown_members(kind);
    let priority = body.body.priority();
    let kind = body.job(kind);
    body.body.finish(kind.map(|kind| RequestedJob { kind, priority }))
}

struct Body {
    route: JobRoute,
    body: BodyMembers,
}

impl Body {
    fn kind(&mut self) -> Option<&'static str> {
        let names = || JobKind::NAMES.into_iter().filter(|name| !ELSEWHERE.contains(name));
        let must_be = format!("must be one of {}", names().collect::<Vec<_>>().join(", "));
        self.body.required("kind", &must_be, |text| names().find(|name| *name == text))
    }

    fn reject_unknown_members(&mut self, kind: Option<&str>) {
        let route = self.route;
        self.body.reject_unknown(|member| match (member, kind) {
            ("kind", _) => route == JobRoute::Any,
            ("priority", _) => true,
            // With an unknown kind, every argument of any kind is accepted.
            ("dry_run", Some("rebuild") | None) => true,
            ("budget", Some("export" | "report") | None) => true,
            ("format" | "publish", Some("export") | None) => true,
            ("letter", Some("replay_dead_letter" | "drop_dead_letter") | None) => {
                route.dead_letter().is_none()
            }
            ("resume", Some("replay_dead_letter") | None) => true,
            _ => false,
        });
    }

    fn job(&mut self, kind: Option<&str>) -> Option<JobKind> {
        Some(match kind? {
            "rebuild" => JobKind::Rebuild { dry_run: self.body.flag("dry_run") },
            "audit" => JobKind::Audit,
            "warm_caches" => JobKind::WarmCaches,
            "export" => {
                let budget = self.budget();
                let must_be = ExportFormatFault.to_string();
                let format = self.body.required("format", &must_be, |text| text.parse().ok());
                let publish = self.body.flag("publish");
                JobKind::Export { budget: budget?, format: format?, publish }
            }
            "report" => JobKind::Report { budget: self.budget()? },
            "archive" => JobKind::Archive,
            "replay_dead_letter" => {
                let (dead_letter, resume) = (self.dead_letter(), self.body.flag("resume"));
                JobKind::ReplayDeadLetter { dead_letter: dead_letter?, resume }
            }
            "drop_dead_letter" => JobKind::DropDeadLetter { dead_letter: self.dead_letter()? },
            _ => return None,
        })
    }

    fn budget(&mut self) -> Option<BudgetId> {
        self.body.required("budget", "must be a budget's id", |text| BudgetId::parse(text).ok())
    }

    fn dead_letter(&mut self) -> Option<RecordAddress> {
        self.route.dead_letter().or_else(|| {
            let must_be = "must be a dead letter's id: partition.offset";
            self.body.required("letter", must_be, |text| text.parse().ok())
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::header::CONTENT_TYPE;
    use proptest::prelude::*;
    use runtime::problem::ProblemKind;
    use schemas::job::ExportFormat;
    use schemas::{LogNumber, Offset, PartitionId};

    use super::*;

    fn json() -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap())])
    }

    fn parsed(route: JobRoute, body: &str) -> (JobKind, Priority) {
        let requested = parse(route, &json(), body.as_bytes()).unwrap();
        (requested.kind, requested.priority)
    }

    fn pointers(route: JobRoute, body: &str) -> Vec<String> {
        let problem = parse(route, &json(), body.as_bytes()).unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::Malformed);
        problem.recorded_faults().iter().map(|fault| fault.pointer.clone()).collect()
    }

    #[test]
    fn a_body_names_kind_arguments_and_priority_and_may_be_empty_on_a_short_route() {
        let rebuild = |dry_run| JobKind::Rebuild { dry_run };
        assert_eq!(
            parsed(JobRoute::Any, r#"{"kind":"rebuild","dry_run":true,"priority":"critical"}"#),
            (rebuild(true), Priority::Critical)
        );
        assert_eq!(
            parsed(JobRoute::Any, r#"{"kind":"audit"}"#),
            (JobKind::Audit, Priority::Normal)
        );
        for name in JobKind::NAMES.into_iter().filter(|name| !ELSEWHERE.contains(name)) {
            let arguments = match name {
                "export" => r#","budget":"taxes","format":"csv""#,
                "report" => r#","budget":"taxes""#,
                "replay_dead_letter" | "drop_dead_letter" => r#","letter":"3.1042""#,
                _ => "",
            };
            let body = format!(r#"{{"kind":"{name}"{arguments}}}"#);
            assert_eq!(parsed(JobRoute::Any, &body).0.name(), name);
        }
        let (budget, format) = (BudgetId::parse("taxes").unwrap(), ExportFormat::Pb);
        assert_eq!(
            parsed(
                JobRoute::Any,
                r#"{"kind":"export","budget":"taxes","format":"pb","publish":true}"#
            )
            .0,
            JobKind::Export { budget, format, publish: true }
        );
        assert_eq!(
            parsed(JobRoute::Any, "\u{feff}{\"kind\":\"audit\"}"),
            (JobKind::Audit, Priority::Normal),
            "after a byte order mark"
        );
        assert_eq!(parsed(JobRoute::Rebuild, ""), (rebuild(false), Priority::Normal));
        assert_eq!(
            parsed(JobRoute::Rebuild, r#"{"dry_run":true}"#),
            (rebuild(true), Priority::Normal)
        );
        assert_eq!(
            parsed(JobRoute::Audit, r#"{"priority":"low"}"#),
            (JobKind::Audit, Priority::Low)
        );
        let dead_letter = RecordAddress {
            log: LogNumber::FIRST,
            partition: PartitionId(3),
            offset: Offset(1042),
        };
        let resumed = JobKind::ReplayDeadLetter { dead_letter, resume: true };
        let body = r#"{"kind":"replay_dead_letter","letter":"3.1042","resume":true}"#;
        assert_eq!(parsed(JobRoute::Any, body).0, resumed);
        assert_eq!(
            parsed(JobRoute::ReplayDeadLetter(dead_letter), r#"{"resume":true}"#).0,
            resumed
        );
        let dropped = JobKind::DropDeadLetter { dead_letter };
        assert_eq!(parsed(JobRoute::DropDeadLetter(dead_letter), "").0, dropped);
        assert_eq!(parsed(JobRoute::WarmCaches, "").0, JobKind::WarmCaches);
        // An empty body needs no media type.
        assert!(parse(JobRoute::Audit, &HeaderMap::new(), b"").is_ok());
        let problem = parse(JobRoute::Audit, &HeaderMap::new(), b"{}").unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::UnsupportedMediaType);
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let body = r#"{"kind":"dance","dry_run":1,"priority":"now","a/b":1}"#;
        assert_eq!(pointers(JobRoute::Any, body), ["/kind", "/a~1b", "/priority"]);
        assert_eq!(pointers(JobRoute::Any, r#"{"kind":"audit","dry_run":true}"#), ["/dry_run"]);
        assert_eq!(pointers(JobRoute::Rebuild, r#"{"kind":"audit"}"#), ["/kind"]);
        let body = r#"{"kind":"export","dry_run":1,"budget":"No Slug","format":"xls"}"#;
        assert_eq!(pointers(JobRoute::Any, body), ["/dry_run", "/budget", "/format"]);
        assert_eq!(pointers(JobRoute::Any, r#"{"kind":"export"}"#), ["/budget", "/format"]);
        assert_eq!(pointers(JobRoute::Audit, r#"{"budget":"taxes"}"#), ["/budget"]);
        for nothing in ["", "{", "[]", "null"] {
            assert_eq!(pointers(JobRoute::Any, nothing), [""], "{nothing}");
        }
        assert_eq!(pointers(JobRoute::Any, "{}"), ["/kind"]);
        for elsewhere in ELSEWHERE {
            assert_eq!(pointers(JobRoute::Any, &format!(r#"{{"kind":"{elsewhere}"}}"#)), ["/kind"]);
        }
        let dead_letter = RecordAddress {
            log: LogNumber::FIRST,
            partition: PartitionId(3),
            offset: Offset(1042),
        };
        let body = r#"{"letter":"3.1043","resume":1}"#;
        assert_eq!(pointers(JobRoute::ReplayDeadLetter(dead_letter), body), ["/letter", "/resume"]);
        assert_eq!(pointers(JobRoute::DropDeadLetter(dead_letter), body), ["/letter", "/resume"]);
        let body = r#"{"kind":"drop_dead_letter","letter":"-1.5"}"#;
        assert_eq!(pointers(JobRoute::Any, body), ["/letter"]);
    }

    #[test]
    fn fault_texts_distinguish_missing_from_invalid_members() {
        let details = |body: &str| -> Vec<String> {
            let problem = parse(JobRoute::Any, &json(), body.as_bytes()).unwrap_err();
            problem.recorded_faults().iter().map(|fault| fault.detail.clone()).collect()
        };
        assert_eq!(
            details(r#"{"kind":"export"}"#),
            [
                "is required, and must be a budget's id",
                "is required, and must be csv, ndjson, pb or parquet"
            ]
        );
        assert_eq!(
            details(r#"{"kind":"export","budget":1,"format":"xls","priority":"now"}"#),
            [
                "must be critical, high, normal or low",
                "must be a budget's id",
                "must be csv, ndjson, pb or parquet"
            ]
        );
    }

    #[test]
    fn a_body_with_very_many_faults_gets_a_bounded_problem() {
        let members: Vec<String> = (0..50_000).map(|number| format!("\"x{number}\":1")).collect();
        let body = format!("{{{},\"{}\":1}}", members.join(","), "y".repeat(100_000));
        let problem = parse(JobRoute::Audit, &json(), body.as_bytes()).unwrap_err();
        assert_eq!(problem.recorded_faults().len(), 100);
        assert!(serde_json::to_vec(&problem).unwrap().len() < 10_000);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(body in ".{0,80}") {
            let _ = parse(JobRoute::Any, &json(), body.as_bytes());
        }
    }
}
