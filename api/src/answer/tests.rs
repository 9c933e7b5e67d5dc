//! Properties of an answer's body and ETag.

use proptest::prelude::*;
use schemas::{
    BudgetId, Category, CategoryId, CategoryTotals, Generation, IdentityRule, LogNumber, Position,
    Term,
};
use serde_json::Value;

use super::*;

const NOON: &str = "2026-11-20T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_default()
}

fn budget(categories: usize) -> Budget {
    let slug = |text: &str| CategoryId::parse(text).ok();
    Budget {
        id: BudgetId::parse("taxes").unwrap_or_else(|_| unreachable!("a slug")),
        name: "How would \"you\" split?".into(),
        categories: (0..categories)
            .filter_map(|index| {
                let name = format!("Category {index}");
                Some(Category {
                    id: slug(&format!("c{index}"))?,
                    name,
                    description: None,
                    color: None,
                })
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
        revision: 4,
        frozen: true,
        closing: None,
        person_salt: Default::default(),
    }
}

/// Builds the totals of people from their shares.
fn totals(people: &[Vec<u64>]) -> CombinedTotals {
    let width = people.first().map_or(0, Vec::len);
    let mut categories = vec![CategoryTotals::default(); width];
    for shares in people {
        for (category, share) in categories.iter_mut().zip(shares) {
            category.basis_points += share;
            category.people_by_percent[(share / 100) as usize] += 1;
        }
    }
    CombinedTotals {
        term: Term { number: 3, generation: Generation(2), log: LogNumber::FIRST },
        positions: vec![Position(people.len() as u64), Position(0)],
        people: people.len() as u64,
        updated_at_ms: 1_795_212_000_007,
        categories,
        closed_partitions: 0,
        annulled: 0,
    }
}

fn answer(budget: Budget, totals: CombinedTotals) -> Answer {
    try_answer(budget, totals).unwrap_or_else(|fault| unreachable!("{fault}"))
}

fn try_answer(budget: Budget, totals: CombinedTotals) -> Result<Answer, AnswerError> {
    Answer::new(Arc::new(budget), Arc::new(totals), Provenance::Committed, at(NOON))
}

fn json(rendered: &Rendered) -> Value {
    serde_json::from_slice(&rendered.body).unwrap_or_default()
}

#[test]
fn the_body_matches_the_contract_exactly() {
    let answer = answer(budget(2), totals(&[vec![3_333, 6_667], vec![10_000, 0]]));
    let version = AggregateVersion::of(answer.totals());
    let expected = format!(
        concat!(
            r#"{{"budget":"taxes","name":"How would \"you\" split?","people":2,"generation":2,"#,
            r#""version":"{}","updated_at":"2026-11-20T22:00:00.007Z","categories":["#,
            r#"{{"id":"c0","name":"Category 0","total_basis_points":13333,"#,
            r#""average_percent":66.665,"median_percent":66.5}},"#,
            r#"{{"id":"c1","name":"Category 1","total_basis_points":6667,"#,
            r#""average_percent":33.335,"median_percent":33.0}}]}}"#,
        ),
        version
    );
    let body = String::from_utf8_lossy(&answer.plain().body);
    assert_eq!(body, expected);
    assert_eq!(answer.plain().etag, format!("\"{version}.r4\""));
}

#[test]
fn an_aggregate_without_submissions_lists_every_category_with_zeros() {
    let none = CombinedTotals { updated_at_ms: 0, ..totals(&[]) };
    let body = json(answer(budget(3), none).plain());
    assert_eq!(body["people"], 0);
    assert_eq!(body["updated_at"], Value::Null);
    assert_eq!(body["categories"].as_array().map(Vec::len), Some(3));
    assert_eq!(body["categories"][2]["average_percent"].to_string(), "0.0");
    assert_eq!(body["categories"][2]["median_percent"].to_string(), "0.0");
}

#[test]
fn the_distribution_is_added_on_request_with_a_different_etag() {
    let answer = answer(budget(2), totals(&[vec![3_399, 6_601]]));
    assert_eq!(json(answer.plain())["categories"][0].get("distribution"), None);
    let detailed = json(answer.with_distribution());
    let counts = detailed["categories"][0]["distribution"].as_array().cloned().unwrap_or_default();
    assert_eq!(counts.len(), 101);
    assert_eq!(counts[33], 1, "33.99 % counts as 33");
    assert_ne!(answer.plain().etag, answer.with_distribution().etag);
}

#[test]
fn a_renamed_budget_has_a_new_etag_and_the_same_version() {
    let old = answer(budget(2), totals(&[vec![5_000, 5_000]]));
    let renamed = Budget { name: "New".into(), revision: 5, ..budget(2) };
    let new = answer(renamed, totals(&[vec![5_000, 5_000]]));
    assert_eq!(json(old.plain())["version"], json(new.plain())["version"]);
    assert_ne!(old.plain().etag, new.plain().etag);
}

#[test]
fn a_recounts_etag_depends_on_its_body_and_it_includes_no_receipt() {
    let recounted = |shares: Vec<u64>| {
        Answer::new(
            Arc::new(budget(2)),
            Arc::new(totals(&[shares])),
            Provenance::Recounted,
            at(NOON),
        )
        .unwrap_or_else(|fault| unreachable!("{fault}"))
    };
    let (one, other) = (recounted(vec![5_000, 5_000]), recounted(vec![4_000, 6_000]));
    assert_ne!(one.plain().etag, other.plain().etag);
    let receipt = "0.0".parse().unwrap_or_else(|_| unreachable!("a receipt"));
    assert!(one.totals().includes_record(receipt) && !one.includes(receipt));
}

#[test]
fn an_after_close_budget_shows_no_number_before_it_is_final_whatever_the_clock_says() {
    let closing = Budget {
        closes_at: Some(at("2026-11-20T13:00:00Z")),
        results: ResultsVisibility::AfterClose,
        ..budget(2)
    };
    let early = answer(closing.clone(), totals(&[vec![5_000, 5_000]]));
    let body = json(early.plain());
    assert_eq!(body["withheld"]["reason"], "after_close");
    assert_eq!(body["withheld"]["until"], "2026-11-20T13:00:00Z");
    for hidden in ["people", "categories", "updated_at"] {
        assert_eq!(body.get(hidden), None);
        assert_eq!(json(early.with_distribution()).get(hidden), None);
    }
    assert!(!early.is_outdated(|| at("2026-11-20T12:59:59Z")));
    assert!(early.is_outdated(|| at("2026-11-20T13:00:00Z")));
    let at_closing = at("2026-11-20T13:00:00Z");
    let late = Answer::new(
        Arc::new(closing.clone()),
        Arc::clone(early.totals()),
        Provenance::Committed,
        at_closing,
    );
    let late = late.unwrap_or_else(|fault| unreachable!("{fault}"));
    let body = json(late.plain());
    assert_eq!(body["withheld"]["state"], "counting");
    assert_eq!((body.get("people"), body.get("final")), (None, None));
    let mut counted = totals(&[vec![5_000, 5_000]]);
    for (closed_partitions, is_final) in [(1, false), (2, true)] {
        counted.closed_partitions = closed_partitions;
        // By a clock that is behind as well.
        let closing = closing.clone();
        let shown = Answer::new(
            Arc::new(closing),
            Arc::new(counted.clone()),
            Provenance::Committed,
            at("2026-11-20T12:00:00Z"),
        );
        let shown = shown.unwrap_or_else(|fault| unreachable!("{fault}"));
        let body = json(shown.plain());
        assert_eq!(shown.is_withheld(), !is_final);
        assert_eq!(body.get("final").is_some(), is_final);
        assert_eq!(body.get("people").is_some(), is_final);
        assert_ne!(late.plain().etag, early.plain().etag);
    }
}

#[test]
fn annulled_people_are_shown_where_there_are_any_and_never_while_results_are_withheld() {
    let counted = CombinedTotals { annulled: 3, ..totals(&[vec![5_000, 5_000]]) };
    assert_eq!(json(answer(budget(2), counted.clone()).plain())["annulled"], 3);
    assert_eq!(
        json(answer(budget(2), totals(&[vec![5_000, 5_000]])).plain()).get("annulled"),
        None
    );
    let with_minimum = Budget { minimum_people: 2, ..budget(2) };
    assert_eq!(json(answer(with_minimum, counted).plain()).get("annulled"), None);
}

#[test]
fn a_budget_below_its_minimum_of_people_shows_no_number() {
    let with_minimum = Budget { minimum_people: 2, ..budget(2) };
    let one = json(answer(with_minimum.clone(), totals(&[vec![5_000, 5_000]])).plain());
    assert_eq!(one["withheld"], serde_json::json!({"reason": "minimum_people", "until": null}));
    assert_eq!((one.get("people"), one.get("final")), (None, None));
    let closed = CombinedTotals { closed_partitions: 2, ..totals(&[vec![5_000, 5_000]]) };
    let closing = Budget { closes_at: Some(at("2026-11-20T13:00:00Z")), ..with_minimum.clone() };
    let (open, closed) =
        (answer(closing.clone(), totals(&[vec![5_000, 5_000]])), answer(closing, closed));
    assert_eq!(json(closed.plain())["final"], true);
    assert_ne!(open.plain().etag, closed.plain().etag);
    let two = totals(&[vec![5_000, 5_000], vec![1_000, 9_000]]);
    assert_eq!(json(answer(with_minimum, two).plain())["people"], 2);
}

#[test]
fn damaged_totals_are_never_shown() {
    let mut wrong = totals(&[vec![5_000, 5_000]]);
    wrong.categories[0].basis_points += 1;
    assert_eq!(try_answer(budget(2), wrong).err(), Some(AnswerError::SumMismatch));
    let mut wrong = totals(&[vec![5_000, 5_000]]);
    wrong.categories[1].people_by_percent[3] += 1;
    assert_eq!(try_answer(budget(2), wrong).err(), Some(AnswerError::SumMismatch));
    let other = try_answer(budget(3), totals(&[vec![5_000, 5_000]])).err();
    assert_eq!(other, Some(AnswerError::CategoryCount { found: 2, wanted: 3 }));
}

proptest! {
    #[test]
    fn averages_add_up_to_100_and_sums_are_exact(
        cuts in prop::collection::vec(prop::collection::vec(0..=10_000_u64, 3), 1..40),
    ) {
        let people: Vec<Vec<u64>> = cuts.into_iter().map(|mut cuts| {
            cuts.sort_unstable();
            vec![cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1], 10_000 - cuts[2]]
        }).collect();
        let body = json(answer(budget(4), totals(&people)).plain());
        let categories = body["categories"].as_array().cloned().unwrap_or_default();
        let sum: u64 = categories.iter().filter_map(|c| c["total_basis_points"].as_u64()).sum();
        prop_assert_eq!(sum, people.len() as u64 * 10_000);
        let averages: f64 = categories.iter().filter_map(|c| c["average_percent"].as_f64()).sum();
        prop_assert!((averages - 100.0).abs() <= 4.0 * 0.000_05 + 1e-9);
    }
}
