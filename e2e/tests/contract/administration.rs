//! Administrators, where no tokens are configured: whoever is on this machine.

use anyhow::{Result, ensure};
use e2e::answer::send;
use e2e::system::{System, definition};
use reqwest::Method;
use serde_json::json;

use crate::{on_both, unique};

on_both!(
    who_is_on_this_machine_is_an_administrator,
    who_comes_from_elsewhere_is_none,
    generations_are_listed_with_the_one_that_answers,
);

async fn who_is_on_this_machine_is_an_administrator(system: &System) -> Result<()> {
    let answer = system.get("/v1/admin/whoami").await?.expect(200)?;
    ensure!(answer.json()? == json!({"name": "local", "role": "admin"}), "{}", answer.text());
    ensure!(answer.header("ratelimit-policy").starts_with("\"admin\";q="), "{answer:?}");
    ensure!(answer.header("cache-control") == "no-store", "{answer:?}");
    Ok(())
}

async fn who_comes_from_elsewhere_is_none(system: &System) -> Result<()> {
    let elsewhere = [("x-forwarded-for", "192.0.2.7")];
    for path in ["/v1/admin/whoami", "/v1/admin/generations"] {
        system.get_with(path, &elsewhere).await?.problem(403, "forbidden")?;
    }
    let budget = unique("elsewhere");
    let url = format!("{}/v1/budgets/{budget}", system.write_to(0));
    let put = system.request(Method::PUT, url).header(elsewhere[0].0, elsewhere[0].1);
    send(put.json(&definition(2))).await?.problem(403, "forbidden")?;
    Ok(())
}

async fn generations_are_listed_with_the_one_that_answers(system: &System) -> Result<()> {
    let list = system.get("/v1/admin/generations").await?.expect(200)?.json()?;
    let aggregate = system.get("/v1/budgets/taxes/aggregate").await?.expect(200)?.json()?;
    let generations = list["generations"].as_array().cloned().unwrap_or_default();
    let current: Vec<_> =
        generations.iter().filter(|generation| generation["state"] == "current").collect();
    ensure!(current.len() == 1, "{list}");
    ensure!(current[0]["generation"] == aggregate["generation"], "{list} {aggregate}");
    ensure!(current[0]["partition_count"].as_u64() > Some(0), "{list}");
    Ok(())
}
