//! The parser's properties: exact, strict, every fault at once, and no panic on any input.

mod batches;
mod definitions;
mod laws;

use runtime::problem::{Problem, ProblemKind};
use schemas::{Budget, BudgetId, Category, CategoryId, IdentityRule, ResultsVisibility};

use super::*;

fn budget(categories: &[&str]) -> Budget {
    Budget {
        id: BudgetId::parse("taxes").unwrap(),
        name: "Taxes".into(),
        categories: categories
            .iter()
            .map(|id| Category {
                id: CategoryId::parse(id).unwrap(),
                name: (*id).into(),
                description: None,
                color: None,
            })
            .collect(),
        opens_at: None,
        closes_at: None,
        results: ResultsVisibility::Live,
        minimum_people: 1,
        max_people: None,
        publish_step: 1,
        identity: IdentityRule::Required,
        presentation: Default::default(),
        revision: 1,
        frozen: true,
        closing: None,
        person_salt: Default::default(),
    }
}

fn taxes() -> Budget {
    budget(&["health", "education", "defence"])
}

/// The kind and the pointers of a problem.
fn faults(problem: &Problem) -> (ProblemKind, Vec<&str>) {
    let pointers = problem.recorded_faults().iter().map(|fault| fault.pointer.as_str());
    (problem.kind(), pointers.collect())
}

fn reject(body: &[u8]) -> Problem {
    submission(body, &taxes()).expect_err("an invalid body")
}

#[test]
fn shares_follow_the_budgets_category_order_and_missing_ones_are_0() {
    let body = br#" {"allocation": {"defence": 24.50, "health": 75.5},
        "person": "p\u002d1", "submission_id": "0198C0DE-0000-7000-8000-000000000001"} "#;
    let parsed = submission(body, &taxes()).unwrap();
    assert_eq!(parsed.allocation.basis_points(), [7_550, 0, 2_450]);
    assert_eq!(parsed.person.unwrap().reveal(), "p-1");
    assert_eq!(parsed.id.unwrap().to_string(), "0198c0de-0000-7000-8000-000000000001");
}

