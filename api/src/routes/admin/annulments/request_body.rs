//! Parses the body of a new annulment, and reports every fault at once.

use http::HeaderMap;
use runtime::problem::Problem;
use schemas::job::{JobId, JobKind};
use schemas::{
    AnnulmentId, AnnulmentPart, AnnulmentReason, AnnulmentReasonFault, AnnulmentRequest,
    AnnulmentSelection, BallotDigest, BudgetId, MAX_NAMED_PEOPLE, NetworkDigest, PersonKeys,
    PersonKeysFault, SignalSpan, SignalSpanFault, parse_rfc3339,
};
use serde_json::Value;

use super::super::jobs::{BodyMembers, EmptyBody, RequestedJob};

/// The members that select people, of which a body has exactly one.
const SELECTIONS: [&str; 3] = ["persons", "network", "ballot"];
const DIGEST_DIGITS: &str = "must be 16 hexadecimal digits, as the signals show them";

/// Parses a body. The annulment gets the id of its job, so that a repeated request is the same annulment.
///
/// # Errors
/// A problem with every fault of the body.
pub(super) fn parse(
    budget: &BudgetId,
    job: JobId,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<RequestedJob, Problem> {
    let mut body = BodyMembers::parse(headers, body, EmptyBody::Refused)?;
    body.reject_unknown(|member| {
        SELECTIONS.contains(&member)
            || matches!(member, "from" | "until" | "reason" | "dry_run" | "priority")
    });
    let selection = selection(&mut body);
    let reason = reason(&mut body);
    let (dry_run, priority) = (body.flag("dry_run"), body.priority());
    let request = selection.zip(reason).map(|(selection, reason)| AnnulmentRequest {
        id: AnnulmentId(job.0),
        budget: budget.clone(),
        selection,
        reason,
        dry_run,
        part: AnnulmentPart::default(),
    });
    let kind = request.map(|request| JobKind::Annul { annulment: Box::new(request) });
    body.finish(kind.map(|kind| RequestedJob { kind, priority }))
}

fn selection(body: &mut BodyMembers) -> Option<AnnulmentSelection> {
    let given: Vec<_> =
        SELECTIONS.into_iter().filter(|name| body.members.contains_key(*name)).collect();
    let [by] = given[..] else {
        let names = SELECTIONS.map(|name| format!("`{name}`")).join(", ");
        body.faults.malformed("", format!("must have exactly one of {names}"));
        // What is given is checked anyway.
        for name in given {
            select_by(body, name);
        }
        return None;
    };
    select_by(body, by)
}

fn select_by(body: &mut BodyMembers, name: &str) -> Option<AnnulmentSelection> {
    match name {
        "persons" => {
            for time in ["from", "until"] {
                if body.members.contains_key(time) {
                    body.faults.malformed(format!("/{time}"), "is not supported with `persons`");
                }
            }
            Some(AnnulmentSelection::Persons { persons: persons(body)? })
        }
        "network" => {
            let network = body.required(name, DIGEST_DIGITS, NetworkDigest::parse);
            let span = span(body);
            Some(AnnulmentSelection::Network { network: network?, span: span? })
        }
        _ => {
            let ballot = body.required(name, DIGEST_DIGITS, BallotDigest::parse);
            let span = span(body);
            Some(AnnulmentSelection::Ballot { ballot: ballot?, span: span? })
        }
    }
}

fn persons(body: &mut BodyMembers) -> Option<PersonKeys> {
    let BodyMembers { members, faults } = body;
    let Some(Value::Array(texts)) = members.get("persons") else {
        faults.malformed("/persons", "must be a list of person keys");
        return None;
    };
    if texts.len() > MAX_NAMED_PEOPLE {
        faults.malformed("/persons", PersonKeysFault::TooMany.to_string());
        return None;
    }
    let mut keys = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let key = text.as_str().ok_or(PersonKeysFault::Digits).and_then(PersonKeys::parse_key);
        match key {
            Ok(key) => keys.push(key),
            Err(fault) => faults.malformed(format!("/persons/{index}"), fault.to_string()),
        }
    }
    if keys.len() < texts.len() {
        return None;
    }
    let keys = PersonKeys::new(keys);
    keys.map_err(|fault| faults.malformed("/persons", fault.to_string())).ok()
}

fn span(body: &mut BodyMembers) -> Option<SignalSpan> {
    let must_be = "must be a time in RFC 3339, from 1970 on";
    let [from, until] = ["from", "until"].map(|name| body.required(name, must_be, parse_time));
    let (from_ms, until_ms) = (from?, until?);
    let span = SignalSpan::new(from_ms, until_ms);
    span.map_err(|SignalSpanFault| {
        body.faults.malformed("/until", SignalSpanFault.to_string());
    })
    .ok()
}

fn parse_time(text: &str) -> Option<u64> {
    u64::try_from(parse_rfc3339(text).ok()?.as_millisecond()).ok()
}

