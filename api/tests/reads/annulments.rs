//! Annulments: submission, listing and restoration.

use schemas::job::*;
use schemas::*;
use serde_json::json;
use storage::jobs::{JobStore, submit, update_job};
use uuid::Uuid;

use crate::admin::{ADMIN, VIEWER, problem_slug, send_as, server_with_administrators};
use crate::fakes::Mode;
use crate::test_server::{TestResponse, TestServer};

const ANNULMENTS: &str = "/v1/admin/budgets/taxes/annulments";
const KEY: &str = "00112233445566778899aabbccddeeff";

async fn post(server: &TestServer, path: &str, key: Option<&str>, body: &str) -> TestResponse {
    let authorization = format!("Bearer {ADMIN}");
    let mut headers =
        vec![("authorization", authorization.as_str()), ("content-type", "application/json")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    server.send_body("POST", path, &headers, body).await
}

fn body() -> String {
    format!(r#"{{"persons":["{KEY}"],"reason":"<b>spam</b>","dry_run":true}}"#)
}

fn entry(number: u128, selection: SelectionSummary) -> AnnulmentEntry {
    AnnulmentEntry {
        id: AnnulmentId(Uuid::from_u128(number)),
        by: "anna".into(),
        begun_at_ms: 1_795_212_000_123,
        selection,
        reason: AnnulmentReason::parse("spam").unwrap(),
        state: AnnulmentState::Running,
        people: 0,
        changed: 0,
        parts: 0,
        restored: None,
    }
}

#[tokio::test(start_paused = true)]
async fn an_annulment_is_one_job_however_often_it_is_sent_and_names_no_person() {
    let server = server_with_administrators(&[]);
    let first = post(&server, ANNULMENTS, Some("run-1"), &body()).await;
    assert_eq!(first.status, 202, "{}", first.text);
    let again = post(&server, ANNULMENTS, Some("run-1"), &body()).await;
    assert_eq!((again.status.as_u16(), &again.text), (202, &first.text));
    let job = first.json();
    assert_eq!(
        [&job["kind"], &job["budget"], &job["dry_run"], &job["asked_by"], &job["annulment"]],
        [&json!("annul"), &json!("taxes"), &json!(true), &json!("anna"), &job["id"]]
    );
    assert_eq!(first.header("location"), format!("/v1/admin/jobs/{}", job["id"].as_str().unwrap()));
    assert!(!first.text.contains(KEY) && job.get("effect").is_none());
    let other = body().replace("true", "false");
    let other = post(&server, ANNULMENTS, Some("run-1"), &other).await;
    assert_eq!((other.status.as_u16(), problem_slug(&other).as_str()), (422, "key-reused"));
    let jobs = server.jobs.stored.jobs().await.unwrap();
    let [Job { kind: JobKind::Annul { annulment }, .. }] = &jobs[..] else { panic!("{jobs:?}") };
    assert_eq!(annulment.reason.as_str(), "<b>spam</b>");

    // An ended job has no keys any more.
    update_job(&server.jobs.stored, jobs[0].id, |job| cancel(job, job.changed_at_ms))
        .await
        .unwrap();
    let again = post(&server, ANNULMENTS, Some("run-1"), &body()).await;
    assert_eq!((again.status.as_u16(), &again.json()["state"]), (202, &json!("cancelled")));
    assert_eq!(again.json()["id"], job["id"]);
    let two = body().replace(KEY, &format!(r#"{KEY}","{}"#, "0".repeat(32)));
    let two = post(&server, ANNULMENTS, Some("run-1"), &two).await;
    assert_eq!((two.status.as_u16(), problem_slug(&two).as_str()), (422, "key-reused"));
}

#[tokio::test(start_paused = true)]
async fn a_job_shows_what_it_changes_once_that_is_computed() {
    let server = server_with_administrators(&[]);
    let location = post(&server, ANNULMENTS, None, &body()).await.header("location").to_owned();
    let id: JobId = location.rsplit('/').next().unwrap().parse().unwrap();
    let jobs = &server.jobs.stored;
    let worker = JobName::from("processor-1");
    let running = update_job(jobs, id, |job| claim(job, &worker, job.changed_at_ms)).await.unwrap();
    let effect = AnnulmentEffect {
        selected: 5,
        unknown: 1,
        unchanged: 1,
        without_ballot: 1,
        changed: 2,
        before: ResultsSummary { people: 10, averages: vec![3_305, 6_695] },
        after: ResultsSummary { people: 8, averages: vec![5_000, 5_000] },
    };
    let checkpoint = JobCheckpoint::of(&AnnulmentCheckpoint { effect }).unwrap();
    let attempt = running.running().unwrap().clone();
    let save = |job: &Job| save_checkpoint(job, &attempt, checkpoint.clone(), job.changed_at_ms);
    update_job(jobs, id, save).await.unwrap();
    let got = send_as(&server, "GET", &location, VIEWER).await;
    assert_eq!(
        got.json()["effect"],
        json!({
            "selected": 5, "unknown": 1, "unchanged": 1, "without_ballot": 1, "changed": 2,
            "before": {"people": 10, "average_percent": [33.05, 66.95]},
            "after": {"people": 8, "average_percent": [50, 50]},
        })
    );
}

#[tokio::test(start_paused = true)]
async fn every_fault_is_reported_at_once_and_nothing_is_submitted() {
    let server = server_with_administrators(&[]);
    let got = post(&server, ANNULMENTS, None, r#"{"persons":["x"],"dry_run":1,"why":2}"#).await;
    assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (400, "malformed"));
    let errors = got.json()["errors"].clone();
    let pointers: Vec<&str> =
        errors.as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/why", "/persons/0", "/reason", "/dry_run"]);
    for path in ["/v1/admin/budgets/unknown/annulments", "/v1/admin/budgets/No%20slug/annulments"] {
        let got = post(&server, path, None, &body()).await;
        assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (404, "not-found"));
    }
    assert!(server.jobs.stored.jobs().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_listed_annulment_can_be_restored_and_another_is_not_found() {
    let server = server_with_administrators(&[]);
    let begun = entry(7, SelectionSummary::Persons);
    let path = format!("{ANNULMENTS}/{}/restore", begun.id);
    server.annulments.apply("taxes", &AnnulmentChange::Begin(begun.clone()));
    let first = post(&server, &path, Some("undo"), "").await;
    assert_eq!(first.status, 202, "{}", first.text);
    assert_eq!(first.json()["annulment"], begun.id.to_string());
    assert_eq!(post(&server, &path, Some("undo"), r#"{"dry_run":false}"#).await.text, first.text);
    let wrong = post(&server, &path, None, r#"{"dry_run":"no","reason":"x"}"#).await;
    assert_eq!(wrong.json()["errors"].as_array().unwrap().len(), 2, "{}", wrong.text);
    let kind = |job: Job| job.kind;
    let kinds: Vec<_> = server.jobs.stored.jobs().await.unwrap().into_iter().map(kind).collect();
    let budget = BudgetId::parse("taxes").unwrap();
    assert_eq!(kinds, [JobKind::RestoreAnnulment { budget, annulment: begun.id, dry_run: false }]);
    for unknown in [
        format!("{ANNULMENTS}/{}/restore", Uuid::from_u128(8)),
        format!("{ANNULMENTS}/x/restore"),
        path.replace("taxes", "town"),
    ] {
        let got = post(&server, &unknown, None, "").await;
        assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (404, "not-found"));
    }
}

#[tokio::test(start_paused = true)]
async fn annulments_are_listed_newest_first_while_their_list_can_be_read() {
    let server = server_with_administrators(&[]);
    let list = async || send_as(&server, "GET", ANNULMENTS, VIEWER).await;
    assert_eq!(list().await.json(), json!({"annulments": []}));
    let span = SignalSpan::new(0, 60_000).unwrap();
    let by_network = SelectionSummary::Network { network: NetworkDigest(0xab), span };
    let first = entry(1, SelectionSummary::Persons);
    let id = first.id;
    for change in [
        AnnulmentChange::Begin(first),
        AnnulmentChange::CompletePart { id, part: AnnulmentPart::default(), people: 9, changed: 7 },
        AnnulmentChange::BeginRestoration(id),
        AnnulmentChange::CompleteRestoration(
            id,
            Restoration { by: "otto".into(), at_ms: 1_795_212_000_999, people: 8 },
        ),
        AnnulmentChange::Begin(entry(2, by_network)),
    ] {
        server.annulments.apply("taxes", &change);
    }
    let at = |ms| jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
    assert_eq!(
        list().await.json(),
        json!({"annulments": [
            {
                "id": Uuid::from_u128(2).to_string(), "by": "anna", "begun_at": at(1_795_212_000_123),
                "selection": {
                    "by": "network", "network": "00000000000000ab",
                    "from": "1970-01-01T00:00:00.000Z", "until": "1970-01-01T00:01:00.000Z",
                },
                "reason": "spam", "state": "running", "people": 0, "changed": 0, "restored": null,
                "interrupted": true,
            },
            {
                "id": Uuid::from_u128(1).to_string(), "by": "anna", "begun_at": at(1_795_212_000_123),
                "selection": {"by": "persons"},
                "reason": "spam", "state": "restored", "people": 9, "changed": 7,
                "restored": {"by": "otto", "at": at(1_795_212_000_999), "people": 8},
            },
        ]})
    );
    let begun_by = |number| AnnulmentRequest {
        id: AnnulmentId(Uuid::from_u128(number)),
        budget: BudgetId::parse("taxes").unwrap(),
        selection: AnnulmentSelection::Network { network: NetworkDigest(0xab), span },
        reason: AnnulmentReason::parse("spam").unwrap(),
        dry_run: false,
        part: AnnulmentPart::default(),
    };
    let kind = JobKind::Annul { annulment: Box::new(begun_by(2)) };
    let id = JobId(Uuid::from_u128(3));
    let job = NewJob { id, kind, priority: Priority::High, requested_by: "anna".into() };
    submit(&server.jobs.stored, job, 1).await.unwrap();
    assert_eq!(list().await.json()["annulments"][0].get("interrupted"), None, "a job goes on");
    for mode in [Mode::Fails, Mode::Hangs] {
        server.annulments.switch.set(mode);
        let got = list().await;
        assert_eq!((got.status.as_u16(), problem_slug(&got).as_str()), (503, "unavailable"));
    }
    server.annulments.switch.set(Mode::Works);
    let budget = BudgetId::parse("taxes").unwrap();
    server.annulments.stored.lock().insert(budget, StoredAnnulments::Unreadable);
    assert_eq!(list().await.status, 503);
}
