//! Privacy: a person's id, sent through every route in every way, is in no log, record, row, key or file; and neither
//! is the address or the user agent of a client of whom a signal is kept.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::embedded::Embedded;
use e2e::response::{receipt, send};
use e2e::scenario::scenario;
use e2e::stack::{Stack, StackBuilder};
use e2e::system::System;
use e2e::wait::eventually;
use reqwest::Method;
use serde_json::json;

const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
const PERSON: &str = "zebra.quokka-7731";
/// A client of the gateway, and its user agent.
const ADDRESS: &str = "198.51.100.77";
const AGENT: &str = "okapi-browser/77.3";

/// Submits as a client of the public does, of whom a signal is kept.
async fn submit_through_the_gateway(system: &System) -> Result<()> {
    let (url, system) = (system.write_to(0).to_owned(), system.without_token()?);
    for (method, path) in [(Method::POST, ""), (Method::DELETE, "/otter")] {
        let url = format!("{url}/v1/budgets/taxes/submissions{path}");
        let request = system
            .request(method, url)
            .header("x-forwarded-for", ADDRESS)
            .header("user-agent", AGENT);
        let body = json!({"person": "otter", "allocation": {"health": 100}});
        send(if path.is_empty() { request.json(&body) } else { request }).await?.expect(202)?;
    }
    Ok(())
}

/// Asks for what only administrators may read, without a token and with a wrong one.
async fn pose_as_administrator(system: &System) -> Result<()> {
    let (url, system) = (system.read_from(0).to_owned(), system.without_token()?);
    for token in [None, Some("wrong")] {
        let request = system.request(Method::GET, format!("{url}/v1/admin/limits"));
        let request = request.header("x-forwarded-for", ADDRESS).header("user-agent", AGENT);
        let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        send(request).await?.problem(401, "unauthorized")?;
    }
    Ok(())
}

/// Sends the person's id wherever a request can contain it, in valid and invalid requests.
async fn send_person_everywhere(system: &System) -> Result<()> {
    system.wait_until_known("taxes", Duration::from_secs(10)).await?;
    let route = "/v1/budgets/taxes/submissions";
    let good = json!({"person": PERSON, "allocation": {"health": 100}});
    let counted = receipt(&system.post(route, &good).await?)?;
    system
        .post(
            &format!("{route}/batch"),
            &json!([good, {"person": PERSON, "allocation": {"health": 99}}]),
        )
        .await?
        .expect(200)?;
    let lines = format!("{good}\n{{\"person\": \"{PERSON}\"\n");
    system
        .post_text(&format!("{route}/batch"), "application/x-ndjson", lines)
        .await?
        .expect(200)?;
    for wrong in [
        json!({"person": PERSON, "allocation": {"health": -1}}).to_string(),
        json!({"person": PERSON, PERSON: 1, "allocation": {PERSON: 100}}).to_string(),
        format!("{{\"person\": \"{PERSON}\", \"allocation\": "),
        json!({"person": [PERSON], "allocation": {}}).to_string(),
    ] {
        let answer = system.post_text(route, "application/json", wrong).await?;
        ensure!(matches!(answer.status, 400 | 422), "{}", answer.status);
    }
    for base in [system.read_from(0), system.write_to(0)] {
        for method in [Method::GET, Method::PATCH, Method::DELETE] {
            for path in [
                format!("{route}/{PERSON}"),
                format!("{route}/{PERSON}/more"),
                format!("/{PERSON}?person={PERSON}"),
            ] {
                send(system.request(method.clone(), format!("{base}{path}"))).await?;
            }
        }
    }
    let token = [
        ("consistency-token", &*counted.token),
        ("prefer", "wait=5"),
        ("referer", PERSON),
        ("user-agent", PERSON),
    ];
    system.get_with(&format!("{route}/{PERSON}"), &token).await?;
    Ok(())
}

fn check_absent(location: &str, text: &str) -> Result<()> {
    for (what, secret) in [("person's id", PERSON), ("address", ADDRESS), ("user agent", AGENT)] {
        let line = text.lines().find(|line| line.contains(secret));
        ensure!(line.is_none(), "{location} contains the {what}: {}", line.unwrap_or_default());
    }
    Ok(())
}

#[test]
fn no_log_record_row_or_key_of_the_services_contains_a_person_id() {
    scenario(async || {
        // A busy broker takes its time for the first records of a topic, and a signal that is late is dropped.
        let settings = ["telemetry.filter=debug", "kafka.delivery_timeout_ms=15000"];
        let settings = settings.map(str::to_owned).to_vec();
        let stack = StackBuilder { settings, ..Stack::builder() }.start().await?;
        send_person_everywhere(&stack.system).await?;
        submit_through_the_gateway(&stack.system).await?;
        pose_as_administrator(&stack.system).await?;
        let signals = format!("{}.signals", stack.topic);
        let kept = eventually("both signals are in their topic", WAIT_TIMEOUT, async || {
            let kept = stack.kafka.read(&signals).await?;
            ensure!(kept.len() >= 2, "{} signals", kept.len());
            Ok(kept)
        })
        .await?;
        // Neither the address nor its network, in the bytes of either.
        for record in &kept {
            let bytes = [record.key.as_slice(), &record.value].concat();
            ensure!(!bytes.windows(3).any(|bytes| bytes == [198, 51, 100]), "{record:?}");
            ensure!(!bytes.windows(5).any(|bytes| bytes == b"otter"), "{record:?}");
        }
        e2e::audit::exact(&stack, "taxes", 10).await?;

        for service in stack.ingests.iter().chain(&stack.processors).chain(&stack.apis) {
            let log = service.process.log()?;
            ensure!(log.lines().count() > 5, "{} logs nothing", service.process.name());
            check_absent(service.process.name(), &log)?;
            let metrics =
                send(stack.system.request(Method::GET, format!("{}/metrics", service.url)));
            check_absent("the metrics", &metrics.await?.expect(200)?.text())?;
        }
        let (dead_letters, budgets) =
            (format!("{}.dead-letters", stack.topic), format!("{}_budgets", stack.topic));
        for topic in [&stack.topic, &dead_letters, &budgets, &signals] {
            for record in stack.kafka.read(topic).await? {
                let bytes = [record.key, record.value].concat();
                check_absent(
                    topic,
                    &format!("{} {:?}", String::from_utf8_lossy(&bytes), record.headers),
                )?;
            }
        }
        check_absent("a table", &stack.tables().await?.everything().await?)?;
        check_absent("Redis", &stack.keys().await?.everything().await?)
    });
}

#[test]
fn no_log_or_file_of_the_embedded_default_contains_a_person_id() {
    scenario(async || {
        let embedded = Embedded::start().await?;
        send_person_everywhere(&embedded.system).await?;
        submit_through_the_gateway(&embedded.system).await?;
        let appended = "allocator_ingest_signals_appended_total";
        eventually("both signals are in their file", WAIT_TIMEOUT, async || {
            ensure!(embedded.service.metric(appended).await? >= 2.0, "not yet");
            Ok(())
        })
        .await?;
        check_absent("the log", &embedded.service.process.log()?)?;
        check_dir(&embedded.data)
    });
}

fn check_dir(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("no data in {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            check_dir(&path)?;
        } else {
            check_absent(&path.display().to_string(), &String::from_utf8_lossy(&fs::read(&path)?))?;
        }
    }
    Ok(())
}
