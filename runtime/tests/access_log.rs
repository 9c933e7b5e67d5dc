//! Content of the access log: one line per request, without personal data.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

mod support;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use parking_lot::Mutex;
use runtime::http::HttpConfig;
use serde_json::Value;
use support::Server;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn each_request_is_one_line_with_its_id_and_without_personal_data() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(lines.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let routes = Router::new().route(
        "/people/{person}",
        get(async |Path(person): Path<String>| match person.as_str() {
            "bad-person" => panic!("no"),
            _ => person,
        }),
    );
    let server = Server::start(
        routes,
        HttpConfig { header_timeout: Duration::from_millis(200), ..HttpConfig::default() },
    );
    for (path, status) in [
        ("/people/good-person?secret=hidden", 200),
        ("/people/bad-person", 500),
        ("/unknown-person", 404),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: test\r\nx-request-id: id-{status}\r\nauthorization: Bearer hidden\r\n\r\n"
        );
        assert_eq!(server.send(&request).await.status, status);
    }
    // A head that never completes reaches no route.
    server.send("GET /slow-person HTTP/1.1\r\n").await.problem(408, "request-timeout");

    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    for private in ["-person", "hidden"] {
        assert!(!text.contains(private), "{private} is in\n{text}");
    }
    let access: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["target"] == "access")
        .collect();
    let shown: Vec<(&str, &str, u64)> = access
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap();
            (text("method"), text("route"), line["status"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("GET", "/people/{person}", 200),
            ("GET", "/people/{person}", 500),
            ("GET", "unmatched", 404),
            ("-", "none", 408),
        ]
    );
    assert_eq!(access[0]["id"], "id-200");
    assert_eq!(access[0]["bytes"], 11);
    assert!(access[0]["duration_us"].is_u64());
}
