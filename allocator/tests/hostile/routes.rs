//! Routes that take a body, each with one that it accepts.

use crate::plain_http::Client;
use crate::running::Running;

/// The person's cookie of a browser.
pub const COOKIE: &str = "allocator_person=a-AAAAAAAAAAAAAAAAAAAAAA";
const JSON: &str = "application/json";
/// Where a text stands for a value.
pub const VALUE: &str = "@@";

/// A route that takes a body.
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    /// The path in the API's description; none for forms.
    pub described: Option<&'static str>,
    pub headers: Vec<(&'static str, String)>,
    /// A body that the route accepts.
    pub body: &'static str,
    /// Bodies with [`VALUE`] in the place of a value.
    pub templates: &'static [&'static str],
    /// Whether the route does without a body.
    pub is_body_optional: bool,
}

impl Route {
    pub fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// Whether the path names a dead letter or an annulment, of which the tests have none.
    pub fn names_what_does_not_exist(&self) -> bool {
        self.described.is_some_and(|path| path.contains("{id}"))
    }

    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// Defines the budgets of [`of_persons`], and one for each further identity rule.
pub fn define_budgets(running: &Running, rules: &[&str]) {
    let mut client = Client::connect(&running.url);
    let authorization = authorization(running);
    for rule in rules {
        let definition = format!(
            r#"{{"name":"Town","identity":"{rule}","categories":[{{"id":"a","name":"A"}},{{"id":"b","name":"B"}}]}}"#
        );
        let headers = [("authorization", authorization.as_str()), ("content-type", JSON)];
        let path = format!("/v1/budgets/{rule}");
        let defined = client.request(("PUT", &path), &headers, definition.as_bytes());
        assert_eq!(defined.status, 201, "{defined:?}");
    }
}

/// The administrator's token, as the value of a header.
pub fn authorization(running: &Running) -> String {
    running.authorization().split_once(": ").unwrap().1.to_owned()
}

/// The routes of persons, their forms, and that of definitions.
pub fn of_persons(running: &Running) -> Vec<Route> {
    let json = ("content-type", JSON.to_owned());
    let cookie = ("cookie", COOKIE.to_owned());
    let ours = ("sec-fetch-site", "same-origin".to_owned());
    let form = ("content-type", "application/x-www-form-urlencoded".to_owned());
    let accept = ("accept", JSON.to_owned());
    let administrator = ("authorization", authorization(running));
    vec![
        Route {
            method: "POST",
            path: "/v1/budgets/required/submissions",
            described: Some("/v1/budgets/{budget}/submissions"),
            headers: vec![json.clone()],
            body: r#"{"person":"p-1","allocation":{"a":100}}"#,
            templates: &[
                r#"{"person":"p-1","allocation":{"a":@@}}"#,
                r#"{"person":"p-1","allocation":@@}"#,
                r#"{"person":@@,"allocation":{"a":100}}"#,
                r#"{"person":"p-1","allocation":{"a":100},"submission_id":@@}"#,
                r#"{"person":"p-1","allocation":{"a":100},"unknown":@@}"#,
            ],
            is_body_optional: false,
        },
        Route {
            method: "POST",
            path: "/v1/budgets/required/submissions/batch",
            described: Some("/v1/budgets/{budget}/submissions/batch"),
            headers: vec![json.clone()],
            body: r#"[{"person":"p-1","allocation":{"a":100}}]"#,
            // The item before the fault is valid: it is not accepted either.
            templates: &[
                r#"[{"person":"p-1","allocation":{"a":100}},{"person":"p-2","allocation":{"a":@@}}]"#,
                r#"[{"person":"p-1","allocation":{"a":100}},{"person":@@}]"#,
            ],
            is_body_optional: false,
        },
        Route {
            method: "PUT",
            path: "/v1/budgets/anonymous/submissions/me",
            described: Some("/v1/budgets/{budget}/submissions/me"),
            headers: vec![json.clone(), cookie.clone(), ours.clone()],
            body: r#"{"allocation":{"a":100}}"#,
            templates: &[
                r#"{"allocation":{"a":@@}}"#,
                r#"{"allocation":{"a":100},"submission_id":@@}"#,
            ],
            is_body_optional: false,
        },
        Route {
            method: "POST",
            path: "/v1/budgets/anonymous/session",
            described: Some("/v1/budgets/{budget}/session"),
            headers: vec![json.clone()],
            body: "{}",
            templates: &[r#"{"code":@@}"#],
            is_body_optional: false,
        },
        Route {
            method: "PUT",
            path: "/v1/budgets/defined",
            described: Some("/v1/budgets/{budget}"),
            headers: vec![json, administrator],
            body: r#"{"name":"Town","categories":[{"id":"a","name":"A"},{"id":"b","name":"B"}]}"#,
            templates: &[
                r#"{"name":@@,"categories":[{"id":"a","name":"A"},{"id":"b","name":"B"}]}"#,
                r#"{"name":"Town","categories":[{"id":"a","name":"A"},{"id":"b","name":"B"}],"minimum_people":@@}"#,
                r#"{"name":"Town","categories":[{"id":"a","name":"A"},{"id":"b","name":@@}]}"#,
            ],
            is_body_optional: false,
        },
        Route {
            method: "POST",
            path: "/budgets/anonymous/submit",
            described: None,
            headers: vec![form, accept, cookie, ours],
            body: "c.a=100",
            templates: &[],
            is_body_optional: false,
        },
    ]
}

/// The routes of administrators that submit a job.
pub fn of_jobs(running: &Running) -> Vec<Route> {
    let headers =
        vec![("content-type", JSON.to_owned()), ("authorization", authorization(running))];
    let route = |described, path, is_body_optional, templates| Route {
        method: "POST",
        path,
        described: Some(described),
        headers: headers.clone(),
        body: "{}",
        templates,
        is_body_optional,
    };
    let short: &[&str] = &[r#"{"dry_run":@@}"#, r#"{"priority":@@}"#];
    let admin = "/v1/admin/budgets/required/annulments";
    vec![
        route(
            "/v1/admin/jobs",
            "/v1/admin/jobs",
            false,
            &[r#"{"kind":@@}"#, r#"{"kind":"audit","priority":@@}"#],
        ),
        route("/v1/admin/rebuilds", "/v1/admin/rebuilds", true, short),
        route("/v1/admin/audits", "/v1/admin/audits", true, short),
        route("/v1/admin/caches/warm", "/v1/admin/caches/warm", true, short),
        route("/v1/admin/dead-letters/{id}/drop", "/v1/admin/dead-letters/0.1/drop", true, short),
        route(
            "/v1/admin/dead-letters/{id}/replay",
            "/v1/admin/dead-letters/0.1/replay",
            true,
            short,
        ),
        route(
            "/v1/admin/budgets/{budget}/annulments",
            admin,
            false,
            &[r#"{"reason":@@}"#, r#"{"persons":@@}"#],
        ),
        route(
            "/v1/admin/budgets/{budget}/annulments/{id}/restore",
            "/v1/admin/budgets/required/annulments/0193c9a0-0000-7000-8000-000000000000/restore",
            true,
            short,
        ),
    ]
}
