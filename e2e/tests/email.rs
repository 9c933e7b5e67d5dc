//! Persons by e-mail over several processes: a code is used once, Redis away is no pass, and no address or code is in a
//! log, a metric, a topic, a table or Redis.

#[path = "../../ingest/tests/support/smtp_server.rs"]
mod smtp_server;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::embedded::Embedded;
use e2e::response::{HttpResponse, send};
use e2e::scenario::{new_dir, scenario};
use e2e::stack::{Stack, StackBuilder};
use e2e::system::System;
use e2e::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};
use smtp_server::{Attempt, SmtpServer};

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);
const BUDGET: &str = "region";
const LOCAL_PART: &str = "zebra.quokka7731";
const DENIED: &str = "numbat.bilby4417";

fn address(local_part: &str) -> String {
    format!("{local_part}@example.org")
}

async fn define(system: &System) -> Result<()> {
    let mut definition = e2e::system::definition(2);
    definition["identity"] = json!("email");
    system.define_with(BUDGET, &definition).await
}

/// Sends a request as a person: without an administrator's token.
async fn request(
    system: &System,
    (method, url): (Method, String),
    token: Option<&str>,
    body: &Value,
) -> Result<HttpResponse> {
    let mut request = system.without_token()?.request(method, url).json(body);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    send(request).await
}

async fn session(system: &System, base: &str, body: &Value) -> Result<HttpResponse> {
    let url = format!("{base}/v1/budgets/{BUDGET}/session");
    request(system, (Method::POST, url), None, body).await
}

fn settings(smtp: &SmtpServer) -> Vec<String> {
    vec![
        "telemetry.filter=debug".to_owned(),
        format!("email.smtp_url={}", smtp.url()),
        "email.from=Town <noreply@town.example>".to_owned(),
        "email.denied_domains=*.example.org".to_owned(),
    ]
}

/// Signs in, and submits: with a refused mail, wrong tries and a denied address on the way. Returns what must be in no
/// log: addresses, codes, the session.
async fn sign_in(system: &System, bases: &[&str], smtp: &SmtpServer) -> Result<Vec<String>> {
    let (first, last) = (bases[0], bases[bases.len() - 1]);
    let email = address(LOCAL_PART);
    let denied = format!("{DENIED}@evil.example.org");
    session(system, first, &json!({ "email": denied })).await?.expect(202)?;
    smtp.script([Attempt::RefuseRecipient(550), Attempt::RefuseRecipient(451), Attempt::BreakOff]);
    let ask = json!({ "email": email });
    // The first mail is refused for good, with the address in the server's reply.
    session(system, first, &ask).await?.expect(202)?;
    eventually("the first mail is refused", ATTEMPT_TIMEOUT, async || {
        ensure!(smtp.attempts() > 0, "no attempt");
        Ok(())
    })
    .await?;
    session(system, first, &ask).await?.expect(202)?;
    let code = smtp.nth_mail(1).await.code();
    let wrong = if code == "000000" { "111111" } else { "000000" };
    let enter = |email: &str, otp: &str| json!({"email": email, "otp": otp});
    for (email, otp) in [(&email, wrong), (&denied, "123456")] {
        let answer = session(system, last, &enter(email, otp)).await?;
        answer.problem(401, "unauthorized")?;
    }
    for malformed in [enter(&email, "12"), enter(LOCAL_PART, &code)] {
        session(system, first, &malformed).await?.problem(400, "malformed")?;
    }

    // All processes at once: one of them opens the session.
    let entered = enter(&email, &code);
    let tries = (0..8).map(|index| session(system, bases[index % bases.len()], &entered));
    let mut token = None;
    for answer in futures_util::future::try_join_all(tries).await? {
        if answer.status == 200 {
            ensure!(token.is_none(), "a code opened two sessions");
            token = answer.json()?["token"].as_str().map(str::to_owned);
        } else {
            ensure!(matches!(answer.status, 401 | 429), "{answer:?}");
        }
    }
    let token = token.context("the right code opened no session")?;
    let me = format!("/v1/budgets/{BUDGET}/submissions/me");
    let body = json!({"allocation": {"c0": 100}});
    request(system, (Method::PUT, format!("{last}{me}")), Some(&token), &body)
        .await?
        .expect(202)?;
    let encoded_session = token.split('.').nth(1).context("no payload")?.to_owned();
    // A code of six digits alone may be a part of a number: it is looked for next to its name.
    let codes = [format!("otp\":\"{code}"), format!("otp={code}"), format!("code={code}")];
    Ok([vec![LOCAL_PART.to_owned(), DENIED.to_owned(), encoded_session], codes.to_vec()].concat())
}