fn reason(body: &mut BodyMembers) -> Option<AnnulmentReason> {
    let parsed = match body.members.get("reason") {
        None => Err("is required".to_owned()),
        Some(Value::String(text)) => {
            AnnulmentReason::parse(text).map_err(|fault: AnnulmentReasonFault| fault.to_string())
        }
        Some(_) => Err("must be a text".to_owned()),
    };
    parsed.map_err(|fault| body.faults.malformed("/reason", fault)).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::header::CONTENT_TYPE;
    use proptest::prelude::*;
    use runtime::problem::ProblemKind;
    use schemas::job::Priority;
    use uuid::Uuid;

    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff";

    fn parse_body(body: &str) -> Result<RequestedJob, Problem> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "application/json".parse().unwrap())]);
        let budget = BudgetId::parse("parks").unwrap();
        parse(&budget, JobId(Uuid::from_u128(7)), &headers, body.as_bytes())
    }

    fn parsed(body: &str) -> (AnnulmentRequest, Priority) {
        let RequestedJob { kind, priority } = parse_body(body).unwrap();
        let JobKind::Annul { annulment } = kind else { panic!("{kind:?}") };
        (*annulment, priority)
    }

    fn pointers(body: &str) -> Vec<String> {
        let problem = parse_body(body).unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::Malformed, "{body}");
        problem.recorded_faults().iter().map(|fault| fault.pointer.clone()).collect()
    }

    #[test]
    fn people_are_selected_by_key_network_or_ballot() {
        let (request, priority) = parsed(&format!(
            r#"{{"persons":["{KEY}","{}","{KEY}"],"reason":"spam","dry_run":true,"priority":"high"}}"#,
            KEY.to_uppercase()
        ));
        let AnnulmentSelection::Persons { persons } = &request.selection else { panic!() };
        assert_eq!((persons.len(), priority), (1, Priority::High));
        assert_eq!((request.id.0, request.dry_run), (Uuid::from_u128(7), true));
        assert_eq!((request.budget.as_str(), request.reason.as_str()), ("parks", "spam"));
        let times = r#""from":"1970-01-01T02:00:01+02:00","until":"1970-01-01T00:00:02.500Z""#;
        let span = SignalSpan::new(1_000, 2_500).unwrap();
        let number = 0x0123_4567_89ab_cdef;
        let (network, ballot) = (NetworkDigest(number), BallotDigest(number));
        for (by, selection) in [
            ("network", AnnulmentSelection::Network { network, span }),
            ("ballot", AnnulmentSelection::Ballot { ballot, span }),
        ] {
            let body = format!(r#"{{"{by}":"{number:016x}",{times},"reason":"a run"}}"#);
            let (request, _) = parsed(&body);
            assert_eq!((request.selection, request.dry_run), (selection, false));
        }
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        assert_eq!(pointers("{}"), ["", "/reason"]);
        assert_eq!(
            pointers(&format!(
                r#"{{"persons":["{KEY}","x",7],"from":"now","reason":"a\nb","dry_run":1,"who":1,"priority":"now"}}"#
            )),
            ["/who", "/from", "/persons/1", "/persons/2", "/reason", "/dry_run", "/priority"]
        );
        assert_eq!(
            pointers(r#"{"network":"xyz","from":"now","reason":""}"#),
            ["/network", "/from", "/until", "/reason"]
        );
        let both = r#"{"network":"0123456789abcdef","ballot":"","persons":[],"reason":"spam"}"#;
        assert_eq!(
            pointers(both),
            ["", "/persons", "/from", "/until", "/ballot", "/from", "/until"]
        );
        let backwards = r#"{"ballot":"0123456789abcdef","from":"2026-11-21T00:00:00Z",
            "until":"2026-11-21T00:00:00Z","reason":"spam"}"#;
        assert_eq!(pointers(backwards), ["/until"]);
        let early = backwards.replacen("2026", "1969", 1);
        assert_eq!(pointers(&early), ["/from"]);
    }

    #[test]
    fn at_most_two_hundred_people_are_named() {
        let body = |count: u128| {
            let keys: Vec<_> = (0..count).map(|number| format!("\"{number:032x}\"")).collect();
            format!(r#"{{"persons":[{}],"reason":"spam"}}"#, keys.join(","))
        };
        assert!(parse_body(&body(200)).is_ok());
        for count in [0, 201] {
            assert_eq!(pointers(&body(count)), ["/persons"]);
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(body in ".{0,80}", persons in ".{0,40}", time in ".{0,30}") {
            let _ = parse_body(&body);
            let text = |text: &str| serde_json::to_string(text).unwrap();
            let _ = parse_body(&format!(
                r#"{{"persons":[{}],"network":{},"from":{},"until":{},"reason":{}}}"#,
                text(&persons), text(&persons), text(&time), text(&time), text(&body),
            ));
        }
    }
}
