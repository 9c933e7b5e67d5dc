//! Malformed bodies, malformed requests and forged tokens: none is accepted, and the service goes on.
#![allow(clippy::unwrap_used)]

mod forged_tokens;
mod malformed;
mod malformed_http;
mod malformed_json;
#[path = "../support/plain_http.rs"]
mod plain_http;
#[path = "../../../runtime/src/principal/tests/tokens.rs"]
mod provider;
mod routes;
#[path = "../support/running.rs"]
mod running;

use std::path::Path;

use plain_http::Client;
use running::Running;
use rusqlite::{Connection, OpenFlags};

/// Everything that an accepted request would change.
#[derive(Debug, PartialEq, Eq)]
struct State {
    /// Records in the log.
    records: i64,
    /// All definitions, each with its revision.
    budgets: String,
    jobs: String,
    annulments: String,
}

impl State {
    fn read(running: &Running, data: &Path) -> Self {
        let log = Connection::open_with_flags(
            data.join("log.db"),
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .unwrap();
        let records = log.query_row("SELECT count(*) FROM records", [], |row| row.get(0)).unwrap();
        let authorization = routes::authorization(running);
        let mut client = Client::connect(&running.url);
        let mut get = |path: &str| {
            let response = client.get(path, &[("authorization", &authorization)]);
            assert_eq!(response.status, 200, "{path}: {response:?}");
            response.body
        };
        let budgets = get("/v1/budgets");
        let jobs = get("/v1/admin/jobs");
        let annulments = get("/v1/admin/budgets/required/annulments");
        Self { records, budgets, jobs, annulments }
    }
}

/// Settings without the limits that would refuse requests of a test instead of the check under test.
fn without_limits() -> Vec<&'static str> {
    vec![
        "limits.person=off",
        "limits.submissions=off",
        "limits.uploads=off",
        "limits.sign_in=off",
        "admin.requests_per_minute=1000000",
        "admin.failures_per_minute=1000000",
    ]
}