fn check_absent(secrets: &[String], location: &str, text: &str) -> Result<()> {
    for secret in secrets {
        ensure!(!text.contains(secret), "{location} contains an address, a code or a session");
    }
    Ok(())
}

#[test]
fn a_code_is_used_once_over_two_processes_and_nothing_stores_or_logs_an_address() {
    scenario(async || {
        let smtp = SmtpServer::start().await;
        let settings = settings(&smtp);
        let builder = StackBuilder { ingests: 2, settings, ..Stack::builder() };
        let mut stack = builder.start().await?;
        define(&stack.system).await?;
        let bases = [stack.ingests[0].url.clone(), stack.ingests[1].url.clone()];
        let secrets = sign_in(&stack.system, &[&bases[0], &bases[1]], &smtp).await?;
        let counted = e2e::audit::exact(&stack, BUDGET, 2).await?;
        ensure!(counted.people == 1, "{counted:?}");

        for service in stack.ingests.iter().chain(&stack.processors).chain(&stack.apis) {
            let log = service.process.log()?;
            ensure!(log.lines().count() > 5, "{} logs nothing", service.name());
            check_absent(&secrets, service.name(), &log)?;
            let metrics =
                send(stack.system.request(Method::GET, format!("{}/metrics", service.url))).await?;
            check_absent(&secrets, "the metrics", &metrics.text())?;
        }
        for topic in [stack.topic.clone(), format!("{}_budgets", stack.topic)] {
            for record in stack.kafka.read(&topic).await? {
                let bytes = [record.key, record.value].concat();
                check_absent(&secrets, &topic, &String::from_utf8_lossy(&bytes))?;
            }
        }
        check_absent(&secrets, "a table", &stack.tables().await?.everything().await?)?;
        check_absent(&secrets, "Redis", &stack.keys().await?.everything().await?)?;

        stack.redis.kill()?;
        let email = address("okapi");
        for body in [json!({ "email": email }), json!({"email": email, "otp": "123456"})] {
            let answer = session(&stack.system, &bases[0], &body).await?;
            answer.problem(503, "unavailable")?;
            ensure!(!answer.header("retry-after").is_empty(), "{answer:?}");
        }
        Ok(())
    });
}

#[test]
fn the_embedded_default_signs_in_by_email_and_stores_no_address() {
    scenario(async || {
        let smtp = SmtpServer::start().await;
        let dir = new_dir("email")?;
        let settings = settings(&smtp);
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let embedded = Embedded::start_with(&dir, dir.join("data"), &settings).await?;
        define(&embedded.system).await?;
        let base = embedded.service.url.clone();
        let secrets = sign_in(&embedded.system, &[&base], &smtp).await?;
        check_absent(&secrets, "the log", &embedded.service.process.log()?)?;
        for entry in std::fs::read_dir(&embedded.data)? {
            let path = entry?.path();
            if path.is_file() {
                let bytes = std::fs::read(&path)?;
                let text = String::from_utf8_lossy(&bytes);
                check_absent(&secrets, &path.display().to_string(), &text)?;
            }
        }
        Ok(())
    });
}
