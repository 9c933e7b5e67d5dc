//! SIGTERM: a process completes running requests, releases its partitions, and exits with 0 within a time limit.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::embedded::Embedded;
use e2e::load::Crowd;
use e2e::process::Signal;
use e2e::scenario::scenario;
use e2e::service::Service;
use e2e::stack::{Stack, StackBuilder};
use e2e::wait::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Draining may take the configured ten seconds; releasing partitions takes additional time.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// Sends half a request, sends SIGTERM, and then sends the rest; returns the answer.
async fn complete_request_during_shutdown(
    service: &mut Service,
    head: &str,
    body: &str,
) -> Result<String> {
    let address = service.url.trim_start_matches("http://").to_owned();
    let mut connection = TcpStream::connect(&address).await?;
    let (begun, rest) = body.split_at(body.len() / 2);
    let head = format!(
        "{head} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\ncontent-type: application/json\r\n\r\n{begun}",
        body.len()
    );
    connection.write_all(head.as_bytes()).await?;
    // The server has read the request's head once it has answered a later request.
    e2e::http_client::get(format!("{}/livez", service.url)).await?;
    service.process.signal(Signal::Term)?;
    eventually("new connections are refused", Duration::from_secs(30), async || {
        ensure!(TcpStream::connect(&address).await.is_err(), "it still listens");
        Ok(())
    })
    .await?;
    connection.write_all(rest.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    let status = service.process.exit(SHUTDOWN_TIMEOUT).await?;
    ensure!(status.success(), "{} ended with {status}", service.process.name());
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

const SUBMIT: &str = "POST /v1/budgets/taxes/submissions";
const BODY: &str = r#"{"person": "the-last-one", "allocation": {"health": 100}}"#;

#[test]
fn an_ingest_completes_a_running_request_during_shutdown() {
    scenario(async || {
        let mut stack = Stack::builder().start().await?;
        stack.system.wait_until_known("taxes", Duration::from_secs(10)).await?;
        let answer = complete_request_during_shutdown(&mut stack.ingests[0], SUBMIT, BODY).await?;
        ensure!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        let totals = e2e::audit::exact(&stack, "taxes", 10).await?;
        ensure!(totals.people == 1, "{} people", totals.people);
        Ok(())
    });
}

#[test]
fn the_embedded_default_completes_a_running_request_during_shutdown_and_keeps_it() {
    scenario(async || {
        let mut embedded = Embedded::start().await?;
        let answer = complete_request_during_shutdown(&mut embedded.service, SUBMIT, BODY).await?;
        ensure!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        embedded.service.restart().await?;
        eventually("the submission is counted", Duration::from_secs(30), async || {
            let people = embedded.system.totals(0, "taxes").await?.people;
            ensure!(people == 1, "{people} people");
            Ok(())
        })
        .await
    });
}

#[test]
fn every_service_shuts_down_cleanly_under_load_and_a_processors_partitions_move_at_once() {
    scenario(async || {
        // A takeover that waited for the session timeout would exceed the limit below.
        let builder = StackBuilder {
            ingests: 2,
            processors: 2,
            apis: 2,
            session_timeout_ms: 45_000,
            ..Stack::builder()
        };
        let mut stack = builder.start().await?;
        stack.system.define("ending", 10).await?;
        stack.wait_until_owned(|owned| owned.iter().all(|owned| *owned > 0)).await?;
        let load = Crowd::new("ending", 10).start(&stack.system);
        load.wait_for_acknowledgements(200).await?;

        let mut processor = stack.processors.remove(0);
        let terminated_at = Instant::now();
        processor.terminate(SHUTDOWN_TIMEOUT).await?;
        stack.wait_until_all_owned().await?;
        ensure!(
            terminated_at.elapsed() < SHUTDOWN_TIMEOUT,
            "the partitions moved after {:?}",
            terminated_at.elapsed()
        );
        load.wait_for_acknowledgements(100).await?;
        stack.ingests[1].terminate(SHUTDOWN_TIMEOUT).await?;
        let mut api = stack.apis.pop().context("no second API")?;
        api.terminate(SHUTDOWN_TIMEOUT).await?;
        stack.system.reads.pop();
        load.wait_for_acknowledgements(100).await?;

        let ledger = load.stop().await?;
        ledger.verify_counted(&stack, "ending", 10).await
    });
}

#[test]
fn an_api_answers_waiting_reads_during_shutdown() {
    scenario(async || {
        let mut stack = Stack::builder().start().await?;
        let api = &mut stack.apis[0];
        let aggregate = format!("{}/aggregate/", api.url);
        eventually("the API has an answer", Duration::from_secs(60), async || {
            e2e::http_client::get(&aggregate).await?.error_for_status().context("no answer yet")
        })
        .await?;
        let address = api.url.trim_start_matches("http://").to_owned();
        let mut connection = TcpStream::connect(&address).await?;
        let wait = format!(
            "GET /aggregate/ HTTP/1.1\r\nhost: {address}\r\nconsistency-token: 0.1000000\r\nprefer: wait=3\r\n\r\n"
        );
        connection.write_all(wait.as_bytes()).await?;
        e2e::http_client::get(format!("{}/livez", api.url)).await?;
        api.process.signal(Signal::Term)?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 412"), "the waiting read got: {answer}");
        let status = api.process.exit(SHUTDOWN_TIMEOUT).await?;
        ensure!(status.success(), "the API ended with {status}");
        Ok(())
    });
}
