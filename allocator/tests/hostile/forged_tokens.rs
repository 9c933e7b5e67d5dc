//! Forged tokens, at every route that asks who calls.

use std::path::Path;
use std::time::{Duration, Instant};

use runtime::clock::now_ms;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::plain_http::Client;
use crate::routes::{self, COOKIE, define_budgets};
use crate::running::{Running, start_with};
use crate::{State, provider, without_limits};

/// Identity rules under which a person's credentials count. Each is the id of a budget.
const RULES: [&str; 4] = ["anonymous", "code", "email", "token"];
/// Rules under which the client names persons. Batches are protected there too.
const UNPROVEN_RULES: [&str; 2] = ["required", "optional"];
const BATCH: &str = "/v1/budgets/{budget}/submissions/batch";
/// Fewest protected routes in the API's description.
const MIN_ROUTES: usize = 25;
const TIMEOUT: Duration = Duration::from_secs(60);

/// A request to a protected route.
struct Request {
    method: String,
    path: String,
    media_type: &'static str,
    body: &'static str,
}

fn start(data: &Path) -> Running {
    let keys = data.join("keys.json");
    std::fs::write(&keys, provider::key_set()).unwrap();
    let issuer = format!("identity.token_issuer={}", provider::ISSUER);
    let keys = format!("identity.token_keys={}", keys.display());
    // Nothing is sent: no test asks for a code.
    let own = [&*issuer, &*keys, "email.smtp_url=smtp://127.0.0.1:1", "email.from=a@example.org"];
    let running = start_with(data, &[&own[..], &without_limits()].concat());
    define_budgets(&running, &RULES);
    define_budgets(&running, &UNPROVEN_RULES);
    running
}

/// Waits until the provider's keys are read: a token of its own is then accepted.
fn wait_for_keys(client: &mut Client) {
    let token = format!("Bearer {}", provider::signed(&provider::claims(now_ms() / 1_000)));
    let headers = [("authorization", &*token), ("content-type", "application/json")];
    let request = ("PUT", "/v1/budgets/token/submissions/me");
    let started = Instant::now();
    loop {
        let response = client.request(request, &headers, br#"{"allocation":{"a":100}}"#);
        if response.status == 202 {
            return;
        }
        assert!(response.status == 503 && started.elapsed() < TIMEOUT, "{response:?}");
    }
}

/// Whether a described operation asks who calls.
fn is_protected(method: &str, path: &str, operation: &Value) -> bool {
    // Whoever signs out needs no credentials.
    let is_of_person = path.contains("/submissions") || path.ends_with("/session");
    operation.get("security").is_some() || (is_of_person && (method, path) != SIGN_OUT)
}

const SIGN_OUT: (&str, &str) = ("DELETE", "/v1/budgets/{budget}/session");

/// A body with which the request would be accepted, were the token right.
fn body_of(method: &str, path: &str, rule: &str) -> &'static str {
    match (method, path) {
        (_, "/v1/budgets/{budget}/session") => match rule {
            "code" => r#"{"code":"0000-0000-0000-0000"}"#,
            "email" => r#"{"email":"p@example.org","otp":"012345"}"#,
            _ => "{}",
        },
        ("POST", BATCH) => r#"[{"person":"p-1","allocation":{"a":100}}]"#,
        ("POST" | "PUT", path) if path.contains("/submissions") => r#"{"allocation":{"a":100}}"#,
        ("PUT", _) => {
            r#"{"name":"Forged","categories":[{"id":"a","name":"A"},{"id":"b","name":"B"}]}"#
        }
        (_, "/v1/admin/jobs") => r#"{"kind":"audit"}"#,
        ("POST", "/v1/admin/budgets/{budget}/annulments") => {
            r#"{"persons":["00000000000000000000000000000000"],"reason":"forged"}"#
        }
        _ => "",
    }
}

