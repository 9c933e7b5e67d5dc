//! The forms of the pages: the same submissions as under `/v1`, by the person of a cookie.
#![allow(clippy::unwrap_used)]

mod support;

use http::Method;
use jiff::Timestamp;
use support::{Harness, LogMode, TestResponse, key};

const ID: &str = "a-AAAAAAAAAAAAAAAAAAAAAA";
const COOKIE: (&str, &str) = ("cookie", "x=1; allocator_person=a-AAAAAAAAAAAAAAAAAAAAAA");
const OURS: (&str, &str) = ("sec-fetch-site", "same-origin");
const SCRIPT: (&str, &str) = ("accept", "application/json");
const SUBMISSION: &str = "0198c0de-0000-7000-8000-000000000001";
const FORM: &str = "c.health=40&c.education=35,5&c.defence=24.50&c.economic-affairs=&lang=de";

async fn post(
    harness: &Harness,
    route: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> TestResponse {
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let path = format!("/budgets/taxes/{route}");
    harness.send(Method::POST, &path, &[&form[..], headers].concat(), body.to_owned()).await
}

#[track_caller]
fn sees_other(response: &TestResponse, location: &str) {
    assert_eq!((response.status.as_u16(), response.header("location")), (303, Some(location)));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert!(response.body.is_empty());
}

#[tokio::test]
async fn a_form_is_the_same_submission_as_json_and_leads_to_the_own_page() {
    let harness = Harness::new();
    let body = format!("{FORM}&submission_id={SUBMISSION}");
    let response = post(&harness, "submit", &[OURS, COOKIE], &body).await;
    let shares = vec![0, 2_450, 0, 0, 0, 0, 4_000, 0, 3_550, 0];
    assert_eq!(harness.logged(), [(key(ID), shares)]);
    let location = response.header("location").unwrap().to_owned();
    sees_other(&response, &location);
    assert!(location.starts_with("/budgets/taxes/mine?lang=de&receipt="), "{location}");
    // Sent twice, as by a second press: one record and the same receipt.
    sees_other(&post(&harness, "submit", &[OURS, COOKIE], &body).await, &location);
    assert_eq!(harness.logged().len(), 1);
}

#[tokio::test]
async fn a_script_gets_the_answer_of_the_api_without_the_persons_id() {
    let harness = Harness::new();
    let response = post(&harness, "submit", &[OURS, COOKIE, SCRIPT], FORM).await;
    response.accepted();
    assert_eq!(response.header("location"), Some("/budgets/taxes/mine"));
    assert!(!String::from_utf8_lossy(&response.body).contains(ID));
    let response = post(&harness, "withdraw", &[OURS, COOKIE, SCRIPT], "").await;
    response.accepted();
    assert_eq!(response.header("location"), Some("/budgets/taxes/mine"));
    assert_eq!(harness.logged()[1], (key(ID), vec![]));
}

#[tokio::test]
async fn faulty_forms_are_the_problems_of_the_api_or_lead_back_with_what_was_typed() {
    let harness = Harness::new();
    for (body, slug, status, pointers) in [
        (
            "c.health=x&c.defence=101",
            "malformed",
            400,
            &["/allocation/defence", "/allocation/health"][..],
        ),
        (
            "c.health=100.5&c.defence=0.001",
            "invalid-allocation",
            422,
            &["/allocation/defence", "/allocation/health"],
        ),
        ("c.health=90", "invalid-allocation", 422, &["/allocation"]),
        ("c.health=90&c.defence=10.01", "invalid-allocation", 422, &["/allocation"]),
        ("c.health=100&c.unicorns=1", "invalid-allocation", 422, &["/allocation/unicorns"]),
        ("c.health=100&c.health=100", "invalid-allocation", 422, &["/allocation/health"]),
        ("c.health=100&submission_id=x", "malformed", 400, &["/submission_id"]),
    ] {
        let response = post(&harness, "submit", &[OURS, COOKIE, SCRIPT], body).await;
        response.problem(status, slug);
        assert_eq!(response.pointers(), pointers, "{body}");
    }
    let response =
        post(&harness, "submit", &[OURS, COOKIE], "c.health=%3Cb%3E&c.unicorns=1&lang=pl").await;
    sees_other(&response, "/budgets/taxes?c.health=%3Cb%3E&lang=pl&do=check");
    assert_eq!(harness.logged(), []);
    assert_eq!(harness.definitions.get("taxes").map(|budget| budget.frozen), Some(false));
}

#[tokio::test]
async fn posts_of_other_sites_are_refused() {
    let harness = Harness::new();
    for route in ["submit", "withdraw", "person"] {
        for headers in [
            &[("sec-fetch-site", "cross-site"), COOKIE][..],
            &[("sec-fetch-site", "same-site"), COOKIE],
            &[("origin", "https://elsewhere"), ("host", "here"), COOKIE],
            &[COOKIE],
        ] {
            let response = post(&harness, route, headers, FORM).await;
            response.problem(403, "forbidden");
            assert_eq!(response.header("set-cookie"), None);
        }
    }
    assert_eq!(harness.logged(), []);
    let own = [("origin", "http://here:8000"), ("host", "here:8000"), COOKIE, SCRIPT];
    post(&harness, "submit", &own, FORM).await.accepted();
    let json = [OURS, COOKIE, ("content-type", "application/json")];
    post(&harness, "submit", &json, "{}").await.problem(415, "unsupported-media-type");
}

#[tokio::test]
async fn a_browser_becomes_one_person_and_stays_it() {
    let harness = Harness::new();
    let response = post(&harness, "person", &[OURS], "").await;
    assert_eq!(
        (response.status.as_u16(), response.header("cache-control")),
        (204, Some("no-store"))
    );
    let cookie = response.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("allocator_person=a-") && cookie.ends_with("; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    let pairs = |response: &TestResponse| -> Vec<String> {
        let cookies = response.headers.get_all("set-cookie").iter();
        let pair = |cookie: &http::HeaderValue| {
            cookie.to_str().unwrap().split(';').next().unwrap().to_owned()
        };
        cookies.map(pair).collect()
    };
    let given = pairs(&response);
    assert_eq!(given.len(), 2);
    let both = given.join("; ");
    let again = post(&harness, "person", &[OURS, ("cookie", &both)], "").await;
    assert_eq!((again.status.as_u16(), again.header("set-cookie")), (204, None));
    // As an earlier release has set it: the id stays, and gets its hash.
    let earlier = post(&harness, "person", &[OURS, ("cookie", &given[0])], "").await;
    assert_eq!((earlier.status.as_u16(), pairs(&earlier)), (204, given));
    assert_ne!(post(&harness, "person", &[OURS], "").await.header("set-cookie"), Some(cookie));
    let https = [OURS, ("origin", "https://here"), ("host", "here")];
    assert!(
        post(&harness, "person", &https, "")
            .await
            .header("set-cookie")
            .unwrap()
            .ends_with("; Secure")
    );
    let unknown = harness.send(Method::POST, "/budgets/nope/person", &[OURS], "").await;
    unknown.problem(404, "not-found");
}

#[tokio::test]
async fn without_a_cookie_nothing_is_accepted_and_the_reason_is_said() {
    let harness = Harness::new();
    let detail = post(&harness, "submit", &[OURS, SCRIPT], FORM).await.problem(403, "forbidden");
    assert!(detail.contains("cookies are blocked"), "{detail}");
    let response = post(&harness, "submit", &[OURS], "c.health=100&lang=en").await;
    sees_other(&response, "/budgets/taxes/confirm?c.health=100&lang=en&fault=forbidden");
    let response =
        post(&harness, "withdraw", &[OURS, ("cookie", "allocator_person=short")], "").await;
    sees_other(&response, "/budgets/taxes/mine?fault=forbidden");
    assert_eq!(harness.logged(), []);
}

#[tokio::test]
async fn a_refused_form_leads_back_with_the_same_submission_id() {
    let harness = Harness::new();
    let body = format!("c.health=100&lang=en&submission_id={SUBMISSION}");
    let confirm = |fault: &str| {
        format!(
            "/budgets/taxes/confirm?c.health=100&lang=en&fault={fault}&submission_id={SUBMISSION}"
        )
    };
    for mode in [LogMode::Unavailable, LogMode::RejectsAppends, LogMode::OutcomeUnknown] {
        harness.log.set_mode(mode);
        sees_other(
            &post(&harness, "submit", &[OURS, COOKIE], &body).await,
            &confirm("unavailable"),
        );
    }
    harness.log.set_mode(LogMode::Accepts);
    let response = post(&harness, "submit", &[OURS, COOKIE], &body).await;
    assert!(response.header("location").unwrap().starts_with("/budgets/taxes/mine?"));
    harness.edit_budget(|budget| budget.closes_at = Some(Timestamp::UNIX_EPOCH));
    sees_other(&post(&harness, "submit", &[OURS, COOKIE], &body).await, &confirm("budget-closed"));
    post(&harness, "submit", &[OURS, COOKIE, SCRIPT], &body).await.problem(409, "budget-closed");
    let unknown = harness
        .send(
            Method::POST,
            "/budgets/nope/submit",
            &[OURS, COOKIE, ("content-type", "application/x-www-form-urlencoded")],
            "c.x=1",
        )
        .await;
    sees_other(&unknown, "/budgets/nope");
}

#[tokio::test(start_paused = true)]
async fn a_form_of_a_new_person_of_a_full_budget_goes_back_to_the_page_that_says_so() {
    let harness = Harness::new();
    harness.edit_budget(|budget| (budget.max_people, budget.frozen) = (Some(5), true));
    harness.people.write_row("p-1", &[]).await;
    harness.people.publish(5).await;
    let response = post(&harness, "submit", &[OURS, COOKIE], "c.health=100&lang=en").await;
    sees_other(&response, "/budgets/taxes/confirm?c.health=100&lang=en&fault=budget-full");
    harness.people.write_row(ID, &[]).await;
    post(&harness, "submit", &[OURS, COOKIE, SCRIPT], FORM).await.accepted();
}

#[tokio::test]
async fn a_withdrawal_is_counted_once_and_leads_to_the_own_page() {
    let harness = Harness::new();
    let body = format!("submission_id={SUBMISSION}&lang=fr");
    let first = post(&harness, "withdraw", &[OURS, COOKIE], &body).await;
    let location = first.header("location").unwrap();
    assert!(location.starts_with("/budgets/taxes/mine?lang=fr&withdrawn="), "{location}");
    sees_other(&post(&harness, "withdraw", &[OURS, COOKIE], &body).await, location);
    assert_eq!(harness.logged(), [(key(ID), vec![])]);
    assert!(!harness.definitions.get("taxes").unwrap().frozen, "a withdrawal freezes nothing");
    post(&harness, "withdraw", &[OURS, COOKIE, SCRIPT], "submission_id=x")
        .await
        .problem(400, "malformed");
}

#[tokio::test]
async fn a_huge_form_leads_back_to_a_short_address() {
    let harness = Harness::new();
    let mut body = String::from("c.health=");
    body.push_str(&"9".repeat(100_000));
    (0..5_000).for_each(|index| body.push_str(&format!("&c.x{index}=1")));
    let response = post(&harness, "submit", &[OURS, COOKIE], &body).await;
    assert_eq!(response.status, 303);
    assert!(response.header("location").unwrap().len() < 300);
}
