//! Background jobs, asked for and looked at.

use std::slice::from_ref;

use schemas::job::*;
use serde_json::{Value, json};
use storage::jobs::{JobStore, UnreadableJob, change};

use crate::admin::{ADMIN, OPERATOR, VIEWER, administered, ask, slug};
use crate::fakes::Mode;
use crate::world::{Got, World};

const JOBS: &str = "/v1/admin/jobs";

async fn post(world: &World, path: &str, body: &str) -> Got {
    let shown = format!("Bearer {OPERATOR}");
    let headers = [("authorization", shown.as_str()), ("content-type", "application/json")];
    world.send_body("POST", path, &headers, body).await
}

/// Asks for a job and gives where it is.
async fn asked(world: &World, path: &str, body: &str) -> String {
    let got = post(world, path, body).await;
    assert_eq!(got.status, 202, "{}", got.text);
    let location = got.header("location").to_owned();
    assert_eq!(Some(got.json()["id"].as_str().unwrap()), location.strip_prefix("/v1/admin/jobs/"));
    location
}

async fn look(world: &World, path: &str) -> Value {
    let got = ask(world, "GET", path, VIEWER).await;
    assert_eq!(got.status, 200, "{}", got.text);
    got.json()
}

fn id_of(location: &str) -> JobId {
    location.rsplit('/').next().unwrap().parse().unwrap()
}

