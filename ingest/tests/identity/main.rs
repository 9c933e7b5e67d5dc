//! Who may submit, and for whom: anonymous persons, sessions, personal codes, tokens, services.
#![allow(clippy::unwrap_used)]

mod batches;
mod email;
#[path = "../../../runtime/src/principal/tests/tokens.rs"]
mod provider;
mod revocation;
mod service;
#[path = "../support/smtp_server.rs"]
mod smtp_server;
#[path = "../support/mod.rs"]
mod support;

use http::Method;
use identity::{CodeKey, Serial};
use runtime::clock::now_ms;
use schemas::{BudgetId, IdentityRule};
use service::{
    ALLOCATION, ME, OURS, SESSION, SUBMITTER, Service, VIEWER, bearer, code, subject,
    until_keys_are_read,
};
use support::{BATCH, SUBMISSIONS, person_secret};

const ID: &str = "a-AAAAAAAAAAAAAAAAAAAAAA";
const COOKIE: (&str, &str) = ("cookie", "allocator_person=a-AAAAAAAAAAAAAAAAAAAAAA");
const THEIRS: (&str, &str) = ("sec-fetch-site", "cross-site");
const FORM: &str = "c.health=100";

#[tokio::test]
async fn an_anonymous_person_is_one_over_forms_cookies_and_sessions() {
    let service = Service::new(IdentityRule::Anonymous);
    assert_eq!(service.post_form("submit", &[COOKIE], FORM).await.status.as_u16(), 303);
    let own = service.send(Method::PUT, ME, &[COOKIE, OURS], ALLOCATION).await;
    own.accepted();
    assert!(own.header("location").unwrap().starts_with(&format!("{ME}?at_least=")));
    let token = bearer(&service.session(&[COOKIE], "{}").await);
    let authorization = [("authorization", token.as_str())];
    service.send(Method::PUT, ME, &authorization, ALLOCATION).await.accepted();
    service.send(Method::POST, SUBMISSIONS, &authorization, ALLOCATION).await.accepted();
    service.send(Method::DELETE, ME, &authorization, "").await.accepted();
    assert_eq!(service.persons(), vec![subject("anonymous", ID); 5]);
    // A session renews a session.
    let renewed = bearer(&service.session(&authorization, "{}").await);
    let named = format!(r#"{{"person":"{ID}","allocation":{{"health":100}}}}"#);
    service
        .send(Method::POST, SUBMISSIONS, &[("authorization", &renewed)], &named)
        .await
        .accepted();
    assert_eq!(service.persons().last(), Some(&subject("anonymous", ID)));
    // Without anything there is a new person.
    let other = bearer(&service.session(&[], "{}").await);
    service.send(Method::PUT, ME, &[("authorization", &other)], ALLOCATION).await.accepted();
    assert_ne!(service.persons().last(), Some(&subject("anonymous", ID)));
}

#[tokio::test]
async fn a_cookie_does_not_suffice_for_another_sites_page_and_tells_it_nothing() {
    let service = Service::new(IdentityRule::Anonymous);
    for origin in [&[COOKIE][..], &[COOKIE, THEIRS], &[COOKIE, ("origin", "https://evil.example")]]
    {
        for (method, path) in [(Method::PUT, ME), (Method::DELETE, ME), (Method::POST, SUBMISSIONS)]
        {
            service.send(method, path, origin, ALLOCATION).await.problem(403, "forbidden");
        }
    }
    let response = service.send(Method::POST, SESSION, &[COOKIE, THEIRS], "{}").await;
    assert_eq!(response.header("set-cookie"), None);
    let token = bearer(response.json()["token"].as_str().unwrap());
    service.send(Method::PUT, ME, &[("authorization", &token)], ALLOCATION).await.accepted();
    assert_ne!(
        service.persons(),
        [subject("anonymous", ID)],
        "another site's page learned who its reader is"
    );
}

#[tokio::test]
async fn a_conditional_write_of_the_own_submission_is_refused_and_appends_nothing() {
    let service = Service::new(IdentityRule::Anonymous);
    let own = bearer(&service.session(&[], "{}").await);
    let logged = service.harness.log.records.lock().len();
    for method in [Method::PUT, Method::DELETE] {
        for condition in [("if-match", "*"), ("if-none-match", "*")] {
            let headers = [("authorization", own.as_str()), condition];
            let refused = service.send(method.clone(), ME, &headers, ALLOCATION).await;
            refused.problem(412, "precondition-failed");
            let stranger = service.send(method.clone(), ME, &[condition], ALLOCATION).await;
            stranger.problem(401, "unauthorized");
        }
    }
    assert_eq!(service.harness.log.records.lock().len(), logged);
    let headers = [("authorization", own.as_str())];
    service.send(Method::PUT, ME, &headers, ALLOCATION).await.accepted();
}

#[tokio::test]
async fn a_person_acts_for_nobody_else_and_without_credentials_nobody_acts() {
    for rule in [IdentityRule::Anonymous, IdentityRule::Code, IdentityRule::Token] {
        let service = Service::new(rule);
        let named = r#"{"person":"p-1","allocation":{"health":100}}"#;
        let other = format!("{SUBMISSIONS}/p-1");
        let requests = [
            (Method::POST, SUBMISSIONS, named),
            (Method::PUT, ME, named),
            (Method::DELETE, other.as_str(), ""),
            (Method::POST, BATCH, "[]"),
            (Method::DELETE, BATCH, ""),
        ];
        let own = match rule {
            IdentityRule::Anonymous => service.session(&[], "{}").await,
            IdentityRule::Code => {
                service.session(&[], &format!(r#"{{"code":"{}"}}"#, code(1))).await
            }
            _ => until_keys_are_read(&service).await,
        };
        let (own, viewer) = (bearer(&own), bearer(VIEWER));
        let logged = service.harness.log.records.lock().len();
        for (method, path, body) in requests {
            let none = service.send(method.clone(), path, &[], body).await;
            none.problem(401, "unauthorized");
            assert!(none.header("www-authenticate").is_some());
            for token in [&own, &viewer] {
                let headers = [("authorization", token.as_str())];
                service.send(method.clone(), path, &headers, body).await.problem(403, "forbidden");
            }
        }
        assert_eq!(service.harness.log.records.lock().len(), logged, "{rule:?}");
    }
}

#[tokio::test]
async fn a_service_submits_for_the_same_persons() {
    let service = Service::new(IdentityRule::Code);
    let token = bearer(SUBMITTER);
    let headers = [("authorization", token.as_str())];
    let serial = Serial::new(1).unwrap().to_string();
    let named = format!(r#"{{"person":"{serial}","allocation":{{"health":100}}}}"#);
    let response = service.send(Method::POST, SUBMISSIONS, &headers, &named).await;
    response.accepted();
    assert!(response.header("location").unwrap().starts_with(&format!("{SUBMISSIONS}/{serial}?")));
    let batch =
        service.send(Method::POST, BATCH, &headers, &format!("[{named},{ALLOCATION}]")).await;
    let statuses: Vec<u64> = batch.json()["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [202, 400]);
    service.send(Method::DELETE, &format!("{SUBMISSIONS}/{serial}"), &headers, "").await.accepted();
    let own = bearer(&service.session(&[], &format!(r#"{{"code":"{}"}}"#, code(1))).await);
    service.send(Method::PUT, ME, &[("authorization", &own)], ALLOCATION).await.accepted();
    assert_eq!(service.persons(), vec![subject("code", &serial); 4]);
    service.send(Method::PUT, ME, &headers, ALLOCATION).await.problem(403, "forbidden");
}

#[tokio::test]
async fn every_wrong_code_gets_the_same_answer() {
    let service = Service::new(IdentityRule::Code);
    let right = code(1);
    let other_budget = CodeKey::new(&person_secret(), &BudgetId::parse("parks").unwrap());
    let other_budget = other_budget.code(Serial::new(1).unwrap());
    let mut changed = right.clone().into_bytes();
    changed[10] = if changed[10] == b'0' { b'2' } else { b'0' };
    let changed = String::from_utf8(changed).unwrap();
    let mut answers = Vec::new();
    for wrong in
        [&right[1..], "", "x", &"0".repeat(1_000), &other_budget, &changed, "0000-0000-0000-0000"]
    {
        let body = serde_json::json!({ "code": wrong }).to_string();
        let response = service.send(Method::POST, SESSION, &[], &body).await;
        answers.push((response.problem(401, "unauthorized"), response.headers.len()));
        assert_eq!(response.header("set-cookie"), None);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    for malformed in ["", "[]", "{}", r#"{"code":7}"#, r#"{"code":"x","otp":"1"}"#] {
        service.send(Method::POST, SESSION, &[], malformed).await.problem(400, "malformed");
    }
}

#[tokio::test]
async fn a_code_is_entered_once_and_the_form_works_without_a_script() {
    let service = Service::new(IdentityRule::Code);
    let refused = service.post_form("submit", &[], "c.health=100&code=wrong").await;
    let location = refused.header("location").unwrap();
    assert!(
        location.starts_with("/budgets/taxes/confirm?c.health=100&fault=unauthorized"),
        "{location}"
    );
    assert!(!location.contains("wrong"), "the code is in an address");
    let response =
        service.post_form("submit", &[], &format!("c.health=100&code={}", code(1))).await;
    assert!(response.header("location").unwrap().starts_with("/budgets/taxes/mine?receipt="));
    let cookies: Vec<&str> = response
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(cookies.len(), 2);
    assert!(
        cookies.iter().all(|cookie| cookie.contains("; HttpOnly; SameSite=Lax")),
        "{cookies:?}"
    );
    let cookie = cookies[0].split(';').next().unwrap();
    let cookie = [("cookie", cookie)];
    assert_eq!(service.post_form("submit", &cookie, FORM).await.status.as_u16(), 303);
    service.send(Method::PUT, ME, &[cookie[0], OURS], ALLOCATION).await.accepted();
    assert_eq!(service.post_form("withdraw", &cookie, "").await.status.as_u16(), 303);
    let serial = Serial::new(1).unwrap().to_string();
    assert_eq!(service.persons(), vec![subject("code", &serial); 4]);
    let opened = service.post_form("session", &[], &format!("code={}&lang=de", code(2))).await;
    assert_eq!(opened.header("location"), Some("/budgets/taxes/mine?lang=de"));
    assert!(opened.header("set-cookie").is_some());
    let refused = service.post_form("session", &[], "code=wrong").await;
    assert_eq!(refused.header("location"), Some("/budgets/taxes/mine?fault=unauthorized"));
}

#[tokio::test]
async fn the_next_person_at_a_browser_answers_with_a_code_of_their_own() {
    let service = Service::new(IdentityRule::Code);
    let first = service.post_form("submit", &[], &format!("c.health=100&code={}", code(1))).await;
    let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let cookie = [("cookie", &*cookie)];
    // An empty field is as none: the session of the browser answers.
    service.post_form("submit", &cookie, "c.health=100&code=").await;
    service.post_form("submit", &cookie, &format!("c.health=100&code={}", code(2))).await;
    let serial = |number| subject("code", &Serial::new(number).unwrap().to_string());
    assert_eq!(service.persons(), [serial(1), serial(1), serial(2)]);
}

#[tokio::test]
async fn signing_out_clears_the_cookie_of_the_session_and_nothing_else() {
    let service = Service::new(IdentityRule::Code);
    let token = service.session(&[OURS], &format!(r#"{{"code":"{}"}}"#, code(1))).await;
    let cookies = |response: &support::TestResponse| -> Vec<String> {
        let values = response.headers.get_all("set-cookie").iter();
        values.map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let cookie = format!("allocator_session={token}");
    // Also without a session, again, or as a program; and no attempt to sign in is spent.
    for headers in [&[("cookie", &*cookie), OURS][..], &[OURS], &[]].into_iter().cycle().take(12) {
        let client = [("x-forwarded-for", "192.0.2.1")];
        let ended = service.send(Method::DELETE, SESSION, &[headers, &client].concat(), "").await;
        assert_eq!((ended.status.as_u16(), ended.body.len()), (204, 0));
        assert_eq!(ended.header("cache-control"), Some("no-store"));
        let paths = ["/budgets/taxes", "/v1/budgets/taxes"];
        let expected = paths.map(|path| {
            format!("allocator_session=; Path={path}; Max-Age=0; HttpOnly; SameSite=Lax")
        });
        assert_eq!(cookies(&ended), expected);
    }
    let elsewhere = service.send(Method::DELETE, SESSION, &[("cookie", &cookie), THEIRS], "").await;
    assert_eq!((elsewhere.status.as_u16(), cookies(&elsewhere).len()), (204, 0));
    let form = service.post_form("session/end", &[("cookie", &cookie)], "lang=de").await;
    assert_eq!(form.header("location"), Some("/budgets/taxes/mine?lang=de"));
    assert_eq!(cookies(&form).len(), 2);
    let elsewhere = service.post_form("session/end", &[("cookie", &cookie), THEIRS], "").await;
    elsewhere.problem(403, "forbidden");
    // A token that was handed out lasts until it expires.
    let bearer = bearer(&token);
    service.send(Method::PUT, ME, &[("authorization", &bearer)], ALLOCATION).await.accepted();

    let anonymous = Service::new(IdentityRule::Anonymous);
    let ended = anonymous.send(Method::DELETE, SESSION, &[COOKIE, OURS], "").await;
    assert_eq!(ended.status, 204);
    assert!(!cookies(&ended).concat().contains("person"), "the browser stays the person");
    for rule in [IdentityRule::Required, IdentityRule::Optional, IdentityRule::Token] {
        let ended = Service::new(rule).send(Method::DELETE, SESSION, &[OURS], "").await;
        ended.problem(403, "forbidden");
    }
    let unknown = service.send(Method::DELETE, "/v1/budgets/no/session", &[], "").await;
    unknown.problem(404, "not-found");
}

#[tokio::test]
async fn codes_in_forms_are_limited_as_attempts_to_sign_in() {
    let service = Service::new(IdentityRule::Code);
    let client = [("x-forwarded-for", "192.0.2.1"), ("accept", "application/json")];
    let mut statuses = Vec::new();
    for _ in 0..11 {
        let guess = service.post_form("submit", &client, "c.health=100&code=wrong").await;
        statuses.push(guess.status.as_u16());
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[10], 429);
    // A right code is not told from a wrong one while no attempt is left.
    let form = format!("c.health=100&code={}", code(1));
    let right = service.post_form("submit", &client, &form).await;
    assert_eq!((right.status.as_u16(), right.header("set-cookie")), (429, None));
    assert!(service.persons().is_empty());
}

#[tokio::test]
async fn persons_of_one_organisation_share_a_limit_and_others_do_not() {
    let limit = ("limits.extra", "group organisation fixed-window 3/1d on=submission");
    let service = Service::with(IdentityRule::Token, &[limit]);
    until_keys_are_read(&service).await;
    let submit = async |subject: &str, organisation: Option<&str>| {
        let mut claims = provider::claims(now_ms() / 1_000);
        claims["sub"] = subject.into();
        if let Some(organisation) = organisation {
            claims["organisation"] = organisation.into();
        }
        let token = bearer(&provider::signed(&claims));
        // Each from an address of its own.
        let headers = [("authorization", token.as_str()), ("x-forwarded-for", "192.0.2.1")];
        service.send(Method::PUT, ME, &headers, ALLOCATION).await
    };
    for subject in ["s-1", "s-2", "s-1"] {
        let response = submit(subject, Some("school")).await;
        response.accepted();
        assert!(response.header("ratelimit-policy").unwrap().contains("\"group\";q=3;w=86400"));
    }
    for subject in ["s-1", "s-2", "s-3"] {
        let refused = submit(subject, Some("school")).await;
        let detail = refused.problem(429, "rate-limited");
        assert!(detail.contains("`group`"), "{subject}: {detail}");
    }
    submit("s-3", Some("library")).await.accepted();
    for _ in 0..4 {
        let alone = submit("s-4", None).await;
        alone.accepted();
        assert!(!alone.header("ratelimit-policy").unwrap().contains("group"));
    }
    // Nobody is charged for a token that is not the provider's.
    let mut claims = provider::claims(now_ms() / 1_000);
    claims["organisation"] = "library".into();
    claims["iss"] = "https://evil.example".into();
    let forged = bearer(&provider::signed(&claims));
    for _ in 0..4 {
        let headers = [("authorization", forged.as_str()), ("x-forwarded-for", "192.0.2.9")];
        service.send(Method::PUT, ME, &headers, ALLOCATION).await.problem(401, "unauthorized");
    }
    submit("s-3", Some("library")).await.accepted();
}

const CLIENT: (&str, &str) = ("x-forwarded-for", "192.0.2.1");

#[tokio::test]
async fn wrong_tokens_are_limited_by_address_and_lock_no_right_one_out() {
    for rule in [IdentityRule::Anonymous, IdentityRule::Code, IdentityRule::Token] {
        let service = Service::new(rule);
        let right = bearer(&match rule {
            IdentityRule::Anonymous => service.session(&[], "{}").await,
            IdentityRule::Code => {
                service.session(&[], &format!(r#"{{"code":"{}"}}"#, code(1))).await
            }
            _ => until_keys_are_read(&service).await,
        });
        let person = format!("{SUBMISSIONS}/s-1");
        let routes = [
            (Method::PUT, ME, ALLOCATION),
            (Method::DELETE, ME, ""),
            (Method::DELETE, person.as_str(), ""),
            (Method::POST, SUBMISSIONS, ALLOCATION),
            (Method::POST, BATCH, "[]"),
        ];
        let mut statuses = Vec::new();
        for (method, path, body) in routes.iter().cycle().take(15).cloned() {
            let headers = [("authorization", "Bearer wrong"), CLIENT];
            let refused = service.send(method, path, &headers, body).await;
            assert_eq!(refused.header("retry-after").is_some(), refused.status == 429);
            statuses.push(refused.status.as_u16());
        }
        assert_eq!(statuses, [[401; 10].as_slice(), &[429; 5]].concat(), "{rule:?}");
        // The holder of a right token at the same address; and whoever has none is told so.
        let right = [("authorization", right.as_str()), CLIENT];
        service.send(Method::PUT, ME, &right, ALLOCATION).await.accepted();
        service.send(Method::PUT, ME, &[CLIENT], ALLOCATION).await.problem(401, "unauthorized");
        let elsewhere = [("authorization", "Bearer wrong"), ("x-forwarded-for", "192.0.2.2")];
        let refused = service.send(Method::PUT, ME, &elsewhere, ALLOCATION).await;
        refused.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn wrong_codes_and_forged_cookies_are_failures_of_the_same_address() {
    let service = Service::with(IdentityRule::Code, &[("limits.sign_in", "off")]);
    let cookie = ("cookie", "allocator_session=wrong");
    let script = ("accept", "application/json");
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let wrong = service.send(Method::POST, SESSION, &[CLIENT], r#"{"code":"wrong"}"#).await;
        statuses.push(wrong.status.as_u16());
        let forged = service.send(Method::PUT, ME, &[cookie, OURS, CLIENT], ALLOCATION).await;
        statuses.push(forged.status.as_u16());
        let form = service.post_form("withdraw", &[cookie, script, CLIENT], "").await;
        statuses.push(form.status.as_u16());
    }
    assert_eq!(statuses, [[401; 10].as_slice(), &[429; 2]].concat());
    // A right code passes, and so does a session that has merely expired: its holder is asked for the code again.
    let body = format!(r#"{{"code":"{}"}}"#, code(1));
    service.session(&[CLIENT], &body).await;
}

#[tokio::test]
async fn no_forged_token_reaches_the_log_by_any_route() {
    for rule in [IdentityRule::Anonymous, IdentityRule::Code, IdentityRule::Token] {
        let service = Service::new(rule);
        until_keys_are_read(&service).await;
        let logged = service.harness.log.records.lock().len();
        let now_s = now_ms() / 1_000;
        let mut forged = provider::forged(now_s);
        let mut limited = provider::claims(now_s);
        limited["budgets"] = serde_json::json!(["parks", ""]);
        forged.push(("another budget", provider::signed(&limited)));
        let person = format!("{SUBMISSIONS}/s-1");
        for (what, token) in forged {
            let token = bearer(&token);
            // The cookie would be accepted alone: an invalid token is not taken for none.
            let headers = [("authorization", token.as_str()), COOKIE, OURS];
            for (method, path, body) in [
                (Method::POST, SUBMISSIONS, ALLOCATION),
                (Method::PUT, ME, ALLOCATION),
                (Method::DELETE, ME, ""),
                (Method::DELETE, &person, ""),
                (Method::POST, BATCH, "[]"),
            ] {
                let status = service.send(method, path, &headers, body).await.status.as_u16();
                assert!(matches!(status, 401 | 403), "{what} at {path} of {rule:?}: {status}");
            }
        }
        assert_eq!(service.harness.log.records.lock().len(), logged, "{rule:?}");
    }
}

#[tokio::test]
async fn where_the_client_names_persons_me_is_a_name_and_credentials_do_not_count() {
    let service = Service::new(IdentityRule::Required);
    let headers = [("authorization", "Bearer invalid"), COOKIE];
    service.send(Method::POST, SUBMISSIONS, &headers, support::GOOD).await.accepted();
    service.send(Method::DELETE, ME, &headers, "").await.accepted();
    assert_eq!(service.persons(), [support::key("p-1"), support::key("me")]);
    service.send(Method::PUT, ME, &headers, ALLOCATION).await.problem(403, "forbidden");
    service.send(Method::POST, SESSION, &[], "{}").await.problem(403, "forbidden");
    service
        .send(Method::POST, SUBMISSIONS, &[], r#"{"person":"..","allocation":{"health":100}}"#)
        .await
        .problem(400, "malformed");
}
