//! Signals of submissions from end to end: under the client that the proxy names, over several ingests, shown by HTTP
//! and by the command; and submissions while the log of signals takes nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::embedded::Embedded;
use e2e::operator::{Operator, wait_for_exit};
use e2e::response::{HttpResponse, send};
use e2e::scenario::{new_dir, scenario};
use e2e::stack::{Stack, StackBuilder};
use e2e::system::System;
use e2e::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(60);
const SIGNALS: &str = "/v1/admin/budgets/taxes/signals?hours=2";

/// Submits as the gateway does for a client without credentials.
async fn submit(system: &System, ingest: usize, person: &str, chain: &str) -> Result<HttpResponse> {
    let url = format!("{}/v1/budgets/taxes/submissions", system.write_to(ingest));
    let body = json!({"person": person, "allocation": {"health": 40, "education": 60}});
    let request = system.without_token()?.request(Method::POST, url);
    send(request.header("x-forwarded-for", chain).header("user-agent", "script/1").json(&body))
        .await
}

/// Waits until the signals of so many people are shown, and returns the summary.
async fn shown(system: &System, people: u64) -> Result<Value> {
    eventually(&format!("signals of {people} people are shown"), TIMEOUT, async || {
        let got = system.get(SIGNALS).await?.expect(200)?;
        let summary: Value = got.json()?;
        ensure!(summary["people"] == people, "{summary}");
        Ok(summary)
    })
    .await
}

/// Thirty people of one network, each with another forged address, and three of other networks.
async fn submit_as_a_crowd(system: &System, ingests: usize) -> Result<()> {
    system.wait_until_known("taxes", TIMEOUT).await?;
    for number in 0..30 {
        let chain = format!("203.0.{number}.9, 198.51.100.{number}");
        submit(system, number % ingests, &format!("crowd-{number}"), &chain).await?.expect(202)?;
    }
    for number in 0..3 {
        let (person, address) = (format!("other-{number}"), format!("192.0.{number}.1"));
        submit(system, number % ingests, &person, &address).await?.expect(202)?;
    }
    // A program submits for others: no signal.
    let by_a_program = json!({"person": "otto", "allocation": {"health": 100}});
    system.post("/v1/budgets/taxes/submissions", &by_a_program).await?.expect(202)?;
    Ok(())
}

fn check_crowd(summary: &Value) -> Result<()> {
    let network = &summary["networks"][0];
    // A run over midnight (UTC) has two digests of the network.
    let days = summary["networks"].as_array().context("no networks")?;
    if days.iter().all(|other| other["day"] == network["day"]) {
        ensure!(network["people"] == 30 && network["agents"] == 1, "{summary}");
        ensure!(days.len() == 1, "{summary}");
    }
    ensure!(summary["ballots"][0]["people"] == 33, "{summary}");
    let levels = json!([{"level": "unproven", "people": 33, "submissions": 33}]);
    ensure!(summary["levels"] == levels, "{summary}");
    Ok(())
}

#[test]
fn two_ingests_show_one_network_under_its_true_addresses_by_http_and_by_command() {
    scenario(async || {
        // A busy broker takes its time for the first records of a topic, and a signal that is late is dropped.
        let settings = vec!["kafka.delivery_timeout_ms=15000".to_owned()];
        let stack = StackBuilder { ingests: 2, settings, ..Stack::builder() }.start().await?;
        submit_as_a_crowd(&stack.system, 2).await?;
        let summary = shown(&stack.system, 33).await?;
        check_crowd(&summary)?;
        let denied = stack.system.without_token()?.get(SIGNALS).await?;
        ensure!(denied.status == 401, "{denied:?}");
        stack.system.get("/v1/admin/budgets/nowhere/signals").await?.expect(404)?;

        let operator = Operator::for_stack(&stack)?;
        let printed = operator
            .run(&["signals", "--budget", "taxes", "--hours", "2", "--json"], TIMEOUT)
            .await?;
        let start = printed.find('{').context("no JSON")?;
        let printed: Value = serde_json::from_str(&printed[start..])?;
        ensure!(printed["networks"] == summary["networks"], "{printed}");
        let unknown = operator.start(&["signals", "--budget", "nowhere"])?;
        let (code, output) = wait_for_exit(unknown, TIMEOUT).await?;
        ensure!(code == Some(2) && output.contains("there is no budget `nowhere`"), "{output}");
        Ok(())
    });
}

#[test]
fn the_embedded_default_shows_signals_by_http_and_by_command() {
    scenario(async || {
        let embedded = Embedded::start().await?;
        submit_as_a_crowd(&embedded.system, 1).await?;
        check_crowd(&shown(&embedded.system, 33).await?)?;
        let operator = Operator::for_embedded(&embedded);
        let text = operator.run(&["signals", "--budget", "taxes"], TIMEOUT).await?;
        let last = text.lines().last().context("no output")?;
        ensure!(
            last.starts_with("SIGNALS budget=taxes ") && last.contains(" people=33 "),
            "{text}"
        );

        let dir = new_dir("without")?;
        let off = ["signals.enabled=false"];
        let without = Embedded::start_with(&dir, dir.join("data"), &off).await?;
        submit_as_a_crowd(&without.system, 1).await?;
        shown(&without.system, 0).await?;
        ensure!(!without.data.join("signals.db").exists(), "signals are kept");
        Ok(())
    });
}

#[test]
fn a_topic_of_signals_that_takes_nothing_changes_no_answer_and_no_total() {
    scenario(async || {
        let stack = Stack::builder().start().await?;
        let system = &stack.system;
        system.wait_until_known("taxes", TIMEOUT).await?;
        let answer = submit(system, 0, "first", "192.0.2.1").await?.expect(202)?;
        shown(system, 1).await?;
        let topic = format!("{}.signals", stack.topic);
        stack.kafka.set_max_message_bytes(&topic, "1").await?;
        let dropped = "allocator_ingest_signals_dropped_total{reason=\"unavailable\"}";
        let mut number = 0;
        eventually("signals are dropped", TIMEOUT, async || {
            number += 1;
            let person = format!("p-{number}");
            let got = submit(system, 0, &person, "192.0.2.1").await?.expect(202)?;
            ensure!(got.header("content-type") == answer.header("content-type"), "{got:?}");
            ensure!(stack.ingests[0].metric(dropped).await? > 0.0, "none is dropped yet");
            Ok(())
        })
        .await?;
        e2e::audit::exact(&stack, "taxes", 10).await?;
        // What there is can be read still, and signals continue by themselves.
        system.get(SIGNALS).await?.expect(200)?;
        stack.kafka.set_max_message_bytes(&topic, "1000000").await?;
        let appended = "allocator_ingest_signals_appended_total";
        let before = stack.ingests[0].metric(appended).await?;
        let mut number = 0;
        eventually("signals are appended again", TIMEOUT, async || {
            number += 1;
            submit(system, 0, &format!("q-{number}"), "192.0.2.1").await?.expect(202)?;
            ensure!(stack.ingests[0].metric(appended).await? > before, "none is appended yet");
            Ok(())
        })
        .await
    });
}