/// A worker takes a job and does something with it.
async fn work(
    world: &World,
    location: &str,
    step: impl Fn(&Job, &Attempt) -> Result<Job, JobRefused>,
) {
    let worker = JobName::from("processor-1");
    let id = id_of(location);
    let running =
        change(&world.jobs.stored, id, |job| claim(job, &worker, job.changed_at_ms)).await;
    let attempt = running.unwrap().running().unwrap().clone();
    change(&world.jobs.stored, id, |job| step(job, &attempt)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_is_asked_for_by_its_kind_or_in_short_and_holds_who_asked() {
    let world = administered(&[]);
    let body = r#"{"kind":"rebuild","dry_run":true,"priority":"high"}"#;
    let first = asked(&world, JOBS, body).await;
    let job = look(&world, &first).await;
    for (member, value) in [
        ("kind", json!("rebuild")),
        ("dry_run", json!(true)),
        ("priority", json!("high")),
        ("asked_by", json!("otto")),
        ("state", json!("queued")),
        ("cancelling", json!(false)),
        ("attempts", json!(0)),
        ("failed", json!([])),
        ("ended_at", Value::Null),
    ] {
        assert_eq!(job[member], value, "{member}");
    }
    let rebuild = asked(&world, "/v1/admin/rebuilds", r#"{"dry_run":false}"#).await;
    let audit = asked(&world, "/v1/admin/audits", "").await;
    assert_eq!(look(&world, &rebuild).await["dry_run"], false);
    assert_eq!(look(&world, &audit).await["kind"], "audit");
    let warm = asked(&world, "/v1/admin/caches/warm", "").await;
    assert_eq!(look(&world, &warm).await["kind"], "warm_caches");
    let jobs = look(&world, JOBS).await;
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 4);
    let stored = world.jobs.stored.job(id_of(&audit)).await.unwrap().unwrap();
    assert_eq!((stored.kind, stored.asked_by.as_str()), (JobKind::Audit, "otto"));
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_again_with_the_same_key_is_one_job_and_with_another_body_refused() {
    let world = administered(&[]);
    let post = async |path: &str, body: &str, key: &str, token: &str| {
        let shown = format!("Bearer {token}");
        let headers = [
            ("authorization", shown.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        world.send_body("POST", path, &headers, body).await
    };
    let rebuilds = "/v1/admin/rebuilds";
    let first = post(rebuilds, "{}", "nightly-1", OPERATOR).await;
    let location = first.header("location").to_owned();
    assert_eq!(first.status, 202);
    let again = post(rebuilds, "{}", "nightly-1", OPERATOR).await;
    assert_eq!((again.status.as_u16(), again.header("location")), (202, &*location));
    // It goes on being that one when it has been done.
    work(&world, &location, |job, attempt| {
        succeed(job, attempt, Verdict::Clean, "done".into(), job.changed_at_ms)
    })
    .await;
    let again = post(JOBS, r#"{"kind":"rebuild"}"#, "nightly-1", OPERATOR).await;
    assert_eq!(
        (again.header("location"), &again.json()["state"]),
        (&*location, &json!("succeeded"))
    );
    let other = post(rebuilds, r#"{"dry_run":true}"#, "nightly-1", OPERATOR).await;
    assert_eq!((other.status.as_u16(), slug(&other).as_str()), (422, "key-reused"));
    // Another name, another key: another job.
    for (key, token) in [("nightly-2", OPERATOR), ("nightly-1", ADMIN)] {
        let got = post(rebuilds, "{}", key, token).await;
        assert_eq!(got.status, 202);
        assert_ne!(got.header("location"), location);
    }
    let got = post(rebuilds, "{}", &"k".repeat(256), OPERATOR).await;
    assert_eq!((got.status.as_u16(), slug(&got).as_str()), (400, "malformed"));
    assert_eq!(world.jobs.stored.jobs().await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_asks_for_no_job_is_told_every_fault_and_asks_for_nothing() {
    let world = administered(&[]);
    let got = post(&world, JOBS, r#"{"kind":"dance","priority":1,"when":"now"}"#).await;
    assert_eq!((got.status.as_u16(), slug(&got).as_str()), (400, "malformed"));
    let errors = got.json()["errors"].clone();
    let pointers: Vec<&str> =
        errors.as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/kind", "/when", "/priority"]);
    let shown = format!("Bearer {OPERATOR}");
    let got = world.send_body("POST", JOBS, &[("authorization", &shown)], "{}").await;
    assert_eq!((got.status.as_u16(), slug(&got).as_str()), (415, "unsupported-media-type"));
    assert!(world.jobs.stored.jobs().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn jobs_are_listed_by_their_state() {
    let world = administered(&[]);
    let done = asked(&world, "/v1/admin/audits", "").await;
    let waiting = asked(&world, "/v1/admin/audits", "").await;
    work(&world, &done, |job, attempt| {
        succeed(job, attempt, Verdict::Different, "partition 1".into(), job.changed_at_ms + 5)
    })
    .await;
    let ids = |list: Value| -> Vec<String> {
        let jobs = list["jobs"].as_array().unwrap().clone();
        jobs.iter().map(|job| format!("{JOBS}/{}", job["id"].as_str().unwrap())).collect()
    };
    let list = async |query: &str| ids(look(&world, &format!("{JOBS}{query}")).await);
    assert_eq!(list("?state=queued").await, from_ref(&waiting));
    assert_eq!(list("?state=succeeded").await, from_ref(&done));
    assert_eq!(list("?state=queued&state=succeeded").await.len(), 2);
    assert_eq!(list("?state=dead").await.len(), 0);
    let job = look(&world, &done).await;
    assert_eq!((&job["verdict"], &job["result"]), (&json!("different"), &json!("partition 1")));
    assert_eq!((&job["worker"], &job["attempts"]), (&json!("processor-1"), &json!(1)));
    let id = JobId::named("somebody", "something newer");
    world.jobs.unreadable.lock().unwrap().push(UnreadableJob { id, revision: 1 });
    assert_eq!(look(&world, JOBS).await["unreadable"], json!([id.to_string()]));
    let got = ask(&world, "GET", &format!("{JOBS}?state=asleep"), VIEWER).await;
    assert_eq!((got.status.as_u16(), slug(&got).as_str()), (400, "malformed"));
    assert_eq!(got.json()["errors"][0]["pointer"], "state");
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_cancelled_what_is_dead_is_retried_and_nothing_else() {
    let world = administered(&[]);
    let job = asked(&world, "/v1/admin/audits", "").await;
    let act = async |what: &str| post(&world, &format!("{job}/{what}"), "").await;
    let got = act("retry").await;
    assert_eq!((got.status.as_u16(), slug(&got).as_str()), (409, "wrong-state"));
    work(&world, &job, |job, attempt| park(job, attempt, "in vain".into(), job.changed_at_ms))
        .await;
    let dead = look(&world, &job).await;
    assert_eq!((&dead["state"], &dead["result"]), (&json!("dead"), &json!("in vain")));
    let got = act("retry").await;
    assert_eq!((got.status.as_u16(), &got.json()["state"]), (202, &json!("queued")));
    let got = act("cancel").await;
    assert_eq!((got.status.as_u16(), &got.json()["state"]), (202, &json!("cancelled")));
    let got = act("cancel").await;
    assert_eq!((got.status.as_u16(), slug(&got).as_str()), (409, "wrong-state"));
    for id in ["019347f0-0000-7000-8000-000000000000", "none", "%2e"] {
        for (method, path) in [("GET", ""), ("POST", "/cancel"), ("POST", "/retry")] {
            let got = ask(&world, method, &format!("{JOBS}/{id}{path}"), OPERATOR).await;
            assert_eq!((got.status.as_u16(), slug(&got).as_str()), (404, "not-found"), "{id}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_or_slow_is_a_problem_that_passes_and_a_full_queue_is_too() {
    let world = administered(&[]);
    let job = asked(&world, "/v1/admin/audits", "").await;
    for mode in [Mode::Fails, Mode::Hangs] {
        world.jobs.switch.set(mode);
        for (method, path) in [("GET", JOBS), ("GET", &*job), ("POST", "/v1/admin/audits")] {
            let got = ask(&world, method, path, OPERATOR).await;
            assert_eq!((got.status.as_u16(), slug(&got).as_str()), (503, "unavailable"), "{path}");
            assert_eq!(got.header("retry-after"), "1");
        }
    }
    world.jobs.switch.set(Mode::Works);
    for _ in 1..MAX_OPEN_JOBS {
        asked(&world, "/v1/admin/audits", "").await;
    }
    let got = post(&world, "/v1/admin/audits", "").await;
    assert_eq!((got.status.as_u16(), slug(&got).as_str()), (503, "unavailable"));
    assert!(
        got.text.contains("priority normal") && got.header("retry-after") == "30",
        "{}",
        got.text
    );
    // Nobody else's are in the way.
    asked(&world, "/v1/admin/audits", r#"{"priority":"critical"}"#).await;
}
