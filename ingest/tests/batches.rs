//! What clients are promised about batches.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;

use serde_json::Value;
use support::{Answer, BATCH, GOOD, LogMood, World, check_problem, check_receipt, key, pointers};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

fn named(id: &str, person: &str, health: u32) -> String {
    let rest = 100 - health;
    format!(
        r#"{{"person":"{person}","allocation":{{"health":{health},"education":{rest}}},"submission_id":"{id}"}}"#
    )
}

#[track_caller]
fn results(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status.as_u16(), 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()["results"].as_array().unwrap().clone()
}

#[tokio::test]
async fn one_bad_item_spoils_no_other_in_an_array_or_in_lines() {
    let bad = GOOD.replace("40", "39").replace("p-1", "p-2");
    let also_good = GOOD.replace("p-1", "p-3");
    let array = format!("[{GOOD},{bad},7,{also_good}]");
    let lines = format!("{GOOD}\n{bad}\n7\n{also_good}\n");
    for (headers, body) in [(vec![], array), (vec![NDJSON], lines)] {
        let world = World::new();
        let answer = world.post_with(BATCH, &headers, body).await;
        let items = results(&answer);
        assert_eq!(items.len(), 4);
        for place in [0, 3] {
            assert_eq!(items[place]["status"], 202);
            check_receipt(&items[place]);
        }
        assert_eq!(items[1]["status"], 422);
        check_problem(&items[1]["problem"], 422, "invalid-allocation");
        assert_eq!(items[1]["problem"]["instance"].as_str(), answer.header("x-request-id"));
        assert_eq!(pointers(&items[1]["problem"]), ["/allocation"]);
        assert_eq!(items[2]["status"], 400);
        check_problem(&items[2]["problem"], 400, "malformed");
        let people: Vec<_> = world.logged().into_iter().map(|(person, _)| person).collect();
        assert_eq!(people, [key("p-1"), key("p-3")]);
        assert_eq!((world.counted("accepted"), world.counted("invalid")), (2, 2));
    }
}

#[tokio::test]
async fn a_line_that_is_not_json_spoils_no_other() {
    let world = World::new();
    let answer = world.post_with(BATCH, &[NDJSON], format!("{{\"person\n\n{GOOD}\r\n")).await;
    let statuses: Vec<_> = results(&answer).iter().map(|item| item["status"].clone()).collect();
    assert_eq!(statuses, [400, 202]);
}

