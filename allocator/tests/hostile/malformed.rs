//! Malformed bodies and malformed requests, to every route that takes a body.

use std::collections::BTreeSet;

use serde_json::Value;
use tempfile::TempDir;

use crate::malformed_http::{self, Malformed};
use crate::plain_http::Client;
use crate::routes::{self, Route, VALUE, define_budgets};
use crate::running::start_with;
use crate::{State, malformed_json, without_limits};

/// Fewest texts that are not JSON.
const MIN_TEXTS: usize = 150;
/// Fewest malformed requests to each route.
const MIN_REQUESTS: usize = 30;
/// Asks the server to close once it has answered everything before it. No route matches.
const LAST: &[u8] = b"GET /no/such/route HTTP/1.1\r\nhost: town\r\nconnection: close\r\n\r\n";

/// Forms that leave open what is submitted.
const MALFORMED_FORMS: &[&[u8]] = &[
    b"",
    b"c.a",
    b"c.a=",
    b"=100",
    b"c.a==100",
    b"c.a=100&c.a=100",
    b"c.a=50&c.a=50",
    b"c.a=100&c.b=50",
    b"c.a=100;c.b=0",
    b"c.a=%",
    b"c.a=%1",
    b"c.a=%zz100",
    b"c.a=%ff100",
    b"c.a=100%00",
    b"c.a=100\x00",
    b"c.a=\xff100",
    b"c.a=1e2",
    b"c.a=0x64",
    b"c.a=--100",
    b"c.a=NaN",
    b"c.a=Infinity",
    b"c.a=1/2",
    b"c.other=100",
    b"c.=100",
    b"c.a=100&submission_id=x",
    b"c.a=100&submission_id=%00",
    b"c.a[]=100",
    b"{\"c.a\":100}",
    b"--boundary\r\ncontent-disposition: form-data; name=\"c.a\"\r\n\r\n100\r\n--boundary--\r\n",
];

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<Value>(text).is_ok()
}

fn filled(template: &str, text: &[u8]) -> Vec<u8> {
    let (before, behind) = template.split_once(VALUE).unwrap();
    [before.as_bytes(), text, behind.as_bytes()].concat()
}

/// Sends each route's own body, which it accepts.
fn assert_well_formed_bodies_are_accepted(client: &mut Client, routes: &[Route]) {
    for route in routes {
        let response =
            client.request((route.method, route.path), &route.headers(), route.body.as_bytes());
        assert!((200..300).contains(&response.status), "{}: {response:?}", route.name());
    }
}

#[test]
fn no_text_that_is_not_json_is_accepted_by_any_route() {
    let texts = malformed_json::texts();
    let surrogates = malformed_json::unpaired_surrogates();
    let distinct: BTreeSet<&Vec<u8>> = texts.iter().collect();
    assert!(texts.len() >= MIN_TEXTS && distinct.len() == texts.len());
    let data = TempDir::new().unwrap();
    let running = start_with(data.path(), &without_limits());
    define_budgets(&running, &["required", "anonymous"]);
    let mut client = Client::connect(&running.url);
    let persons = routes::of_persons(&running);
    assert_well_formed_bodies_are_accepted(&mut client, &persons);
    let before = State::read(&running, data.path());

    let json_routes = persons.iter().filter(|route| route.described.is_some());
    for route in json_routes.chain(&routes::of_jobs(&running)) {
        // In a batch, these refuse their own item alone.
        let items = if route.path.ends_with("/batch") { &[][..] } else { &surrogates[..] };
        for text in texts.iter().chain(items) {
            let whole = (!route.is_body_optional || !text.is_empty()).then(|| text.clone());
            let filled = route.templates.iter().map(|template| filled(template, text));
            for body in whole.into_iter().chain(filled) {
                let what = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
                assert!(!is_json(&body), "this is JSON: {what}");
                let request = (route.method, route.path);
                let response = client.request(request, &route.headers(), &body);
                let is_refused = response.status == 400
                    || (response.status == 404 && route.names_what_does_not_exist());
                assert!(is_refused, "{} took {what:?}: {response:?}", route.name());
            }
        }
        assert_eq!(client.get("/livez", &[]).status, 200, "after {}", route.name());
    }
    assert_eq!(State::read(&running, data.path()), before);
    assert_well_formed_bodies_are_accepted(&mut client, &persons);
}

