//! A cap on the people of a budget.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::response::{HttpResponse, send};
use e2e::system::{System, allocation, definition};
use e2e::wait::eventually;
use reqwest::Method;
use serde_json::json;

use crate::{on_both, unique};

on_both!(a_full_budget_refuses_new_people_until_its_cap_is_raised);

const CAP: u64 = 5;
const TIMEOUT: Duration = Duration::from_secs(60);

async fn put_cap(system: &System, budget: &str, max_people: u64) -> Result<()> {
    let mut wanted = definition(2);
    wanted["max_people"] = max_people.into();
    let url = format!("{}/v1/budgets/{budget}", system.write_to(0));
    send(system.request(Method::PUT, url).json(&wanted)).await?.expect(200)?;
    Ok(())
}

async fn post(system: &System, budget: &str, person: &str) -> Result<HttpResponse> {
    let body = json!({"person": person, "allocation": allocation(&[2_500, 7_500])});
    system.post(&format!("/v1/budgets/{budget}/submissions"), &body).await
}

async fn a_full_budget_refuses_new_people_until_its_cap_is_raised(system: &System) -> Result<()> {
    let budget = unique("full");
    let mut wanted = definition(2);
    wanted["max_people"] = CAP.into();
    system.define_with(&budget, &wanted).await?;
    for number in 0..CAP {
        system.submit(&budget, &format!("p-{number}"), &[2_500, 7_500]).await?;
    }
    // Until the number is known, and the store is open, others are accepted or told to come again.
    let (mut tried, mut accepted) = (0, CAP);
    eventually("new people are refused", TIMEOUT, async || {
        tried += 1;
        let response = post(system, &budget, &format!("new-{tried}")).await?;
        accepted += u64::from(response.status == 202);
        response.problem(409, "budget-full")
    })
    .await?;
    eventually("everyone who was accepted is counted", TIMEOUT, async || {
        let path = format!("/v1/budgets/{budget}/aggregate");
        let found = system.get(&path).await?.expect(200)?.json()?;
        ensure!(found["people"] == accepted, "{accepted} people were accepted: {found}");
        Ok(())
    })
    .await?;

    // The rows of people are written after the commit that counts them.
    eventually("who is counted can change", TIMEOUT, async || {
        post(system, &budget, "p-0").await?.expect(202)
    })
    .await?;
    let item = |person: &str| json!({"person": person, "allocation": allocation(&[5_000, 5_000])});
    eventually("of a batch, who is counted can change", TIMEOUT, async || {
        let path = format!("/v1/budgets/{budget}/submissions/batch");
        let batch = json!([item("stranger"), item("p-1")]);
        let results = system.post(&path, &batch).await?.expect(200)?.json()?;
        let status = |index: usize| results["results"][index]["status"].clone();
        ensure!((status(0), status(1)) == (json!(409), json!(202)), "{results}");
        Ok(())
    })
    .await?;
    let withdraw = format!("{}/v1/budgets/{budget}/submissions/p-2", system.write_to(0));
    send(system.request(Method::DELETE, withdraw)).await?.expect(202)?;

    put_cap(system, &budget, accepted + 1).await?;
    eventually("a raised cap lets new people in", TIMEOUT, async || {
        post(system, &budget, "stranger").await?.expect(202)
    })
    .await?;
    Ok(())
}
