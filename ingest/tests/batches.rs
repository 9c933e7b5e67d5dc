//! The contract of batch submissions.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;

use serde_json::Value;
use support::{
    BATCH, GOOD, Harness, LogMode, TestResponse, check_problem, check_receipt, key, pointers,
};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

fn with_id(id: &str, person: &str, health: u32) -> String {
    let rest = 100 - health;
    format!(
        r#"{{"person":"{person}","allocation":{{"health":{health},"education":{rest}}},"submission_id":"{id}"}}"#
    )
}

#[track_caller]
fn results(response: &TestResponse) -> Vec<Value> {
    assert_eq!(response.status.as_u16(), 200, "{}", String::from_utf8_lossy(&response.body));
    assert_eq!(response.header("content-type"), Some("application/json"));
    response.json()["results"].as_array().unwrap().clone()
}

#[tokio::test]
async fn an_invalid_item_affects_no_other_in_an_array_or_in_ndjson() {
    let bad = GOOD.replace("40", "39").replace("p-1", "p-2");
    let also_good = GOOD.replace("p-1", "p-3");
    let array = format!("[{GOOD},{bad},7,{also_good}]");
    let lines = format!("{GOOD}\n{bad}\n7\n{also_good}\n");
    for (headers, body) in [(vec![], array), (vec![NDJSON], lines)] {
        let harness = Harness::new();
        let response = harness.post_with(BATCH, &headers, body).await;
        let items = results(&response);
        assert_eq!(items.len(), 4);
        for index in [0, 3] {
            assert_eq!(items[index]["status"], 202);
            check_receipt(&items[index]);
        }
        assert_eq!(items[1]["status"], 422);
        check_problem(&items[1]["problem"], 422, "invalid-allocation");
        assert_eq!(items[1]["problem"]["instance"].as_str(), response.header("x-request-id"));
        assert_eq!(pointers(&items[1]["problem"]), ["/allocation"]);
        assert_eq!(items[2]["status"], 400);
        check_problem(&items[2]["problem"], 400, "malformed");
        let people: Vec<_> = harness.logged().into_iter().map(|(person, _)| person).collect();
        assert_eq!(people, [key("p-1"), key("p-3")]);
        assert_eq!((harness.counted("accepted"), harness.counted("invalid")), (2, 2));
    }
}

#[tokio::test]
async fn a_line_that_is_not_json_affects_no_other() {
    let harness = Harness::new();
    let response = harness.post_with(BATCH, &[NDJSON], format!("{{\"person\n\n{GOOD}\r\n")).await;
    let statuses: Vec<_> = results(&response).iter().map(|item| item["status"].clone()).collect();
    assert_eq!(statuses, [400, 202]);
}