#[tokio::test]
async fn an_item_that_no_number_or_text_can_hold_spoils_no_other() {
    let world = World::new();
    let also_good = GOOD.replace("p-1", "p-3");
    let body = format!(r#"[{GOOD},1e400,{{"\ud800":1}},{also_good}]"#);
    let answer = world.post(BATCH, body).await;
    let statuses: Vec<_> = results(&answer).iter().map(|item| item["status"].clone()).collect();
    assert_eq!(statuses, [202, 400, 400, 202]);
    let people: Vec<_> = world.logged().into_iter().map(|(person, _)| person).collect();
    assert_eq!(people, [key("p-1"), key("p-3")]);
}

#[tokio::test]
async fn an_array_that_is_not_json_is_refused_whole() {
    let world = World::new();
    for body in [format!("[{GOOD},"), GOOD.to_owned(), String::new()] {
        world.post(BATCH, body).await.problem(400, "malformed");
    }
    assert_eq!(world.logged(), []);
}

#[tokio::test]
async fn a_full_batch_is_taken_and_one_item_more_is_not() {
    let world = World::new();
    let full: Vec<String> = (0..1_000).map(|n| GOOD.replace("p-1", &format!("p-{n}"))).collect();
    let answer = world.post(BATCH, format!("[{}]", full.join(","))).await;
    assert!(results(&answer).iter().all(|item| item["status"] == 202));
    let expected: Vec<_> = (0..1_000).map(|n| key(&format!("p-{n}"))).collect();
    let people: Vec<_> = world.logged().into_iter().map(|(person, _)| person).collect();
    assert_eq!(people, expected);
    let answer = world.post(BATCH, format!("[{},{GOOD}]", full.join(","))).await;
    answer.problem(413, "content-too-large");
    let answer = world.post_with(BATCH, &[NDJSON], format!("{}\n{GOOD}", full.join("\n"))).await;
    answer.problem(413, "content-too-large");
    assert_eq!(world.logged().len(), 1_000);
}

#[tokio::test]
async fn an_empty_batch_has_no_results_and_freezes_nothing() {
    let world = World::new();
    assert_eq!(results(&world.post(BATCH, "[]").await), Vec::<Value>::new());
    assert_eq!(results(&world.post_with(BATCH, &[NDJSON], "\n").await), Vec::<Value>::new());
    assert!(!world.definitions.get("taxes").unwrap().frozen);
}

#[tokio::test]
async fn the_same_item_twice_is_one_submission() {
    let world = World::new();
    let (item, other) = (named(ID, "p-1", 40), named(ID, "p-1", 41));
    let answer = world.post(BATCH, format!("[{item},{item},{other},{GOOD}]")).await;
    let items = results(&answer);
    assert_eq!(check_receipt(&items[0]), check_receipt(&items[1]));
    assert_eq!((&items[0]["replayed"], &items[1]["replayed"]), (&Value::Null, &Value::Bool(true)));
    assert_eq!(items[2]["status"], 422);
    check_problem(&items[2]["problem"], 422, "key-reused");
    assert_eq!(items[3]["status"], 202);
    assert_eq!(world.logged().len(), 2);

    let again = results(&world.post(BATCH, format!("[{item}]")).await);
    assert_eq!(check_receipt(&again[0]), check_receipt(&items[0]));
    assert_eq!(again[0]["replayed"], true);
    assert_eq!(world.logged().len(), 2);
    assert_eq!(world.counted("repeated"), 2);
}

#[tokio::test]
async fn a_batch_has_no_name_of_its_own() {
    let world = World::new();
    let answer = world.post_with(BATCH, &[("idempotency-key", "x")], format!("[{GOOD}]")).await;
    assert!(answer.problem(400, "malformed").contains("submission_id"));
    assert_eq!(world.logged(), []);
}

#[tokio::test]
async fn items_that_the_log_did_not_take_say_so_with_their_ids() {
    let world = World::new();
    let body = format!("[{},{}]", named(ID, "p-1", 40), named(ID, "p-1", 40));
    for (mood, word) in [(LogMood::Refusing, "nothing was accepted"), (LogMood::Vague, "unknown")] {
        world.log.is(mood);
        for item in results(&world.post(BATCH, body.clone()).await) {
            assert_eq!(item["status"], 503);
            assert_eq!(item["submission_id"], ID);
            check_problem(&item["problem"], 503, "unavailable");
            assert!(item["problem"]["detail"].as_str().unwrap().contains(word), "{item}");
        }
    }
    assert_eq!((world.counted("unavailable"), world.counted("unknown")), (2, 2));
    world.log.is(LogMood::Away);
    let answer = world.post(BATCH, body).await;
    answer.problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_batch_beyond_the_room_is_refused_whole() {
    let world = World::with(1, &[]);
    let answer = world.post(BATCH, format!("[{GOOD},{GOOD}]")).await;
    assert!(answer.problem(503, "unavailable").contains("nothing was accepted"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(world.logged(), []);
    assert_eq!(world.idempotency.begun.load(Ordering::SeqCst), 0);
    assert_eq!(world.counted("unavailable"), 2, "each of its submissions");
}

#[tokio::test]
async fn a_batch_of_another_media_type_is_not_read() {
    let world = World::new();
    let answer = world.post_with(BATCH, &[("content-type", "text/csv")], "a,b").await;
    answer.problem(415, "unsupported-media-type");
}
