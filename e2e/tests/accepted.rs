//! The embedded default: what it accepts is counted, what has no effect leaves nothing behind, also across restarts.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::embedded::Embedded;
use e2e::operator::{Operator, wait_for_exit};
use e2e::response::{HttpResponse, receipt, send};
use e2e::scenario::scenario;
use reqwest::Method;
use serde_json::{Value, json};

const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

async fn delete(embedded: &Embedded, path: &str) -> Result<HttpResponse> {
    let url = format!("{}{path}", embedded.service.url);
    send(embedded.system.request(Method::DELETE, url)).await
}

async fn audit_is_clean(embedded: &Embedded) -> Result<()> {
    let command = ["audit", "--api", &embedded.service.url];
    let audit = Operator::for_embedded(embedded).start(&command)?;
    let (code, output) = wait_for_exit(audit, COMMAND_TIMEOUT).await?;
    ensure!(code == Some(0), "the audit ended with {code:?}: {output}");
    Ok(())
}

#[test]
fn a_withdrawal_of_nobody_has_no_effect() {
    scenario(async || {
        let embedded = Embedded::start().await?;
        let withdrawn = delete(&embedded, "/v1/budgets/taxes/submissions/nobody").await?;
        let token = receipt(&withdrawn)?.token;
        let wait = [("consistency-token", &*token), ("prefer", "wait=5")];
        let aggregate = embedded.system.get_with("/v1/budgets/taxes/aggregate", &wait).await?;
        ensure!(aggregate.expect(200)?.json()?["people"] == 0);
        let definition = embedded.system.get("/v1/budgets/taxes").await?.expect(200)?.json()?;
        ensure!(definition["frozen"] == false, "{definition}");
        audit_is_clean(&embedded).await?;
        delete(&embedded, "/v1/budgets/taxes").await?.expect(204)?;
        embedded.system.get("/v1/budgets/taxes/aggregate").await?.problem(404, "not-found")?;
        audit_is_clean(&embedded).await
    });
}

#[test]
fn an_audit_finds_what_readers_are_shown_of_results_that_move_in_steps() {
    scenario(async || {
        let embedded = Embedded::start().await?;
        let mut definition = e2e::system::definition(2);
        definition["publish_step"] = 3.into();
        embedded.system.define_with("steps", &definition).await?;
        let mut token = String::new();
        for number in 0..10 {
            let person = format!("p-{number}");
            token = embedded.system.submit("steps", &person, &[2_500, 7_500]).await?.token;
        }
        let wait = [("consistency-token", &*token), ("prefer", "wait=5")];
        let shown = embedded.system.get_with("/v1/budgets/steps/aggregate", &wait).await?;
        let people = shown.expect(200)?.json()?["people"].as_u64();
        ensure!(people.is_some_and(|people| people % 3 == 0 && people < 10), "{people:?}");
        audit_is_clean(&embedded).await
    });
}

const SUBMISSIONS: &str = "/v1/budgets/taxes/submissions";

fn ballot(person: &str, id: u32, health: u32) -> Value {
    let id = format!("00000000-0000-4000-8000-{id:012}");
    let allocation = json!({"health": health, "education": 100 - health});
    json!({"person": person, "submission_id": id, "allocation": allocation})
}

/// Returns the share of health that is counted for a person.
async fn counted(embedded: &Embedded, location: &str) -> Result<f64> {
    let shown = embedded.system.get(location).await?.expect(200)?.json()?;
    Ok(shown["allocation"]["health"].as_f64().unwrap_or_default())
}

#[test]
fn a_submission_id_keeps_its_meaning_over_restarts_and_newer_submissions() {
    scenario(async || {
        let mut embedded = Embedded::start().await?;
        let first = receipt(&embedded.system.post(SUBMISSIONS, &ballot("x", 1, 10)).await?)?;
        let key = ("idempotency-key", "good-bye");
        let withdraw = async |embedded: &Embedded, person: &str| {
            let url = format!("{}{SUBMISSIONS}/{person}", embedded.service.url);
            send(embedded.system.request(Method::DELETE, url).header(key.0, key.1)).await
        };
        let withdrawn = receipt(&withdraw(&embedded, "y").await?)?;
        let mut stranger = None;
        let mut newest = String::new();
        for id in 2..=5 {
            let answer = embedded.system.post(SUBMISSIONS, &ballot("x", id, 10 * id)).await?;
            newest = answer.header("location").to_owned();
        }
        for killed in [false, true] {
            if killed {
                embedded.service.process.kill()?;
            } else {
                embedded.service.terminate(COMMAND_TIMEOUT).await?;
            }
            embedded.service.restart().await?;
            let system = &embedded.system;
            // Another person's id is another one, also if it is the same.
            let of_z = receipt(&system.post(SUBMISSIONS, &ballot("z", 1, 10)).await?)?;
            ensure!(*stranger.get_or_insert(of_z.clone()) == of_z && of_z != first);
            for other in [ballot("x", 1, 90), ballot("z", 1, 90), ballot("x", 3, 10)] {
                system.post(SUBMISSIONS, &other).await?.problem(422, "key-reused")?;
            }
            let keyed = embedded
                .system
                .request(Method::POST, format!("{}{SUBMISSIONS}", embedded.service.url));
            let other = json!({"person": "y", "allocation": {"health": 100}});
            let keyed = keyed.header(key.0, key.1).json(&other);
            send(keyed).await?.problem(422, "key-reused")?;
            let batch = json!([ballot("x", 1, 90), ballot("x", 1, 10)]);
            let batch = system.post(&format!("{SUBMISSIONS}/batch"), &batch).await?;
            let results = batch.expect(200)?.json()?["results"].clone();
            ensure!(results[0]["status"] == 422 && results[1]["status"] == 422, "{results}");

            let again = system.post(SUBMISSIONS, &ballot("x", 1, 10)).await?;
            ensure!(receipt(&again)? == first && again.header("idempotency-replayed") == "true");
            let again = withdraw(&embedded, "y").await?;
            ensure!(
                receipt(&again)? == withdrawn && again.header("idempotency-replayed") == "true"
            );
            ensure!(counted(&embedded, &newest).await? == 50.0, "a retry undid the newest");
        }
        audit_is_clean(&embedded).await
    });
}