/// Requests to each protected route, for a budget of each rule.
fn requests(client: &mut Client) -> Vec<Request> {
    let document: Value = serde_json::from_str(&client.get("/openapi.json", &[]).body).unwrap();
    let (mut found, mut routes) = (Vec::new(), 0);
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_uppercase();
            if !is_protected(&method, path, operation) {
                continue;
            }
            routes += 1;
            let unproven =
                if (&*method, &**path) == ("POST", BATCH) { &UNPROVEN_RULES[..] } else { &[] };
            for rule in RULES.iter().chain(unproven) {
                let body = body_of(&method, path, rule);
                let path = path.replace("{budget}", rule).replace("{person}", "s-1");
                let path = path.replace("{id}", "0193c9a0-0000-7000-8000-000000000000");
                let media_type = "application/json";
                found.push(Request { method: method.clone(), path, media_type, body });
            }
        }
    }
    assert!(routes >= MIN_ROUTES, "{routes}");
    for rule in RULES {
        for (form, body) in [("submit", "c.a=100"), ("withdraw", "")] {
            found.push(Request {
                method: "POST".to_owned(),
                path: format!("/budgets/{rule}/{form}"),
                media_type: "application/x-www-form-urlencoded",
                body,
            });
        }
    }
    found
}

/// Tokens of the identity provider, each wrong in one way, and tokens that are nearly an administrator's.
fn forged(running: &Running) -> Vec<(&'static str, String)> {
    let now_s = now_ms() / 1_000;
    let mut tokens = provider::forged(now_s);
    let mut limited = provider::claims(now_s);
    limited["budgets"] = json!(["parks", ""]);
    tokens.push(("another budget", provider::signed(&limited)));
    let token = routes::authorization(running).replace("Bearer ", "");
    let shorter = token[..token.len() - 1].to_owned();
    tokens.extend([
        ("a shorter administrator's token", shorter.clone()),
        ("a longer administrator's token", format!("{token}0")),
        ("an administrator's token with another end", {
            let end = if token.ends_with('0') { '1' } else { '0' };
            format!("{shorter}{end}")
        }),
        ("an administrator's token backwards", token.chars().rev().collect()),
        ("an administrator's token twice", format!("{token} {token}")),
        ("an empty token", String::new()),
        ("the name of a role", "admin".to_owned()),
    ]);
    tokens
}

#[test]
fn no_forged_token_is_accepted_by_any_protected_route() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let mut client = Client::connect(&running.url);
    wait_for_keys(&mut client);
    let requests = requests(&mut client);
    let before = State::read(&running, data.path());
    for (what, token) in forged(&running) {
        let authorization = format!("Bearer {token}");
        for Request { method, path, media_type, body } in &requests {
            let headers = [
                ("authorization", authorization.as_str()),
                ("content-type", media_type),
                ("accept", "application/json"),
                // The cookie would be accepted alone: an invalid token is not taken for none.
                ("cookie", COOKIE),
                ("sec-fetch-site", "same-origin"),
            ];
            let response = client.request((method, path), &headers, body.as_bytes());
            assert!(
                matches!(response.status, 401 | 403),
                "{method} {path} took {what}: {response:?}"
            );
        }
    }
    assert_eq!(State::read(&running, data.path()), before);
}

#[test]
fn no_persons_token_is_an_administrators() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let mut client = Client::connect(&running.url);
    wait_for_keys(&mut client);
    let json = [("content-type", "application/json")];
    let opened = client.request(("POST", "/v1/budgets/anonymous/session"), &json, b"{}");
    let session: Value = serde_json::from_str(&opened.body).unwrap();
    let tokens = [
        session["token"].as_str().unwrap().to_owned(),
        provider::signed(&provider::claims(now_ms() / 1_000)),
    ];
    let before = State::read(&running, data.path());
    let is_for_administrators = |request: &&Request| {
        let is_definition = !request.path.trim_start_matches("/v1/budgets/").contains('/');
        request.path.starts_with("/v1/admin/") || is_definition
    };
    let requests = requests(&mut client);
    for Request { method, path, body, .. } in requests.iter().filter(is_for_administrators) {
        for token in &tokens {
            let authorization = format!("Bearer {token}");
            let headers = [("authorization", authorization.as_str()), json[0]];
            let response = client.request((method, path), &headers, body.as_bytes());
            assert!(matches!(response.status, 401 | 403), "{method} {path}: {response:?}");
        }
    }
    assert_eq!(State::read(&running, data.path()), before);
}
