//! The administrators' routes, with a token and without.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::response::{HttpResponse, send};
use e2e::system::{System, definition};
use e2e::wait::eventually;
use reqwest::Method;
use serde_json::json;

use crate::{on_both, unique};

on_both!(
    a_client_with_a_token_is_an_administrator,
    a_client_without_a_token_is_no_administrator_wherever_it_is,
    generations_are_listed_with_the_active_one,
    limits_are_listed_with_the_administrators_remaining_requests,
    an_empty_dead_letter_journal_is_listed_and_unknown_dead_letters_are_404,
    an_export_is_served_to_everybody_once_an_operator_has_published_it,
);

const JOB_TIMEOUT: Duration = Duration::from_secs(60);

async fn a_client_with_a_token_is_an_administrator(system: &System) -> Result<()> {
    let answer = system.get("/v1/admin/whoami").await?.expect(200)?;
    ensure!(answer.json()?["role"] == "admin", "{}", answer.text());
    ensure!(answer.header("ratelimit-policy").starts_with("\"admin\";q="), "{answer:?}");
    ensure!(answer.header("cache-control") == "no-store", "{answer:?}");
    Ok(())
}

async fn a_client_without_a_token_is_no_administrator_wherever_it_is(
    system: &System,
) -> Result<()> {
    let nobody = system.without_token()?;
    let here: &[(&str, &str)] = &[];
    for headers in [here, &[("x-forwarded-for", "192.0.2.7")], &[("x-forwarded-for", "127.0.0.1")]]
    {
        for path in ["/v1/admin/whoami", "/v1/admin/generations"] {
            nobody.get_with(path, headers).await?.problem(401, "unauthorized")?;
        }
    }
    let url = format!("{}/v1/budgets/{}", system.write_to(0), unique("elsewhere"));
    let put = nobody.request(Method::PUT, url).json(&definition(2));
    send(put).await?.problem(401, "unauthorized")?;
    // Others behind the same address cannot lock the administrator out.
    let guessing = nobody.with_token("a-token-that-no-administrator-has")?;
    let mut throttled = false;
    for _ in 0..50 {
        let answer = guessing.get("/v1/admin/whoami").await?;
        ensure!([401, 429].contains(&answer.status), "{answer:?}");
        throttled |= answer.status == 429;
    }
    ensure!(throttled, "guessing is not throttled");
    system.get("/v1/admin/whoami").await?.expect(200)?;
    Ok(())
}

async fn generations_are_listed_with_the_active_one(system: &System) -> Result<()> {
    let list = system.get("/v1/admin/generations").await?.expect(200)?.json()?;
    let aggregate = system.get("/v1/budgets/taxes/aggregate").await?.expect(200)?.json()?;
    let generations = list["generations"].as_array().cloned().unwrap_or_default();
    let active: Vec<_> =
        generations.iter().filter(|generation| generation["state"] == "current").collect();
    ensure!(active.len() == 1, "{list}");
    ensure!(active[0]["generation"] == aggregate["generation"], "{list} {aggregate}");
    ensure!(active[0]["partition_count"].as_u64() > Some(0), "{list}");
    Ok(())
}

async fn limits_are_listed_with_the_administrators_remaining_requests(
    system: &System,
) -> Result<()> {
    let answer = system.get("/v1/admin/limits").await?.expect(200)?;
    let limits = answer.json()?;
    let requests = &limits["requests"];
    let per_minute: u64 = answer.header("x-ratelimit-limit").parse()?;
    ensure!(requests["per_minute"] == per_minute, "{limits}");
    ensure!(requests["administrators"][0]["role"] == "admin", "{limits}");
    ensure!(limits["failures"]["per_minute"].as_u64() > Some(0), "{limits}");
    Ok(())
}

async fn an_empty_dead_letter_journal_is_listed_and_unknown_dead_letters_are_404(
    system: &System,
) -> Result<()> {
    let page = system.get("/v1/admin/dead-letters").await?.expect(200)?.json()?;
    ensure!(page == json!({"dead_letters": [], "next": null}), "{page}");
    system.get("/v1/admin/dead-letters/0.7").await?.problem(404, "not-found")?;
    for action in ["replay", "drop"] {
        let url = format!("{}/v1/admin/dead-letters/0.7/{action}", system.read_from(0));
        send(system.request(Method::POST, url)).await?.problem(404, "not-found")?;
    }
    Ok(())
}

/// Submits a job, waits until it has succeeded, and returns its id.
async fn run_job(system: &System, body: &serde_json::Value, key: &str) -> Result<String> {
    let url = format!("{}/v1/admin/jobs", system.read_from(0));
    let request = system.request(Method::POST, url).header("idempotency-key", key).json(body);
    let job = send(request).await?.expect(202)?.json()?;
    let id = job["id"].as_str().context("no id")?.to_owned();
    eventually("the job has succeeded", JOB_TIMEOUT, async || {
        let job = system.get(&format!("/v1/admin/jobs/{id}")).await?.expect(200)?.json()?;
        ensure!(job["state"] == "succeeded", "{job}");
        Ok(())
    })
    .await?;
    Ok(id)
}

async fn an_export_is_served_to_everybody_once_an_operator_has_published_it(
    system: &System,
) -> Result<()> {
    let budget = unique("exported");
    system.define(&budget, 2).await?;
    for person in 0..3 {
        let body = json!({"person": format!("p-{person}"), "allocation": {"c0": 40, "c1": 60}});
        system.post(&format!("/v1/budgets/{budget}/submissions"), &body).await?.expect(202)?;
    }
    eventually("all people are counted", JOB_TIMEOUT, async || {
        let path = format!("/v1/budgets/{budget}/aggregate");
        let aggregate = system.get(&path).await?.expect(200)?.json()?;
        ensure!(aggregate["people"] == 3, "{aggregate}");
        Ok(())
    })
    .await?;
    let path = format!("/v1/budgets/{budget}/export?format=csv");
    system.get(&path).await?.problem(404, "not-found")?;
    let export =
        |publish| json!({"kind": "export", "budget": budget, "format": "csv", "publish": publish});
    run_job(system, &export(false), &format!("{budget}-kept")).await?;
    system.get(&path).await?.problem(404, "not-found")?;

    let key = format!("{budget}-published");
    let id = run_job(system, &export(true), &key).await?;
    ensure!(run_job(system, &export(true), &key).await? == id, "the same key yielded another job");
    let get_from_each_api = async |headers: &[(&str, &str)]| {
        let mut answers: Vec<HttpResponse> = Vec::new();
        for api in 0..system.reads.len() {
            let url = format!("{}{path}", system.read_from(api));
            let request =
                headers.iter().fold(system.request(Method::GET, url), |it, (name, value)| {
                    it.header(*name, *value)
                });
            answers.push(send(request).await?);
        }
        anyhow::Ok(answers)
    };
    let mut etag = String::new();
    for answer in get_from_each_api(&[]).await? {
        let answer = answer.expect(200)?;
        ensure!(answer.text() == "c0,c1\n40.00,60.00\n40.00,60.00\n40.00,60.00\n", "{answer:?}");
        ensure!(answer.header("allocator-people") == "3", "{answer:?}");
        etag = answer.header("etag").to_owned();
    }
    for answer in get_from_each_api(&[("if-none-match", &etag)]).await? {
        ensure!(answer.status == 304 && answer.body.is_empty(), "{answer:?}");
    }
    Ok(())
}