#[test]
fn no_line_of_a_batch_that_is_not_json_is_accepted() {
    let data = TempDir::new().unwrap();
    let running = start_with(data.path(), &without_limits());
    define_budgets(&running, &["required", "anonymous"]);
    let mut client = Client::connect(&running.url);
    let before = State::read(&running, data.path());
    let headers = [("content-type", "application/x-ndjson")];
    let texts = malformed_json::texts().into_iter().chain(malformed_json::unpaired_surrogates());
    for text in texts {
        for body in [filled(r#"{"person":"p-1","allocation":{"a":@@}}"#, &text), text] {
            let request = ("POST", "/v1/budgets/required/submissions/batch");
            let response = client.request(request, &headers, &body);
            let results: Value = serde_json::from_str(&response.body).unwrap();
            let mut statuses = results["results"].as_array().into_iter().flatten();
            let refused = response.status == 400
                || (response.status == 200 && statuses.all(|item| item["status"] == 400));
            assert!(refused, "{:?}: {response:?}", String::from_utf8_lossy(&body));
        }
    }
    assert_eq!(State::read(&running, data.path()), before);
}

#[test]
fn every_route_with_a_json_body_gets_the_malformed_ones() {
    let data = TempDir::new().unwrap();
    let running = start_with(data.path(), &[]);
    let mut client = Client::connect(&running.url);
    let document: Value = serde_json::from_str(&client.get("/openapi.json", &[]).body).unwrap();
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if operation.get("requestBody").is_some() {
                described.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    let (persons, jobs) = (routes::of_persons(&running), routes::of_jobs(&running));
    let covered: BTreeSet<String> = persons
        .iter()
        .chain(&jobs)
        .filter_map(|route| Some(format!("{} {}", route.method, route.described?)))
        .collect();
    assert_eq!(covered, described);
}

#[test]
fn no_malformed_form_is_accepted() {
    let data = TempDir::new().unwrap();
    let running = start_with(data.path(), &without_limits());
    define_budgets(&running, &["required", "anonymous"]);
    let mut client = Client::connect(&running.url);
    let routes = routes::of_persons(&running);
    let form = routes.iter().find(|route| route.described.is_none()).unwrap();
    let before = State::read(&running, data.path());
    for body in MALFORMED_FORMS {
        let response = client.request((form.method, form.path), &form.headers(), body);
        let what = String::from_utf8_lossy(body);
        assert!((400..500).contains(&response.status), "{what:?}: {response:?}");
    }
    assert_eq!(State::read(&running, data.path()), before);
    assert_well_formed_bodies_are_accepted(&mut client, &routes);
}

/// Sends a malformed request and returns the statuses of all responses, until the server closes.
fn statuses_of(url: &str, malformed: &Malformed) -> Vec<u16> {
    let mut client = Client::connect(url);
    client.send(&malformed.bytes);
    if malformed.is_cut {
        client.finish();
    } else {
        client.send(LAST);
    }
    std::iter::from_fn(|| client.response()).map(|response| response.status).collect()
}

#[test]
fn no_malformed_request_is_accepted_by_any_route() {
    let data = TempDir::new().unwrap();
    let running = start_with(data.path(), &without_limits());
    define_budgets(&running, &["required", "anonymous"]);
    let mut client = Client::connect(&running.url);
    let routes = routes::of_persons(&running);
    assert_well_formed_bodies_are_accepted(&mut client, &routes);
    let before = State::read(&running, data.path());

    for route in &routes {
        let requests = malformed_http::requests(route);
        assert!(requests.len() >= MIN_REQUESTS);
        for malformed in &requests {
            let statuses = statuses_of(&running.url, malformed);
            let all_refused = statuses.iter().all(|status| (400..500).contains(status));
            assert!(all_refused, "{} with {}: {statuses:?}", route.name(), malformed.what);
        }
        // The other connection is as before.
        assert_eq!(client.get("/livez", &[]).status, 200, "after {}", route.name());
    }
    assert_eq!(State::read(&running, data.path()), before);
    assert_well_formed_bodies_are_accepted(&mut client, &routes);
}