#[tokio::test]
async fn an_item_with_an_invalid_number_or_string_affects_no_other() {
    let harness = Harness::new();
    let also_good = GOOD.replace("p-1", "p-3");
    let body = format!(r#"[{GOOD},1e400,{{"\ud800":1}},{also_good}]"#);
    let response = harness.post(BATCH, body).await;
    let statuses: Vec<_> = results(&response).iter().map(|item| item["status"].clone()).collect();
    assert_eq!(statuses, [202, 400, 400, 202]);
    let people: Vec<_> = harness.logged().into_iter().map(|(person, _)| person).collect();
    assert_eq!(people, [key("p-1"), key("p-3")]);
}

#[tokio::test]
async fn an_array_that_is_not_json_is_rejected_as_a_whole() {
    let harness = Harness::new();
    for body in [format!("[{GOOD},"), GOOD.to_owned(), String::new()] {
        harness.post(BATCH, body).await.problem(400, "malformed");
    }
    assert_eq!(harness.logged(), []);
}

#[tokio::test]
async fn a_full_batch_is_accepted_and_one_more_item_is_not() {
    let harness = Harness::new();
    let full: Vec<String> = (0..1_000).map(|n| GOOD.replace("p-1", &format!("p-{n}"))).collect();
    let response = harness.post(BATCH, format!("[{}]", full.join(","))).await;
    assert!(results(&response).iter().all(|item| item["status"] == 202));
    let expected: Vec<_> = (0..1_000).map(|n| key(&format!("p-{n}"))).collect();
    let people: Vec<_> = harness.logged().into_iter().map(|(person, _)| person).collect();
    assert_eq!(people, expected);
    let response = harness.post(BATCH, format!("[{},{GOOD}]", full.join(","))).await;
    response.problem(413, "content-too-large");
    let response =
        harness.post_with(BATCH, &[NDJSON], format!("{}\n{GOOD}", full.join("\n"))).await;
    response.problem(413, "content-too-large");
    assert_eq!(harness.logged().len(), 1_000);
}

#[tokio::test]
async fn an_empty_batch_has_no_results_and_does_not_freeze_the_budget() {
    let harness = Harness::new();
    assert_eq!(results(&harness.post(BATCH, "[]").await), Vec::<Value>::new());
    assert_eq!(results(&harness.post_with(BATCH, &[NDJSON], "\n").await), Vec::<Value>::new());
    assert!(!harness.definitions.get("taxes").unwrap().frozen);
}

#[tokio::test]
async fn duplicate_items_of_a_batch_are_one_submission() {
    let harness = Harness::new();
    let (item, other) = (with_id(ID, "p-1", 40), with_id(ID, "p-1", 41));
    let response = harness.post(BATCH, format!("[{item},{item},{other},{GOOD}]")).await;
    let items = results(&response);
    assert_eq!(check_receipt(&items[0]), check_receipt(&items[1]));
    assert_eq!((&items[0]["replayed"], &items[1]["replayed"]), (&Value::Null, &Value::Bool(true)));
    assert_eq!(items[2]["status"], 422);
    check_problem(&items[2]["problem"], 422, "key-reused");
    assert_eq!(items[3]["status"], 202);
    assert_eq!(harness.logged().len(), 2);

    let again = results(&harness.post(BATCH, format!("[{item}]")).await);
    assert_eq!(check_receipt(&again[0]), check_receipt(&items[0]));
    assert_eq!(again[0]["replayed"], true);
    assert_eq!(harness.logged().len(), 2);
    assert_eq!(harness.counted("repeated"), 2);
}

#[tokio::test]
async fn a_batch_with_an_idempotency_key_is_rejected() {
    let harness = Harness::new();
    let response = harness.post_with(BATCH, &[("idempotency-key", "x")], format!("[{GOOD}]")).await;
    assert!(response.problem(400, "malformed").contains("submission_id"));
    assert_eq!(harness.logged(), []);
}

#[tokio::test]
async fn items_that_the_log_did_not_confirm_are_reported_with_their_ids() {
    let harness = Harness::new();
    let body = format!("[{},{}]", with_id(ID, "p-1", 40), with_id(ID, "p-1", 40));
    for (mode, word) in
        [(LogMode::RejectsAppends, "nothing was accepted"), (LogMode::OutcomeUnknown, "unknown")]
    {
        harness.log.set_mode(mode);
        for item in results(&harness.post(BATCH, body.clone()).await) {
            assert_eq!(item["status"], 503);
            assert_eq!(item["submission_id"], ID);
            check_problem(&item["problem"], 503, "unavailable");
            assert!(item["problem"]["detail"].as_str().unwrap().contains(word), "{item}");
        }
    }
    assert_eq!((harness.counted("unavailable"), harness.counted("unknown")), (2, 2));
    harness.log.set_mode(LogMode::Unavailable);
    let response = harness.post(BATCH, body).await;
    response.problem(503, "unavailable");
    assert_eq!(response.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_batch_beyond_the_in_flight_limit_is_rejected_as_a_whole() {
    let harness = Harness::with(2, &[]);
    let response = harness.post(BATCH, format!("[{GOOD},{GOOD},{GOOD}]")).await;
    assert!(response.problem(503, "unavailable").contains("nothing was accepted"));
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(harness.logged(), []);
    assert_eq!(harness.idempotency.begun.load(Ordering::SeqCst), 0);
    assert_eq!(harness.counted("unavailable"), 3, "each submission counts");
}

#[tokio::test]
async fn a_batch_of_another_media_type_is_rejected() {
    let harness = Harness::new();
    let response = harness.post_with(BATCH, &[("content-type", "text/csv")], "a,b").await;
    response.problem(415, "unsupported-media-type");
}