#[test]
fn a_malformed_body_is_reported_with_a_pointer_to_every_fault() {
    let good = r#""allocation":{"health":100}"#;
    let id = "0198c0de-0000-7000-8000-000000000001";
    let cases: Vec<(String, Vec<&str>)> = vec![
        ("".into(), vec![""]),
        ("{".into(), vec![""]),
        ("[]".into(), vec![""]),
        ("null".into(), vec![""]),
        ("1".into(), vec![""]),
        (format!(r#"{{"person":"p",{good}}} x"#), vec![""]),
        (r#"{"person":"p","allocation":{"health":NaN}}"#.into(), vec![""]),
        (r#"{"person":"p","allocation":{"health":01}}"#.into(), vec![""]),
        (r#"{"person":"p","allocation":{"health":+1}}"#.into(), vec![""]),
        (format!(r#"{{"person":"{}",{good}}}"#, "\u{1}"), vec![""]),
        ("{}".into(), vec!["/person", "/allocation"]),
        (format!("{{{good}}}"), vec!["/person"]),
        (
            r#"{"person":1,"allocation":[100],"submission_id":{}}"#.into(),
            vec!["/person", "/allocation", "/submission_id"],
        ),
        (
            format!(r#"{{"person":null,{good},"submission_id":null}}"#),
            vec!["/person", "/submission_id"],
        ),
        (format!(r#"{{"person":"",{good}}}"#), vec!["/person"]),
        (format!(r#"{{"person":"{}",{good}}}"#, "x".repeat(257)), vec!["/person"]),
        (format!(r#"{{"person":"a\nb",{good}}}"#), vec!["/person"]),
        (format!(r#"{{"person":"\ud800",{good}}}"#), vec!["/person"]),
        (format!(r#"{{"person":"p",{good},"submission_id":"x"}}"#), vec!["/submission_id"]),
        (format!(r#"{{"person":"p",{good},"submision_id":"{id}"}}"#), vec!["/submision_id"]),
        (format!(r#"{{"person":"p",{good},"a~/b":[{{}}]}}"#), vec!["/a~0~1b"]),
        (format!(r#"{{"person":"p","person":"p",{good}}}"#), vec!["/person"]),
        (format!(r#"{{"person":"p",{good},{good}}}"#), vec!["/allocation"]),
        (r#"{"person":"p","allocation":{"health":"100"}}"#.into(), vec!["/allocation/health"]),
        (
            r#"{"person":"p","allocation":{"health":[[[]]],"x/y":true}}"#.into(),
            vec!["/allocation/health", "/allocation/x~1y", "/allocation/x~1y"],
        ),
    ];
    for (body, pointers) in cases {
        let problem = reject(body.as_bytes());
        assert_eq!(faults(&problem), (ProblemKind::Malformed, pointers), "{body}");
    }
}

#[test]
fn text_that_is_not_unicode_is_malformed() {
    for body in [
        &b"{\"person\":\"\xff\",\"allocation\":{\"health\":100}}"[..],
        b"{\"person\":\"p\",\"allocation\":{\"hea\xfflth\":100}}",
        br#"{"person":"p","allocation":{"\udfff":100}}"#,
        br#"{"person":"p","allocation":{"health":100},"\ud800":1}"#,
    ] {
        assert_eq!(reject(body).kind(), ProblemKind::Malformed);
    }
}

#[test]
fn an_invalid_allocation_is_reported_with_every_fault() {
    let cases: Vec<(&str, Vec<&str>)> = vec![
        ("{}", vec!["/allocation"]),
        (r#"{"health":99.99}"#, vec!["/allocation"]),
        (r#"{"health":100,"defence":0.01}"#, vec!["/allocation"]),
        (
            r#"{"health":33.335,"defence":-1,"education":1e400}"#,
            vec!["/allocation/health", "/allocation/defence", "/allocation/education"],
        ),
        (r#"{"health":100,"education":1e-400}"#, vec!["/allocation/education"]),
        (r#"{"health":50,"health":50}"#, vec!["/allocation/health"]),
        (r#"{"health":100,"h\u0065alth":0}"#, vec!["/allocation/health"]),
        // The share of a misspelt category counts: the sum is a second fault only in the next case.
        (r#"{"helth":60,"defence":40}"#, vec!["/allocation/helth"]),
        (r#"{"helth":60,"defence":39}"#, vec!["/allocation/helth", "/allocation"]),
    ];
    for (allocation, pointers) in cases {
        let problem = reject(format!(r#"{{"person":"p","allocation":{allocation}}}"#).as_bytes());
        let expected = (ProblemKind::InvalidAllocation, pointers);
        assert_eq!(faults(&problem), expected, "{allocation}");
    }
}

#[test]
fn a_wrong_sum_is_reported_with_its_value() {
    let problem = reject(br#"{"person":"p","allocation":{"health":49.5,"defence":50.25}}"#);
    assert_eq!(problem.recorded_faults()[0].detail, "adds up to 99.75 instead of 100");
}

#[test]
fn one_malformed_member_makes_the_body_malformed_and_hides_no_other_fault() {
    let problem = reject(br#"{"persn":"p","allocation":{"health":-1,"x":"1"}}"#);
    assert_eq!(
        faults(&problem),
        (
            ProblemKind::Malformed,
            vec!["/persn", "/allocation/health", "/allocation/x", "/allocation/x", "/person"]
        )
    );
}

#[test]
fn the_person_may_be_missing_if_the_budget_does_not_require_one() {
    let anonymous_budget = Budget { identity: IdentityRule::Optional, ..taxes() };
    let parsed = submission(br#"{"allocation":{"health":100}}"#, &anonymous_budget).unwrap();
    assert_eq!((parsed.person, parsed.id), (None, None));
}

#[test]
fn deep_nesting_is_rejected_without_overflowing_the_stack() {
    for open in ["[", r#"{"a":"#, r#"{"allocation":"#] {
        let deep = open.repeat(300_000);
        assert_eq!(reject(deep.as_bytes()).kind(), ProblemKind::Malformed);
        let inside = format!(r#"{{"person":"p","allocation":{{"health":{deep}"#);
        assert_eq!(reject(inside.as_bytes()).kind(), ProblemKind::Malformed);
    }
}

#[test]
fn a_problem_is_bounded_for_any_number_of_faults() {
    let members = (0..200_000).map(|n| format!(r#""{n}":-1,"#)).collect::<String>();
    let body = format!(r#"{{"person":"p","allocation":{{{members}"health":100}}}}"#);
    let problem = reject(body.as_bytes());
    assert_eq!(problem.recorded_faults().len(), 100);
    let long_name = format!(r#"{{"{}":1}}"#, "x".repeat(1_000_000));
    let pointer_bytes: usize =
        reject(long_name.as_bytes()).recorded_faults().iter().map(|f| f.pointer.len()).sum();
    assert!(pointer_bytes < 1_000);
}

#[test]
fn a_body_may_begin_with_one_byte_order_mark() {
    const MARK: &str = "\u{feff}";
    let item = r#"{"person":"p","allocation":{"health":100}}"#;
    let marked = |text: &str| format!("{MARK}{text}").into_bytes();
    assert_eq!(submission(&marked(item), &taxes()).unwrap().person.unwrap().reveal(), "p");
    let batches = [
        json_array(&marked(&format!("[{item},{item}]")), &taxes()).unwrap(),
        ndjson(&marked(&format!("{item}\n{item}")), &taxes()).unwrap(),
        ndjson(&marked(&format!("\r\n{item}\r\n{item}\r\n")), &taxes()).unwrap(),
    ];
    for batch in batches {
        assert!(batch.len() == 2 && batch.iter().all(Result::is_ok), "{}", batch.len());
    }
    assert!(ndjson(MARK.as_bytes(), &taxes()).unwrap().is_empty());
    for body in [format!("{MARK}{item}"), format!(" {MARK}{item}"), format!("{item}{MARK}")] {
        assert_eq!(reject(&marked(&body)).kind(), ProblemKind::Malformed, "{body:?}");
    }
    assert_eq!(reject(MARK.as_bytes()).kind(), ProblemKind::Malformed);
}
