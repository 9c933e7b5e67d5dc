//! Background jobs: submission, listing, cancellation and retry.

use std::slice::from_ref;

use schemas::job::*;
use serde_json::{Value, json};
use storage::jobs::{JobStore, UnreadableJob, update_job};

use crate::admin::{ADMIN, OPERATOR, VIEWER, problem_slug, send_as, server_with_administrators};
use crate::fakes::Mode;
use crate::test_server::{TestResponse, TestServer};

const JOBS: &str = "/v1/admin/jobs";

async fn post(server: &TestServer, path: &str, body: &str) -> TestResponse {
    let authorization = format!("Bearer {OPERATOR}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    server.send_body("POST", path, &headers, body).await
}

/// Submits a job and returns its location.
async fn submit(server: &TestServer, path: &str, body: &str) -> String {
    let got = post(server, path, body).await;
    assert_eq!(got.status, 202, "{}", got.text);
    let location = got.header("location").to_owned();
    assert_eq!(Some(got.json()["id"].as_str().unwrap()), location.strip_prefix("/v1/admin/jobs/"));
    location
}

async fn get_json(server: &TestServer, path: &str) -> Value {
    let got = send_as(server, "GET", path, VIEWER).await;
    assert_eq!(got.status, 200, "{}", got.text);
    got.json()
}

fn id_of(location: &str) -> JobId {
    location.rsplit('/').next().unwrap().parse().unwrap()
}

/// Claims a job as a worker and applies a step to it.
async fn run_attempt(
    server: &TestServer,
    location: &str,
    step: impl Fn(&Job, &Attempt) -> Result<Job, JobTransitionError>,
) {
    let worker = JobName::from("processor-1");
    let id = id_of(location);
    let running =
        update_job(&server.jobs.stored, id, |job| claim(job, &worker, job.changed_at_ms)).await;
    let attempt = running.unwrap().running().unwrap().clone();
    update_job(&server.jobs.stored, id, |job| step(job, &attempt)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_is_submitted_by_kind_or_by_a_short_route_and_records_who_requested_it() {
    let server = server_with_administrators(&[]);
    let body = r#"{"kind":"rebuild","dry_run":true,"priority":"high"}"#;
    let first = submit(&server, JOBS, body).await;
    let job = get_json(&server, &first).await;
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
    let rebuild = submit(&server, "/v1/admin/rebuilds", r#"{"dry_run":false}"#).await;
    let audit = submit(&server, "/v1/admin/audits", "").await;
    assert_eq!(get_json(&server, &rebuild).await["dry_run"], false);
    assert_eq!(get_json(&server, &audit).await["kind"], "audit");
    let warm = submit(&server, "/v1/admin/caches/warm", "").await;
    assert_eq!(get_json(&server, &warm).await["kind"], "warm_caches");
    let jobs = get_json(&server, JOBS).await;
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 4);
    let stored = server.jobs.stored.job(id_of(&audit)).await.unwrap().unwrap();
    assert_eq!((stored.kind, stored.requested_by.as_str()), (JobKind::Audit, "otto"));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_idempotency_key_yields_one_job_and_a_different_body_is_refused() {
    let server = server_with_administrators(&[]);
    let post = async |path: &str, body: &str, key: &str, token: &str| {
        let authorization = format!("Bearer {token}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        server.send_body("POST", path, &headers, body).await
    };
    let rebuilds = "/v1/admin/rebuilds";
    let first = post(rebuilds, "{}", "nightly-1", OPERATOR).await;
    let location = first.header("location").to_owned();
    assert_eq!(first.status, 202);
    let again = post(rebuilds, "{}", "nightly-1", OPERATOR).await;
    assert_eq!((again.status.as_u16(), again.header("location")), (202, &*location));
    // The key still yields that job after it has succeeded.
    run_attempt(&server, &location, |job, attempt| {
        succeed(job, attempt, Verdict::Clean, "done".into(), job.changed_at_ms)
    })
    .await;
    let again = post(JOBS, r#"{"kind":"rebuild"}"#, "nightly-1", OPERATOR).await;
    assert_eq!(
        (again.header("location"), &again.json()["state"]),
        (&*location, &json!("succeeded"))
    );
    let other = post(rebuilds, r#"{"dry_run":true}"#, "nightly-1", OPERATOR).await;
    assert_eq!((other.status.as_u16(), problem_slug(&other).as_str()), (422, "key-reused"));
    // Another administrator or another key: another job.
    for (key, token) in [("nightly-2", OPERATOR), ("nightly-1", ADMIN)] {
        let got = post(rebuilds, "{}", key, token).await;
        assert_eq!(got.status, 202);
        assert_ne!(got.header("location"), location);
    }
    let got = post(rebuilds, "{}", &"k".repeat(256), OPERATOR).await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (400, "malformed"));
    assert_eq!(server.jobs.stored.jobs().await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_body_reports_every_fault_and_submits_no_job() {
    let server = server_with_administrators(&[]);
    let got = post(&server, JOBS, r#"{"kind":"dance","priority":1,"when":"now"}"#).await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (400, "malformed"));
    let errors = got.json()["errors"].clone();
    let pointers: Vec<&str> =
        errors.as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/kind", "/when", "/priority"]);
    let authorization = format!("Bearer {OPERATOR}");
    let got = server.send_body("POST", JOBS, &[("authorization", &authorization)], "{}").await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (415, "unsupported-media-type"));
    assert!(server.jobs.stored.jobs().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn jobs_are_listed_by_their_state() {
    let server = server_with_administrators(&[]);
    let done = submit(&server, "/v1/admin/audits", "").await;
    let waiting = submit(&server, "/v1/admin/audits", "").await;
    run_attempt(&server, &done, |job, attempt| {
        succeed(job, attempt, Verdict::Different, "partition 1".into(), job.changed_at_ms + 5)
    })
    .await;
    let ids = |list: Value| -> Vec<String> {
        let jobs = list["jobs"].as_array().unwrap().clone();
        jobs.iter().map(|job| format!("{JOBS}/{}", job["id"].as_str().unwrap())).collect()
    };
    let list = async |query: &str| ids(get_json(&server, &format!("{JOBS}{query}")).await);
    assert_eq!(list("?state=queued").await, from_ref(&waiting));
    assert_eq!(list("?state=succeeded").await, from_ref(&done));
    assert_eq!(list("?state=queued&state=succeeded").await.len(), 2);
    assert_eq!(list("?state=dead").await.len(), 0);
    let job = get_json(&server, &done).await;
    assert_eq!((&job["verdict"], &job["result"]), (&json!("different"), &json!("partition 1")));
    assert_eq!((&job["worker"], &job["attempts"]), (&json!("processor-1"), &json!(1)));
    let id = JobId::from_name("anna", "of a newer release");
    server.jobs.unreadable.lock().push(UnreadableJob { id, revision: 1 });
    assert_eq!(get_json(&server, JOBS).await["unreadable"], json!([id.to_string()]));
    let got = send_as(&server, "GET", &format!("{JOBS}?state=asleep"), VIEWER).await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (400, "malformed"));
    assert_eq!(got.json()["errors"][0]["pointer"], "state");
}

#[tokio::test(start_paused = true)]
async fn only_queued_jobs_are_cancelled_and_only_dead_jobs_are_retried() {
    let server = server_with_administrators(&[]);
    let job = submit(&server, "/v1/admin/audits", "").await;
    let act = async |action: &str| post(&server, &format!("{job}/{action}"), "").await;
    let got = act("retry").await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (409, "wrong-state"));
    run_attempt(&server, &job, |job, attempt| {
        fail_permanently(job, attempt, "permanent failure".into(), job.changed_at_ms)
    })
    .await;
    let dead = get_json(&server, &job).await;
    assert_eq!((&dead["state"], &dead["result"]), (&json!("dead"), &json!("permanent failure")));
    let got = act("retry").await;
    assert_eq!((got.status.as_u16(), &got.json()["state"]), (202, &json!("queued")));
    let got = act("cancel").await;
    assert_eq!((got.status.as_u16(), &got.json()["state"]), (202, &json!("cancelled")));
    let got = act("cancel").await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (409, "wrong-state"));
    for id in ["019347f0-0000-7000-8000-000000000000", "none", "%2e"] {
        for (method, path) in [("GET", ""), ("POST", "/cancel"), ("POST", "/retry")] {
            let got = send_as(&server, method, &format!("{JOBS}/{id}{path}"), OPERATOR).await;
            assert_eq!(
                (got.status.as_u16(), problem_slug(&got).as_str()),
                (404, "not-found"),
                "{id}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_or_slow_store_and_a_full_queue_are_503_with_retry_after() {
    let server = server_with_administrators(&[]);
    let job = submit(&server, "/v1/admin/audits", "").await;
    for mode in [Mode::Fails, Mode::Hangs] {
        server.jobs.switch.set(mode);
        for (method, path) in [("GET", JOBS), ("GET", &*job), ("POST", "/v1/admin/audits")] {
            let got = send_as(&server, method, path, OPERATOR).await;
            assert_eq!(
                (got.status.as_u16(), problem_slug(&got).as_str()),
                (503, "unavailable"),
                "{path}"
            );
            assert_eq!(got.header("retry-after"), "1");
        }
    }
    server.jobs.switch.set(Mode::Works);
    for _ in 1..MAX_OPEN_JOBS {
        submit(&server, "/v1/admin/audits", "").await;
    }
    let got = post(&server, "/v1/admin/audits", "").await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (503, "unavailable"));
    assert!(
        got.text.contains("priority normal") && got.header("retry-after") == "30",
        "{}",
        got.text
    );
    // The limit is per priority.
    submit(&server, "/v1/admin/audits", r#"{"priority":"critical"}"#).await;
}
