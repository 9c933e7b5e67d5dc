//! Dead letters: listing, inspection, and decisions as jobs.

use schemas::job::JobKind;
use schemas::{Offset, PartitionId, Position, RecordAddress};
use serde_json::{Value, json};
use storage::jobs::JobStore;
use storage::log::Decision;

use crate::admin::{OPERATOR, VIEWER, problem_slug, send_as, server_with_administrators};
use crate::fakes::Mode;
use crate::test_server::{TestResponse, TestServer};

const DEAD_LETTERS: &str = "/v1/admin/dead-letters";

fn replayed(partition: u32, offset: u64) -> Decision {
    Decision::Replayed { partition: PartitionId(partition), offset: Offset(offset) }
}

/// Creates a server with four dead letters, one in each state.
fn server_with_dead_letters() -> TestServer {
    let server = server_with_administrators(&[]);
    let dead_letters = &server.dead_letters;
    dead_letters.put("1.20", "unknown record version 9", b"a later one");
    dead_letters.put("1.3", "garbage", b"\xff\x00");
    dead_letters.put("0.7", "of another partition", b"misplaced");
    dead_letters.put("2.0", "garbage", b"more of it");
    let attempt = uuid::Uuid::nil();
    let (partition, from) = (PartitionId(1), Position(20));
    dead_letters.decide("1.20", Decision::Replay { attempt, partition, from });
    dead_letters.decide("0.7", replayed(2, 31));
    dead_letters.decide("2.0", Decision::Dropped);
    server
}

