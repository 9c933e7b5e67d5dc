//! What nginx itself answers: problem documents, as the services do.

use anyhow::{Result, ensure};
use e2e::gateway::Gateway;
use e2e::raw_http::Connection;
use e2e::scenario::scenario;
use serde_json::Value;

/// A gateway without services: none listens on port 9.
async fn gateway() -> Result<Gateway> {
    Gateway::start_for(["9", "9", "9", "9"]).await
}

#[test]
fn every_error_of_nginx_is_a_problem_document_with_an_id_for_pages_too() {
    scenario(async || {
        let gateway = gateway().await?;
        let long = "a".repeat(9_000);
        for (head, status, slug) in [
            ("nonsense", 400, "malformed"),
            ("GET PATH HTTP/1.1", 400, "malformed"),
            ("GET PATH HTTP/1.1\r\nhost: a\r\nhost: b", 400, "malformed"),
            ("GET PATH HTTP/2.0\r\nhost: a", 400, "malformed"),
            ("GET PATH HTTP/3.7\r\nhost: a", 400, "malformed"),
            ("POST PATH HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip", 400, "malformed"),
            ("POST PATH HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked", 400, "malformed"),
            (
                "POST PATH HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nz",
                400,
                "malformed",
            ),
            ("GET /.gateway/400 HTTP/1.1\r\nhost: a", 404, "not-found"),
            ("TRACE PATH HTTP/1.1\r\nhost: a", 405, "method-not-allowed"),
            ("POST PATH HTTP/1.1\r\nhost: a\r\ncontent-length: 9999999", 413, "content-too-large"),
            ("GET PATHLONG HTTP/1.1\r\nhost: a", 414, "uri-too-long"),
            ("GET PATH HTTP/1.1\r\nhost: a\r\nx: LONG", 431, "headers-too-large"),
            ("GET PATH HTTP/1.1\r\nhost: a", 503, "unavailable"),
        ] {
            for path in ["/", "/budgets/taxes", "/budgets/taxes/mine", "/v1/budgets", "/v1/x"] {
                let head = head.replace("PATH", path).replace("LONG", &long);
                let mut connection = Connection::open(&gateway.url).await?;
                let answer = connection.send(&format!("{head}\r\n\r\n")).await?;
                let request: String = head.chars().take(80).collect();
                ensure!(answer.status == status, "{request:?}: {answer:?}");
                let media_type = answer.header("content-type");
                ensure!(media_type == Some("application/problem+json"), "{request:?}: {answer:?}");
                let problem: Value = serde_json::from_str(&answer.body)?;
                let is_complete = problem["type"] == format!("/problems/{slug}")
                    && problem["status"] == status
                    && problem["instance"] == answer.header("x-request-id").unwrap_or("none");
                ensure!(is_complete, "{request:?}: {answer:?}");
            }
        }
        Ok(())
    });
}
