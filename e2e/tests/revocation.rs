//! Revoked codes: every instance refuses them, also after a restart, and no log, record or key has a code or a session.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::operator::expect_success;
use e2e::process::{Process, binary};
use e2e::response::{HttpResponse, send};
use e2e::scenario::scenario;
use e2e::stack::{Stack, StackBuilder};
use reqwest::Method;
use serde_json::{Value, json};

const BUDGET: &str = "letters";
const ME: &str = "/v1/budgets/letters/submissions/me";
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// The service tells operators one second.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// Runs `allocator codes` for a stack, and returns its output.
async fn codes(stack: &Stack, arguments: &[&str]) -> Result<String> {
    let config = stack.dir().join("codes.toml");
    fs::write(&config, stack.config("allocator", 1))?;
    let config = config.display().to_string();
    let arguments: Vec<String> = ["codes"]
        .iter()
        .chain(arguments)
        .chain(&["--config", &config, "--budget", BUDGET])
        .map(|word| (*word).to_owned())
        .collect();
    let command = Process::start("codes", stack.dir(), &binary("allocator")?, &arguments)?;
    expect_success(command, COMMAND_TIMEOUT).await
}

async fn request(
    stack: &Stack,
    method: Method,
    url: String,
    token: Option<&str>,
    body: Option<&Value>,
) -> Result<HttpResponse> {
    let mut request = stack.system.without_token()?.request(method, url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    send(request).await
}

async fn session(stack: &Stack, ingest: usize, code: &str) -> Result<HttpResponse> {
    let url = format!("{}/v1/budgets/{BUDGET}/session", stack.ingests[ingest].url);
    request(stack, Method::POST, url, None, Some(&json!({ "code": code }))).await
}

/// Requires that every instance refuses a code and its session from `timeout` on.
async fn require_refused(stack: &Stack, code: &str, token: &str, timeout: Duration) -> Result<()> {
    let since = Instant::now();
    // With a valid session this is an invalid allocation, which changes nothing.
    let nothing = json!({"allocation": {}});
    let ingests = stack.ingests.iter().map(|ingest| (Method::PUT, Some(&nothing), &ingest.url));
    let apis = stack.apis.iter().map(|api| (Method::GET, None, &api.url));
    for (method, body, base) in ingests.chain(apis) {
        loop {
            let url = format!("{base}{ME}");
            let answer = request(stack, method.clone(), url, Some(token), body).await?;
            if answer.status == 401 {
                break;
            }
            ensure!(since.elapsed() < timeout, "{base} accepts the session: {answer:?}");
        }
    }
    for ingest in 0..stack.ingests.len() {
        let revoked = session(stack, ingest, code).await?.problem(401, "unauthorized")?;
        let wrong = session(stack, ingest, "0000-0000-0000-0000").await?;
        let wrong = wrong.problem(401, "unauthorized")?;
        ensure!(revoked["detail"] == wrong["detail"], "{revoked} {wrong}");
    }
    Ok(())
}

#[test]
fn every_instance_refuses_a_revoked_code_and_its_session_and_counts_its_answer() {
    scenario(async || {
        let settings = vec!["telemetry.filter=debug".to_owned()];
        let builder = StackBuilder { ingests: 2, apis: 2, settings, ..Stack::builder() };
        let mut stack = builder.start().await?;
        let mut definition = e2e::system::definition(2);
        definition["identity"] = json!("code");
        stack.system.define_with(BUDGET, &definition).await?;
        let printed = codes(&stack, &["--count", "3"]).await?;
        let lines: Vec<&str> = printed.lines().filter(|line| line.contains('-')).collect();
        let code = |index: usize| -> Result<&str> {
            Ok(lines.get(index).and_then(|line| line.split_once(',')).context("no code")?.1)
        };
        let (lost, kept) = (code(0)?, code(1)?);
        let token = |answer: HttpResponse| -> Result<String> {
            Ok(answer.expect(200)?.json()?["token"].as_str().context("no token")?.to_owned())
        };
        let lost_token = token(session(&stack, 0, lost).await?)?;
        let kept_token = token(session(&stack, 1, kept).await?)?;
        for (ingest, token) in [(1, &lost_token), (0, &kept_token)] {
            let url = format!("{}{ME}", stack.ingests[ingest].url);
            let body = json!({"allocation": {"c0": 100}});
            request(&stack, Method::PUT, url, Some(token), Some(&body)).await?.expect(202)?;
        }

        let said = codes(&stack, &["revoke", "--serial", "1,7-9"]).await?;
        ensure!(said.contains("revoked 4 codes; 4 codes of `letters` are revoked"), "{said}");
        require_refused(&stack, lost, &lost_token, KNOWN_WITHIN).await?;
        let said = codes(&stack, &["revoke", "--serial", "1"]).await?;
        ensure!(said.contains("revoked 0 codes; 4 codes of `letters` are revoked"), "{said}");
        token(session(&stack, 0, kept).await?)?;
        let counted = e2e::audit::exact(&stack, BUDGET, 2).await?;
        ensure!(counted.people == 2, "what was submitted does not stay counted: {counted:?}");

        for service in stack.ingests.iter_mut().chain(&mut stack.apis) {
            service.terminate(COMMAND_TIMEOUT).await?;
            service.restart().await?;
        }
        require_refused(&stack, lost, &lost_token, COMMAND_TIMEOUT).await?;
        token(session(&stack, 1, kept).await?)?;

        let secrets = [lost, kept, &lost_token, &kept_token];
        let check = |location: &str, text: &str| {
            let found = secrets.iter().any(|secret| text.contains(secret));
            ensure!(!found, "{location} contains a code or a session");
            Ok(())
        };
        for service in stack.ingests.iter().chain(&stack.processors).chain(&stack.apis) {
            check(service.name(), &service.process.log()?)?;
        }
        for topic in [stack.topic.clone(), format!("{}_budgets", stack.topic)] {
            for record in stack.kafka.read(&topic).await? {
                check(&topic, &String::from_utf8_lossy(&[record.key, record.value].concat()))?;
            }
        }
        check("a table", &stack.tables().await?.everything().await?)?;
        check("Redis", &stack.keys().await?.everything().await?)
    });
}
