//! What rate limits and a session cost a submission, against the same without both.
//!
//! The limits are the default ones with quotas that refuse nothing. They apply because each session's requests name an
//! address of its own, as a gateway does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::http::{POST, POST_CONNECTIONS, compare, start_ingest_only};
use super::limits::RATE_LIMITS;
use super::records::BUDGET;
use super::report::{Row, log_progress};
use super::wrk::Requests;
use crate::operator::Operator;
use crate::response::send;
use crate::scenario::new_dir;
use crate::stack::Stack;
use crate::system::System;

/// A budget whose persons have codes, with categories of the default budget.
const CODED: &str = "coded";
const SESSIONS: usize = 10_000;
/// Sessions that are opened at the same time.
const LANES: usize = 16;
const CODES_TIMEOUT: Duration = Duration::from_secs(60);
const SESSION_POST: &str = include_str!("session_post.lua");
const LIMITS: [&str; 3] = [
    "limits.person=person sliding-window 10000000/60s by=items on=submission+batch",
    "limits.submissions=address token-bucket 10000000/60s burst=10000000 by=items on=submission+batch",
    "limits.uploads=address fixed-window 10000000/60s on=batch",
];
const NO_LIMITS: [&str; 4] =
    ["limits.person=off", "limits.submissions=off", "limits.uploads=off", "limits.sign_in=off"];

/// Measures requests with one submission each, with and without limits and sessions.
///
/// # Errors
/// When the figure cannot be measured.
pub async fn measure() -> Result<Vec<Row>> {
    let plain = start_ingest_only(NO_LIMITS.map(str::to_owned).to_vec()).await?;
    let limited = start_ingest_only(LIMITS.map(str::to_owned).to_vec()).await?;
    // Both have the same secret, and so the same codes and sessions.
    let categories = ["health", "education", "defence"].map(|id| json!({"id": id, "name": id}));
    let budget = json!({"name": "Coded", "categories": categories, "identity": "code"});
    for stack in [&plain, &limited] {
        stack.system.define_with(CODED, &budget).await?;
    }
    log_progress(format!("opening {SESSIONS} sessions"));
    let tokens = open_sessions(&limited).await?;
    ensure!(tokens.len() == SESSIONS, "{} sessions", tokens.len());
    check_that_limits_apply(&limited.system, &tokens[0]).await?;
    let file = new_dir("tokens")?.join("tokens");
    std::fs::write(&file, tokens.join("\n"))?;
    let script = format!("tokens = {:?}\n{SESSION_POST}", file.display().to_string());

    let requests = |url, script| Requests { url, connections: POST_CONNECTIONS, script };
    let [neither, session, both] = [(&plain, BUDGET), (&plain, CODED), (&limited, CODED)]
        .map(|(stack, budget)| submissions(stack, budget));
    let neither = requests(&neither, Some(POST));
    let both = compare("requests/s", requests(&both, Some(&script)), neither).await?;
    let session = compare("requests/s", requests(&session, Some(&script)), neither).await?;
    for stack in [&plain, &limited] {
        stack.kafka.delete_topic(&stack.topic).await?;
    }
    let figure = "POST one with rate limits and a session, against neither, 512 connections";
    Ok(vec![
        Row::share(figure, "requests/s", both.0, both.1, RATE_LIMITS),
        Row::info("  with a session alone", format!("{:.1} %", 100.0 * session.0 / session.1)),
    ])
}

fn submissions(stack: &Stack, budget: &str) -> String {
    format!("{}/v1/budgets/{budget}/submissions", stack.ingests[0].url)
}

/// Opens a session for each of the first codes.
async fn open_sessions(stack: &Stack) -> Result<Vec<String>> {
    let count = SESSIONS.to_string();
    let command = ["codes", "--budget", CODED, "--count", &count, "--format", "csv"];
    let printed = Operator::with_allocator(stack)?.run(&command, CODES_TIMEOUT).await?;
    let codes: Arc<Vec<String>> = Arc::new(codes(&printed).map(str::to_owned).collect());
    let url = format!("{}/v1/budgets/{CODED}/session", stack.ingests[0].url);
    // A session belongs to its code, not to the administrator.
    let system = stack.system.without_token()?;
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let (codes, url, system) = (Arc::clone(&codes), url.clone(), system.clone());
        lanes.spawn(async move {
            let mut tokens = Vec::new();
            for code in codes.iter().skip(lane).step_by(LANES) {
                let request = system.request(Method::POST, url.clone());
                let opened = send(request.json(&json!({"code": code}))).await?.expect(200)?;
                let token = opened.json()?["token"].as_str().context("no token")?.to_owned();
                tokens.push(token);
            }
            anyhow::Ok(tokens)
        });
    }
    let mut all = Vec::new();
    while let Some(tokens) = lanes.join_next().await {
        all.extend(tokens??);
    }
    Ok(all)
}

/// The codes in the output of `allocator codes`: lines of a serial number and a code.
fn codes(printed: &str) -> impl Iterator<Item = &str> {
    printed.lines().filter_map(|line| {
        let (serial, code) = line.split_once(',')?;
        serial.parse::<u32>().ok().map(|_| code)
    })
}

/// Checks that a submission in a session is charged to the limits, which this figure would not measure otherwise.
async fn check_that_limits_apply(system: &System, token: &str) -> Result<()> {
    let system = system.without_token()?;
    let url = format!("{}/v1/budgets/{CODED}/submissions", system.write_to(0));
    let body = json!({"allocation": {"health": 60, "education": 40}});
    let request = system.request(Method::POST, url).bearer_auth(token);
    let request = request.header("x-forwarded-for", "10.0.0.1").json(&body);
    let accepted = send(request).await?.expect(202)?;
    let policies = accepted.header("ratelimit-policy");
    ensure!(policies.contains("\"person\"") && policies.contains("\"submissions\""), "{policies}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_lines_with_a_serial_number() {
        let printed = "{\"level\":\"info\",\"a\":1}\nserial,code\n1,0000-1XXX\n2,0000-2XXX\n";
        assert_eq!(codes(printed).collect::<Vec<_>>(), ["0000-1XXX", "0000-2XXX"]);
    }
}
