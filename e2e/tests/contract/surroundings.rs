//! Common to every process: health, metrics, request ids, and pages that explain problem types.

use anyhow::{Result, ensure};
use e2e::response::send;
use e2e::scenario::scenario;
use e2e::system::System;
use reqwest::Method;

use crate::on_both;

on_both!(
    every_process_reports_that_it_is_alive_and_ready,
    every_process_exposes_its_metrics,
    a_problem_contains_its_request_id_and_its_type_is_a_page,
);

async fn every_process_reports_that_it_is_alive_and_ready(system: &System) -> Result<()> {
    for url in system.reads.iter().chain(&system.writes) {
        for route in ["/livez", "/readyz"] {
            send(system.request(Method::GET, format!("{url}{route}")))
                .await?
                .expect(200)?
                .json()?;
        }
    }
    Ok(())
}

async fn every_process_exposes_its_metrics(system: &System) -> Result<()> {
    for url in system.reads.iter().chain(&system.writes) {
        let text =
            send(system.request(Method::GET, format!("{url}/metrics"))).await?.expect(200)?.text();
        ensure!(text.contains("allocator_build_info{"), "no build information at {url}");
        ensure!(text.contains("process_resident_memory_bytes"), "no memory at {url}");
    }
    Ok(())
}

async fn a_problem_contains_its_request_id_and_its_type_is_a_page(system: &System) -> Result<()> {
    let answer =
        system.get_with("/v1/budgets/none-such", &[("x-request-id", "trace-me-7")]).await?;
    let problem = answer.problem(404, "not-found")?;
    let instance = problem["instance"].as_str().unwrap_or_default();
    ensure!(
        instance.contains(answer.header("x-request-id"))
            && !answer.header("x-request-id").is_empty(),
        "{problem}"
    );
    let page = system.get(problem["type"].as_str().unwrap_or_default()).await?.expect(200)?;
    ensure!(page.header("content-type").starts_with("text/html"), "{}", page.text());
    Ok(())
}

#[test]
fn the_processor_reports_health_and_metrics() {
    scenario(async || {
        let stack = crate::servers().await?;
        for processor in &stack.processors {
            for route in ["/livez", "/readyz"] {
                send(stack.system.request(Method::GET, format!("{}{route}", processor.url)))
                    .await?
                    .expect(200)?;
            }
            ensure!(processor.metric("allocator_build_info{").await? == 1.0);
        }
        Ok(())
    });
}
