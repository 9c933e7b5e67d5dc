//! The persons of a closed budget are forgotten on real servers: no instance finds them, and every number stays.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::audit;
use e2e::operator::{Operator, wait_for_exit};
use e2e::response::send;
use e2e::scenario::scenario_within;
use e2e::stack::{Stack, StackBuilder};
use e2e::system::System;
use e2e::wait::eventually;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

const BUDGET: &str = "forgotten";
const CATEGORIES: usize = 2;
const PEOPLE: usize = 20;
const FINAL_TIMEOUT: Duration = Duration::from_secs(90);
/// How long an instance may take to notice a change of a definition.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(30);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);

async fn aggregate(system: &System, api: usize) -> Result<Value> {
    let url = format!("{}/v1/budgets/{BUDGET}/aggregate", system.read_from(api));
    send(system.request(Method::GET, url)).await?.expect(200)?.json()
}

async fn read_person(system: &System, api: usize, person: usize) -> Result<u16> {
    let path = format!("/v1/budgets/{BUDGET}/submissions/p-{person}");
    let url = format!("{}{path}", system.read_from(api));
    Ok(send(system.request(Method::GET, url)).await?.status)
}

#[test]
fn no_instance_finds_a_forgotten_person_and_the_numbers_stay_exact() {
    scenario_within(Duration::from_secs(300), async || {
        let builder = StackBuilder { ingests: 2, processors: 2, apis: 2, ..Stack::builder() };
        let stack = builder.start().await?;
        let closes_at = Timestamp::now() + SignedDuration::from_secs(15);
        let mut definition = e2e::system::definition(CATEGORIES);
        definition["closes_at"] = closes_at.to_string().into();
        stack.system.define_with(BUDGET, &definition).await?;
        let system = System::new(
            stack.ingests.iter().map(|it| it.url.clone()).collect(),
            stack.apis.iter().map(|it| it.url.clone()).collect(),
        )?;
        // Each person through both instances: one person, whichever took the submission.
        for number in 0..2 * PEOPLE {
            let person = format!("p-{}", number % PEOPLE);
            stack.system.submit(BUDGET, &person, &[2_500, 7_500]).await?;
        }
        let operator = Operator::for_stack(&stack)?;
        let forget = async || {
            let command = ["forget", "--budget", BUDGET, "--yes"];
            wait_for_exit(operator.start(&command)?, COMMAND_TIMEOUT).await
        };
        let (code, output) = forget().await?;
        ensure!(code == Some(1) && output.contains("not closed"), "{code:?}: {output}");
        for api in [0, 1] {
            eventually("the result is final", FINAL_TIMEOUT, async || {
                let found = aggregate(&system, api).await?;
                ensure!(found["final"] == true && found["people"] == PEOPLE, "{found}");
                Ok(())
            })
            .await?;
            ensure!(read_person(&system, api, 3).await? == 200, "a person is not found");
        }
        let before = audit::exact(&stack, BUDGET, CATEGORIES).await?;

        let (code, output) = forget().await?;
        ensure!(code == Some(0) && output.contains("were forgotten at"), "{code:?}: {output}");
        for api in [0, 1] {
            eventually("the api notices it", FOLLOW_TIMEOUT, async || {
                let status = read_person(&system, api, 3).await?;
                ensure!(status == 410, "{status}");
                Ok(())
            })
            .await?;
            for person in 0..=PEOPLE {
                ensure!(read_person(&system, api, person).await? == 410, "a person is found");
            }
        }
        for ingest in [0, 1] {
            let path = format!("{}/v1/budgets/{BUDGET}", system.write_to(ingest));
            let body =
                json!({"person": "p-3", "allocation": e2e::system::allocation(&[0, 10_000])});
            let submit = system.request(Method::POST, format!("{path}/submissions")).json(&body);
            send(submit).await?.problem(409, "budget-closed")?;
            let reopened = e2e::system::definition(CATEGORIES);
            let reopen = stack.system.request(Method::PUT, path).json(&reopened);
            send(reopen).await?.problem(410, "forgotten")?;
        }
        let repeated = stack.system.read_from(1);
        let url = format!("{repeated}/v1/admin/budgets/{BUDGET}/forget");
        let repeated = send(stack.system.request(Method::POST, url)).await?.expect(200)?.json()?;
        ensure!(repeated["is_erased"] == false, "{repeated}");

        let (code, output) = wait_for_exit(operator.start(&["rebuild"])?, COMMAND_TIMEOUT).await?;
        ensure!(code == Some(0), "{code:?}: {output}");
        let after = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(after.people == before.people, "{} people", after.people);
        for api in [0, 1] {
            ensure!(aggregate(&system, api).await?["people"] == PEOPLE, "people are missing");
            ensure!(read_person(&system, api, 3).await? == 410, "a person is found");
        }
        Ok(())
    });
}
