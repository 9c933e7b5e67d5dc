//! The parser's properties: exact, strict, every fault at once, and no panic on any input.

use proptest::prelude::*;
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

#[test]
fn an_invalid_batch_item_affects_no_other_item() {
    let good = r#"{"person":"p","allocation":{"health":100}}"#;
    let bad = r#"{"person":"p","allocation":{"health":99}}"#;
    let array = format!("[{good},{bad},7,{good}]");
    let kinds = |batch: ParsedBatch| -> Vec<Option<ProblemKind>> {
        batch.iter().map(|item| item.as_ref().err().map(Problem::kind)).collect()
    };
    let (invalid, malformed) = (ProblemKind::InvalidAllocation, ProblemKind::Malformed);
    let expected = [None, Some(invalid), Some(malformed), None];
    assert_eq!(kinds(json_array(array.as_bytes(), &taxes()).unwrap()), expected);

    let text = format!("{good}\r\n\n{bad}\n{{broken\n \n{good}");
    assert_eq!(kinds(ndjson(text.as_bytes(), &taxes()).unwrap()), expected);
    assert!(ndjson(b"", &taxes()).unwrap().is_empty());
    assert!(json_array(b"[]", &taxes()).unwrap().is_empty());
}

#[test]
fn a_batch_lists_at_most_a_thousand_faults_and_every_item_has_its_problem() {
    let members: Vec<String> = (0..50).map(|index| format!(r#""x{index}":"""#)).collect();
    let item = format!(r#"{{"person":"p","allocation":{{{}}}}}"#, members.join(","));
    let array = format!("[{}]", vec![item.as_str(); MAX_ITEMS].join(","));
    for batch in [
        json_array(array.as_bytes(), &taxes()).unwrap(),
        ndjson(vec![item.as_str(); MAX_ITEMS].join("\n").as_bytes(), &taxes()).unwrap(),
    ] {
        let problems: Vec<Problem> = batch.into_iter().map(Result::unwrap_err).collect();
        assert_eq!(problems.len(), MAX_ITEMS);
        let listed: usize = problems.iter().map(|problem| problem.recorded_faults().len()).sum();
        assert_eq!(listed, 1_000);
        let malformed = |problem: &Problem| problem.kind() == ProblemKind::Malformed;
        assert!(problems.iter().all(malformed));
    }
}

#[test]
fn an_array_that_is_not_json_is_rejected_as_a_whole() {
    let good = r#"{"person":"p","allocation":{"health":100}}"#;
    for body in [format!("[{good},"), format!("[{good}]x"), good.into(), "1e999".into()] {
        let problem = json_array(body.as_bytes(), &taxes()).unwrap_err();
        assert_eq!(faults(&problem), (ProblemKind::Malformed, vec![""]), "{body}");
    }
}

#[test]
fn a_batch_has_at_most_a_thousand_items() {
    let array = |items: usize| format!("[{}]", vec!["1"; items].join(","));
    let text = |items: usize| "1\n".repeat(items);
    assert_eq!(json_array(array(MAX_ITEMS).as_bytes(), &taxes()).unwrap().len(), MAX_ITEMS);
    assert_eq!(ndjson(text(MAX_ITEMS).as_bytes(), &taxes()).unwrap().len(), MAX_ITEMS);
    for items in [MAX_ITEMS + 1, MAX_ITEMS * 100] {
        let from_array = json_array(array(items).as_bytes(), &taxes()).unwrap_err();
        let from_lines = ndjson(text(items).as_bytes(), &taxes()).unwrap_err();
        assert_eq!(from_array.kind(), ProblemKind::ContentTooLarge);
        assert_eq!(from_lines.kind(), ProblemKind::ContentTooLarge);
    }
}

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

/// Writes basis points as a percentage in one of several spellings.
fn spelling(basis_points: u16, style: u8) -> String {
    let (whole, rest) = (basis_points / 100, basis_points % 100);
    match style % 5 {
        0 => format!("{whole}.{rest:02}"),
        1 => format!("{basis_points}e-2"),
        2 => format!("{whole}.{rest:02}000E0"),
        3 => format!("0.{basis_points:05}e+3"),
        _ if rest == 0 => format!("{whole}"),
        _ if rest % 10 == 0 => format!("{whole}.{}", rest / 10),
        _ => format!("{whole}.{rest:02}"),
    }
}

/// Shares that add up to 10,000, from sorted random cuts.
fn shares() -> impl Strategy<Value = Vec<u16>> {
    proptest::collection::vec(0..=10_000_u16, 1..64).prop_map(|mut cuts| {
        cuts.sort_unstable();
        let mut shares = Vec::new();
        let mut last = 0;
        for cut in cuts.into_iter().chain([10_000]) {
            shares.push(cut - last);
            last = cut;
        }
        shares
    })
}

proptest! {
    #[test]
    fn any_allocation_round_trips_through_its_text_in_any_spelling_and_order(
        shares in shares(), styles in proptest::collection::vec(any::<u8>(), 64),
        order in Just((0..64_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let ids: Vec<String> = (0..shares.len()).map(|n| format!("c-{n}")).collect();
        let budget = budget(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        let members: Vec<String> = order
            .iter()
            .filter(|index| **index < shares.len())
            // A share of 0 may be omitted.
            .filter(|index| shares[**index] > 0 || styles[**index] % 2 == 0)
            .map(|index| format!(r#""c-{index}":{}"#, spelling(shares[*index], styles[*index])))
            .collect();
        let body = format!(r#"{{"person":"p","allocation":{{{}}}}}"#, members.join(","));
        let parsed = submission(body.as_bytes(), &budget).map_err(|problem| {
            TestCaseError::fail(format!("{body}: {problem:?}"))
        })?;
        prop_assert_eq!(parsed.allocation.basis_points(), &shares[..]);
    }

    #[test]
    fn no_bytes_panic_a_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = submission(&bytes, &taxes());
        let _ = json_array(&bytes, &taxes());
        let _ = ndjson(&bytes, &taxes());
        let _ = definition(BudgetId::parse("taxes").unwrap(), &bytes);
    }

    #[test]
    fn no_corruption_of_a_valid_body_panics_a_parser(
        index in 0..120_usize, byte in any::<u8>(), end in 0..130_usize,
    ) {
        let mut body = br#"[{"person":"p-1","allocation":{"health":40,"education":35.5,"defence":24.5},
            "submission_id":"0198c0de-0000-7000-8000-000000000001"}]"#.to_vec();
        if let Some(slot) = body.get_mut(index) {
            *slot = byte;
        }
        body.truncate(end);
        let _ = json_array(&body, &taxes());
        let _ = submission(body.get(1..).unwrap_or_default(), &taxes());
        let _ = ndjson(body.get(1..).unwrap_or_default(), &taxes());
    }
}