async fn get_json(server: &TestServer, path: &str) -> Value {
    let got = send_as(server, "GET", path, VIEWER).await;
    assert_eq!(got.status, 200, "{}", got.text);
    got.json()
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_listed_in_pages_with_their_states() {
    let server = server_with_dead_letters();
    let all = get_json(&server, DEAD_LETTERS).await;
    assert_eq!(all["next"], Value::Null);
    assert_eq!(
        all["dead_letters"][0],
        json!({"id": "0.7", "partition": 0, "offset": 7, "state": "replayed", "replayed_as": "2.31",
               "reason": "of another partition", "put_at": "2026-11-20T22:00:00.123Z",
               "key_bytes": 16, "value_bytes": 9})
    );
    let states = |page: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let dead_letters = page["dead_letters"].as_array().unwrap();
        dead_letters
            .iter()
            .map(|dead_letter| (text(&dead_letter["id"]), text(&dead_letter["state"])))
            .collect()
    };
    let pair = |id: &str, state: &str| (id.to_owned(), state.to_owned());
    let expected = [
        pair("0.7", "replayed"),
        pair("1.3", "open"),
        pair("1.20", "replaying"),
        pair("2.0", "dropped"),
    ];
    assert_eq!(states(&all), expected);
    let (mut paged, mut after) = (Vec::new(), String::new());
    for _ in 0..2 {
        let page = get_json(&server, &format!("{DEAD_LETTERS}?limit=2{after}")).await;
        paged.extend(states(&page));
        after = format!("&after={}", page["next"].as_str().unwrap_or("none"));
    }
    assert_eq!((paged, after.as_str()), (expected.to_vec(), "&after=none"));
    for (query, pointers) in
        [("limit=0&after=here", "limit,after"), ("limit=1001", "limit"), ("limit=x", "limit")]
    {
        let got = send_as(&server, "GET", &format!("{DEAD_LETTERS}?{query}"), VIEWER).await;
        assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (400, "malformed"));
        let errors = got.json()["errors"].clone();
        let reported: Vec<&str> = errors
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(reported.join(","), pointers);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_shown_with_at_most_4096_of_its_bytes() {
    let server = server_with_dead_letters();
    let dead_letter = get_json(&server, &format!("{DEAD_LETTERS}/1.3")).await;
    assert_eq!((&dead_letter["id"], &dead_letter["state"]), (&json!("1.3"), &json!("open")));
    let key = "07".repeat(16);
    assert_eq!(dead_letter["record"], json!({"key": key, "value": "ff00", "trouble": null}));
    server.dead_letters.put("1.4", "large", &[0xab; 5_000]);
    let dead_letter = get_json(&server, &format!("{DEAD_LETTERS}/1.4")).await;
    assert_eq!(
        (&dead_letter["value_bytes"], &dead_letter["record"]["value"]),
        (&json!(5_000), &json!("ab".repeat(4_096)))
    );
    // The log holds another record at the address, or none.
    let address: RecordAddress = "1.4".parse().unwrap();
    let record = |value: &[u8]| {
        let mut records = server.dead_letters.records.lock();
        records.retain(|(other, ..)| *other != address);
        records.push((address, vec![7; 16], value.to_vec()));
    };
    record(b"another");
    let dead_letter = get_json(&server, &format!("{DEAD_LETTERS}/1.4")).await;
    assert_eq!(
        dead_letter["record"],
        json!({"key": null, "value": null, "trouble": "another record is at this address now"})
    );
    server.dead_letters.records.lock().clear();
    let dead_letter = get_json(&server, &format!("{DEAD_LETTERS}/1.4")).await;
    assert_eq!(dead_letter["record"]["trouble"], "the log has no record at 4");
}

#[tokio::test(start_paused = true)]
async fn a_decision_on_a_dead_letter_is_a_job_of_the_requesting_administrator() {
    let server = server_with_dead_letters();
    let stored = async |got: TestResponse| {
        assert_eq!(got.status, 202, "{}", got.text);
        let id = got.json()["id"].as_str().unwrap().parse().unwrap();
        let job = server.jobs.stored.job(id).await.unwrap().unwrap();
        assert_eq!(job.requested_by.as_str(), "otto");
        (job.kind, got)
    };
    let dead_letter: RecordAddress = "1.3".parse().unwrap();
    let got = send_as(&server, "POST", &format!("{DEAD_LETTERS}/1.3/replay"), OPERATOR).await;
    let (kind, got) = stored(got).await;
    assert_eq!(kind, JobKind::ReplayDeadLetter { dead_letter, resume: false });
    assert_eq!((&got.json()["letter"], &got.json()["resume"]), (&json!("1.3"), &json!(false)));
    assert!(got.header("location").starts_with("/v1/admin/jobs/"));
    let got = send_as(&server, "POST", &format!("{DEAD_LETTERS}/1.3/drop"), OPERATOR).await;
    assert_eq!(stored(got).await.0, JobKind::DropDeadLetter { dead_letter });
    // Decisions that contradict an earlier one, and unknown dead letters, are refused at once.
    for (path, status, problem) in [
        ("0.7/drop", 409, "wrong-state"),
        ("2.0/replay", 409, "wrong-state"),
        ("9.9/replay", 404, "not-found"),
        ("9.9/drop", 404, "not-found"),
        ("none/drop", 404, "not-found"),
    ] {
        let got = send_as(&server, "POST", &format!("{DEAD_LETTERS}/{path}"), OPERATOR).await;
        assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (status, problem), "{path}");
    }
    assert_eq!(server.jobs.stored.jobs().await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_or_slow_log_is_503_and_concurrent_reads_are_limited() {
    let server = server_with_dead_letters();
    for mode in [Mode::Fails, Mode::Hangs] {
        server.dead_letters.switch.set(mode);
        for (method, path) in
            [("GET", ""), ("GET", "/1.3"), ("POST", "/1.3/replay"), ("POST", "/1.3/drop")]
        {
            let got = send_as(&server, method, &format!("{DEAD_LETTERS}{path}"), OPERATOR).await;
            assert_eq!(
                (got.status.as_u16(), problem_slug(&got).as_str()),
                (503, "unavailable"),
                "{path}"
            );
            assert_eq!(got.header("retry-after"), "1");
        }
    }
    let many = (0..5).map(|_| send_as(&server, "GET", DEAD_LETTERS, VIEWER));
    let refused = futures_util::future::join_all(many).await;
    let at_limit = |got: &&TestResponse| got.text.contains("too many requests are reading");
    assert_eq!(refused.iter().filter(at_limit).count(), 3);
    server.dead_letters.switch.set(Mode::Works);
    get_json(&server, DEAD_LETTERS).await;
}
