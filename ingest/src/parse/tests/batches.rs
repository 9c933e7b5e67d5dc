//! Batches: each item by itself.

use super::*;

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
