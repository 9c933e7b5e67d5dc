//! Definitions of budgets.

use super::*;

fn define(body: &str) -> Result<Budget, Problem> {
    definition(BudgetId::parse("taxes").unwrap(), body.as_bytes())
}

#[test]
fn missing_members_of_a_definition_get_their_defaults() {
    let budget =
        define(r#"{"name":"Taxes","categories":[{"id":"a","name":"A"},{"id":"b","name":"B"}]}"#);
    let budget = budget.unwrap();
    assert_eq!((budget.minimum_people, budget.identity), (1, IdentityRule::Required));
    assert_eq!((budget.publish_step, budget.max_people), (1, None));
    assert_eq!((budget.results, budget.opens_at), (ResultsVisibility::Live, None));

    let budget = define(
        r##"{"name":"Taxes","opens_at":"2026-01-01T00:00:00Z","closes_at":"2026-01-01T00:00:00.001Z",
            "results":"after_close","minimum_people":5,"max_people":9,"publish_step":10,"identity":"optional",
            "categories":[{"id":"a","name":"A","description":"d","color":"#1f77b4"},{"id":"b","name":"B"}]}"##,
    );
    let budget = budget.unwrap();
    assert_eq!((budget.minimum_people, budget.identity), (5, IdentityRule::Optional));
    assert_eq!((budget.publish_step, budget.max_people), (10, Some(9)));
    assert_eq!(budget.results, ResultsVisibility::AfterClose);
    assert!(budget.opens_at < budget.closes_at);
    assert_eq!(budget.categories[0].color.as_deref(), Some("#1f77b4"));
}

#[test]
fn a_definition_reports_malformed_members_and_broken_rules_together() {
    let problem = define(
        r#"{"name":7,"opens_at":"yesterday","results":"never","minimum_people":0,"max_people":[],"publish_step":"10","identity":[],"x":1,
            "categories":[{"id":"A B","name":""},{"id":"a","name":"A","colour":"red"},{"id":"a","name":"A"},3]}"#,
    );
    let problem = problem.unwrap_err();
    let (kind, mut pointers) = faults(&problem);
    pointers.sort_unstable();
    assert_eq!(kind, ProblemKind::Malformed);
    assert_eq!(
        pointers,
        [
            "/categories/0/id",
            "/categories/0/name",
            "/categories/1/colour",
            "/categories/2/id",
            "/categories/3",
            "/categories/3/id",
            "/categories/3/name",
            "/identity",
            "/max_people",
            "/minimum_people",
            "/name",
            "/opens_at",
            "/publish_step",
            "/results",
            "/x",
        ]
    );
}

#[test]
fn a_well_formed_definition_that_breaks_rules_is_an_invalid_budget() {
    let problem = define(
        r#"{"name":"","categories":[{"id":"a","name":"A"}],"results":"after_close","minimum_people":1.5}"#,
    );
    let problem = problem.unwrap_err();
    let (kind, mut pointers) = faults(&problem);
    pointers.sort_unstable();
    assert_eq!(kind, ProblemKind::InvalidBudget);
    assert_eq!(pointers, ["/categories", "/closes_at", "/minimum_people", "/name"]);
}

