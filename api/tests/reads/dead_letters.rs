//! Dead letters, looked at; and what is decided about them, as jobs.

use schemas::job::JobKind;
use schemas::{Offset, PartitionId, Position, Receipt};
use serde_json::{Value, json};
use storage::jobs::JobStore;
use storage::log::Decision;

use crate::admin::{OPERATOR, VIEWER, administered, ask, slug};
use crate::fakes::Mode;
use crate::world::World;

const LETTERS: &str = "/v1/admin/dead-letters";

fn replayed(partition: u32, offset: u64) -> Decision {
    Decision::Replayed { partition: PartitionId(partition), offset: Offset(offset) }
}

/// A world of four letters, one of each state.
fn with_letters() -> World {
    let world = administered(&[]);
    let letters = &world.letters;
    letters.put("1.20", "unknown record version 9", b"a later one");
    letters.put("1.3", "garbage", b"\xff\x00");
    letters.put("0.7", "of another partition", b"misplaced");
    letters.put("2.0", "garbage", b"more of it");
    let attempt = uuid::Uuid::nil();
    let (partition, from) = (PartitionId(1), Position(20));
    letters.decide("1.20", Decision::Replay { attempt, partition, from });
    letters.decide("0.7", replayed(2, 31));
    letters.decide("2.0", Decision::Dropped);
    world
}

async fn look(world: &World, path: &str) -> Value {
    let got = ask(world, "GET", path, VIEWER).await;
    assert_eq!(got.status, 200, "{}", got.text);
    got.json()
}

#[tokio::test(start_paused = true)]
async fn letters_are_listed_page_by_page_with_what_has_become_of_them() {
    let world = with_letters();
    let all = look(&world, LETTERS).await;
    assert_eq!(all["next"], Value::Null);
    assert_eq!(
        all["dead_letters"][0],
        json!({"id": "0.7", "partition": 0, "offset": 7, "state": "replayed", "replayed_as": "2.31",
               "reason": "of another partition", "put_at": "2026-11-20T22:00:00.123Z",
               "key_bytes": 16, "value_bytes": 9})
    );
    let states = |page: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let letters = page["dead_letters"].as_array().unwrap();
        letters.iter().map(|letter| (text(&letter["id"]), text(&letter["state"]))).collect()
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
        let page = look(&world, &format!("{LETTERS}?limit=2{after}")).await;
        paged.extend(states(&page));
        after = format!("&after={}", page["next"].as_str().unwrap_or("none"));
    }
    assert_eq!((paged, after.as_str()), (expected.to_vec(), "&after=none"));
    for (query, pointers) in
        [("limit=0&after=here", "limit,after"), ("limit=1001", "limit"), ("limit=x", "limit")]
    {
        let got = ask(&world, "GET", &format!("{LETTERS}?{query}"), VIEWER).await;
        assert_eq!((got.status.as_u16(), slug(&got).as_str()), (400, "malformed"));
        let errors = got.json()["errors"].clone();
        let told: Vec<&str> = errors
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(told.join(","), pointers);
    }
}

#[tokio::test(start_paused = true)]
async fn a_letter_is_shown_with_its_bytes_and_no_more_of_them_than_a_page_holds() {
    let world = with_letters();
    let letter = look(&world, &format!("{LETTERS}/1.3")).await;
    assert_eq!((&letter["id"], &letter["state"]), (&json!("1.3"), &json!("open")));
    let key = "07".repeat(16);
    assert_eq!(letter["record"], json!({"key": key, "value": "ff00", "trouble": null}));
    world.letters.put("1.4", "large", &[0xab; 5_000]);
    let letter = look(&world, &format!("{LETTERS}/1.4")).await;
    assert_eq!(
        (&letter["value_bytes"], &letter["record"]["value"]),
        (&json!(5_000), &json!("ab".repeat(4_096)))
    );
    // What stands there is not what was put away, or nothing does any more.
    let place: Receipt = "1.4".parse().unwrap();
    let record = |value: &[u8]| {
        let mut records = world.letters.records.lock().unwrap();
        records.retain(|(other, ..)| *other != place);
        records.push((place, vec![7; 16], value.to_vec()));
    };
    record(b"another");
    let letter = look(&world, &format!("{LETTERS}/1.4")).await;
    assert_eq!(
        letter["record"],
        json!({"key": null, "value": null, "trouble": "another record stands there now"})
    );
    world.letters.records.lock().unwrap().clear();
    let letter = look(&world, &format!("{LETTERS}/1.4")).await;
    assert_eq!(letter["record"]["trouble"], "the log has no record at 4");
}

#[tokio::test(start_paused = true)]
async fn what_is_decided_about_a_letter_is_a_job_of_whoever_decides() {
    let world = with_letters();
    let stored = async |got: crate::world::Got| {
        assert_eq!(got.status, 202, "{}", got.text);
        let id = got.json()["id"].as_str().unwrap().parse().unwrap();
        let job = world.jobs.stored.job(id).await.unwrap().unwrap();
        assert_eq!(job.asked_by.as_str(), "otto");
        (job.kind, got)
    };
    let letter: Receipt = "1.3".parse().unwrap();
    let got = ask(&world, "POST", &format!("{LETTERS}/1.3/replay"), OPERATOR).await;
    let (kind, got) = stored(got).await;
    assert_eq!(kind, JobKind::ReplayDeadLetter { letter, resume: false });
    assert_eq!((&got.json()["letter"], &got.json()["resume"]), (&json!("1.3"), &json!(false)));
    assert!(got.header("location").starts_with("/v1/admin/jobs/"));
    let got = ask(&world, "POST", &format!("{LETTERS}/1.3/drop"), OPERATOR).await;
    assert_eq!(stored(got).await.0, JobKind::DropDeadLetter { letter });
    // What has been done is done once more in vain, or says so at once.
    for (path, status, slug_of) in [
        ("0.7/drop", 409, "wrong-state"),
        ("2.0/replay", 409, "wrong-state"),
        ("9.9/replay", 404, "not-found"),
        ("9.9/drop", 404, "not-found"),
        ("none/drop", 404, "not-found"),
    ] {
        let got = ask(&world, "POST", &format!("{LETTERS}/{path}"), OPERATOR).await;
        assert_eq!((got.status.as_u16(), slug(&got).as_str()), (status, slug_of), "{path}");
    }
    assert_eq!(world.jobs.stored.jobs().await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_away_or_slow_is_a_problem_that_passes_and_few_look_at_once() {
    let world = with_letters();
    for mode in [Mode::Fails, Mode::Hangs] {
        world.letters.switch.set(mode);
        for (method, path) in
            [("GET", ""), ("GET", "/1.3"), ("POST", "/1.3/replay"), ("POST", "/1.3/drop")]
        {
            let got = ask(&world, method, &format!("{LETTERS}{path}"), OPERATOR).await;
            assert_eq!((got.status.as_u16(), slug(&got).as_str()), (503, "unavailable"), "{path}");
            assert_eq!(got.header("retry-after"), "1");
        }
    }
    let many = (0..5).map(|_| ask(&world, "GET", LETTERS, VIEWER));
    let refused = futures_util::future::join_all(many).await;
    let at_once = |got: &&crate::world::Got| got.text.contains("others look");
    assert_eq!(refused.iter().filter(at_once).count(), 3);
    world.letters.switch.set(Mode::Works);
    look(&world, LETTERS).await;
}