#[test]
fn a_publish_step_is_a_whole_number_from_1_to_1000() {
    let define_step = |step: &str| {
        let categories = r#"[{"id":"a","name":"A"},{"id":"b","name":"B"}]"#;
        define(&format!(r#"{{"name":"Taxes","publish_step":{step},"categories":{categories}}}"#))
    };
    for step in ["1", "2", "1000"] {
        assert_eq!(define_step(step).unwrap().publish_step.to_string(), step);
    }
    for step in ["0", "1001", "-1", "1.5", "1e1", "18446744073709551616"] {
        let problem = define_step(step).unwrap_err();
        assert_eq!(faults(&problem), (ProblemKind::InvalidBudget, vec!["/publish_step"]), "{step}");
    }
}

#[test]
fn a_cap_on_people_is_a_whole_number_from_1_to_a_billion() {
    let define_cap = |cap: &str| {
        let categories = r#"[{"id":"a","name":"A"},{"id":"b","name":"B"}]"#;
        define(&format!(r#"{{"name":"Taxes","max_people":{cap},"categories":{categories}}}"#))
    };
    for cap in ["1", "5", "1000000000"] {
        assert_eq!(define_cap(cap).unwrap().max_people.unwrap().to_string(), cap);
    }
    for cap in ["0", "1000000001", "-1", "1.5", "1e1", "18446744073709551616"] {
        let problem = define_cap(cap).unwrap_err();
        assert_eq!(faults(&problem), (ProblemKind::InvalidBudget, vec!["/max_people"]), "{cap}");
    }
    let problem = define_cap("null").unwrap_err();
    assert_eq!(faults(&problem), (ProblemKind::Malformed, vec!["/max_people"]));
}

#[test]
fn a_definition_that_is_not_an_object_has_no_other_fault() {
    for body in ["", "[]", "3", r#"{"name":"x""#] {
        let problem = define(body).unwrap_err();
        assert_eq!(faults(&problem), (ProblemKind::Malformed, vec![""]), "{body}");
    }
    let problem = define("{}").unwrap_err();
    assert_eq!(faults(&problem), (ProblemKind::Malformed, vec!["/name", "/categories"]));
}

#[test]
fn only_rfc_3339_is_taken_for_a_time() {
    let closes_at = |text: &str| {
        let body = format!(
            r#"{{"name":"T","closes_at":"{text}","categories":[{{"id":"a","name":"A"}},{{"id":"b","name":"B"}}]}}"#
        );
        define(&body).map(|budget| budget.closes_at.unwrap().to_string()).map_err(|problem| {
            assert_eq!(
                faults(&problem),
                (ProblemKind::InvalidBudget, vec!["/closes_at"]),
                "{text}"
            );
            problem.recorded_faults()[0].detail.clone()
        })
    };
    for (text, expected) in [
        ("2027-01-31T23:00:00Z", "2027-01-31T23:00:00Z"),
        ("2027-01-31t23:00:00.250z", "2027-01-31T23:00:00.25Z"),
        ("2027-01-31T23:00:00+02:00", "2027-01-31T21:00:00Z"),
        ("2027-01-31T23:00:00.5-00:30", "2027-01-31T23:30:00.5Z"),
    ] {
        assert_eq!(closes_at(text).as_deref(), Ok(expected));
    }
    for text in [
        "2027-01-31T23:00:00+02:00[Europe/Berlin]",
        "2027-01-31T23:00:00Z[UTC]",
        "2027-01-31T23:00:00[Europe/Berlin]",
        "20270131T230000Z",
        "2027-01-31T23:00Z",
        "2027-01-31T23:00:00",
        "2027-01-31T23:00:00+02",
        "2027-01-31T23:00:00+0200",
        "2027-01-31T23:00:00+02:00:30",
        "2027-01-31T23:00:00,5Z",
        "2027-01-31T23:00:00.Z",
        "2027-01-31 23:00:00Z",
        "+002027-01-31T23:00:00Z",
        "2027-01-31",
        "",
    ] {
        let detail = closes_at(text).expect_err(text);
        assert!(detail.contains("RFC 3339"), "{text}: {detail}");
    }
    // RFC 3339 knows these, and they cannot be represented.
    for text in ["9999-12-31T23:59:59Z", "2027-02-30T12:00:00Z", "2027-01-31T25:00:00Z"] {
        let detail = closes_at(text).expect_err(text);
        assert!(detail.contains("not later than 9999-12-30"), "{text}: {detail}");
    }
}

#[test]
fn names_are_visible_and_have_one_line() {
    for name in ["  ", "\\t", "\\u200b \\ufeff", "two\\nlines", "bell\\u0007", "\\u0085"] {
        let body = format!(
            r#"{{"name":"{name}","categories":[{{"id":"a","name":"{name}"}},{{"id":"b","name":"B"}}]}}"#
        );
        let problem = define(&body).unwrap_err();
        let expected = (ProblemKind::InvalidBudget, vec!["/name", "/categories/0/name"]);
        assert_eq!(faults(&problem), expected, "{name}");
    }
    let body =
        r#"{"name":" Straßen 🚲 ","categories":[{"id":"a","name":"א"},{"id":"b","name":"B"}]}"#;
    assert_eq!(define(body).unwrap().name, " Straßen 🚲 ");
}
