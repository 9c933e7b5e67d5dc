//! Accepted submissions and the totals that result from them.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::load::uuid;
use e2e::oracle::Totals;
use e2e::record::mix_128;
use e2e::response::{RecordAddress, receipt, receipt_from_body, send};
use e2e::system::System;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{on_both, unique};

on_both!(
    a_submission_is_answered_with_its_receipt,
    percentages_become_basis_points_exactly,
    a_persons_newest_submission_wins_and_a_withdrawal_removes_it,
    a_withdrawn_person_can_submit_again,
    a_repeated_submission_id_is_the_same_submission,
    an_idempotency_key_may_be_any_text_and_works_for_withdrawals,
    a_submission_id_with_different_content_is_refused_and_is_free_for_another_person,
    a_location_shows_the_submission_at_once_and_says_what_became_of_it,
    a_batch_answers_each_item_in_order_and_an_invalid_item_affects_no_other,
    an_ndjson_batch_is_read_like_an_array,
    without_identity_each_submission_is_a_separate_person,
);

const VISIBLE_TIMEOUT: Duration = Duration::from_secs(30);

fn path(budget: &str) -> String {
    format!("/v1/budgets/{budget}/submissions")
}

async fn a_submission_is_answered_with_its_receipt(system: &System) -> Result<()> {
    let budget = unique("receipt");
    system.define(&budget, 3).await?;
    let body = json!({"person": "anna b/c", "allocation": {"c0": 40, "c1": 35.5, "c2": 24.5}});
    let answer = system.post(&path(&budget), &body).await?;
    let receipt = receipt(&answer)?;
    let accepted = answer.json()?;
    ensure!(accepted["status"] == "accepted" && accepted["budget"] == *budget, "{accepted}");
    ensure!(accepted["submission_id"].as_str().is_some_and(|id| id.len() == 36), "{accepted}");
    ensure!(answer.header("consistency-token") == receipt.token);
    let person = answer.header("location").to_owned();
    ensure!(
        person
            == format!("/v1/budgets/{budget}/submissions/anna%20b%2Fc?at_least={}", receipt.token),
        "Location: {person}"
    );

    let wait = [("consistency-token", &*receipt.token), ("prefer", "wait=10")];
    let counted = system.get_with(&person, &wait).await?.expect(200)?.json()?;
    ensure!(
        counted["allocation"] == json!({"c0": 40, "c1": 35.5, "c2": 24.5})
            || floats(&counted["allocation"]) == [40.0, 35.5, 24.5],
        "{counted}"
    );
    Ok(())
}

fn floats(allocation: &Value) -> Vec<f64> {
    allocation.as_object().into_iter().flatten().filter_map(|(_, share)| share.as_f64()).collect()
}

async fn percentages_become_basis_points_exactly(system: &System) -> Result<()> {
    let budget = unique("exact");
    system.define(&budget, 3).await?;
    // Literal text: a JSON library would rewrite the numbers.
    let allocations = [
        (r#"{"c0": 33.33, "c1": 33.33, "c2": 33.34}"#, [3_333, 3_333, 3_334]),
        (r#"{"c0": 1e2}"#, [10_000, 0, 0]),
        (r#"{"c1": 0.07e1, "c2": 99.30, "c0": 0.00}"#, [0, 70, 9_930]),
        (r#"{"c0": 29.29, "c1": 1.15, "c2": 69.56}"#, [2_929, 115, 6_956]),
        (r#"{"c0": 10000e-2, "c1": -0}"#, [10_000, 0, 0]),
    ];
    for (number, (allocation, _)) in allocations.iter().enumerate() {
        let body = format!(r#"{{"person": "p-{number}", "allocation": {allocation}}}"#);
        receipt(&system.post_text(&path(&budget), "application/json", body).await?)?;
    }
    let counted: Vec<Vec<u32>> = allocations.iter().map(|(_, shares)| shares.to_vec()).collect();
    system.wait_until_shown(&budget, &Totals::from_allocations(3, &counted), VISIBLE_TIMEOUT).await
}

async fn a_persons_newest_submission_wins_and_a_withdrawal_removes_it(
    system: &System,
) -> Result<()> {
    let budget = unique("newest");
    system.define(&budget, 2).await?;
    system.submit(&budget, "a", &[10_000, 0]).await?;
    system.submit(&budget, "b", &[5_000, 5_000]).await?;
    system.submit(&budget, "a", &[1, 9_999]).await?;
    let (a, b) = (vec![1, 9_999], vec![5_000, 5_000]);
    system
        .wait_until_shown(&budget, &Totals::from_allocations(2, [&a, &b]), VISIBLE_TIMEOUT)
        .await?;

    let url = format!("{}{}/a", system.write_to(0), path(&budget));
    let withdrawn = receipt(&send(system.request(Method::DELETE, url)).await?)?;
    system.wait_until_shown(&budget, &Totals::from_allocations(2, [&b]), VISIBLE_TIMEOUT).await?;
    let wait = [("consistency-token", &*withdrawn.token), ("prefer", "wait=10")];
    system.get_with(&format!("{}/a", path(&budget)), &wait).await?.problem(404, "not-found")?;
    Ok(())
}

async fn a_withdrawn_person_can_submit_again(system: &System) -> Result<()> {
    let budget = unique("back");
    system.define(&budget, 2).await?;
    let url = format!("{}{}/a", system.write_to(0), path(&budget));
    // Also the withdrawal of a person who never submitted.
    receipt(&send(system.request(Method::DELETE, url.clone())).await?)?;
    system.submit(&budget, "a", &[3_000, 7_000]).await?;
    receipt(&send(system.request(Method::DELETE, url)).await?)?;
    system.submit(&budget, "a", &[7_000, 3_000]).await?;
    system
        .wait_until_shown(
            &budget,
            &Totals::from_allocations(2, [&vec![7_000, 3_000]]),
            VISIBLE_TIMEOUT,
        )
        .await
}

async fn a_repeated_submission_id_is_the_same_submission(system: &System) -> Result<()> {
    let budget = unique("same-id");
    system.define(&budget, 2).await?;
    let id = uuid(mix_128(1));
    let body = json!({"person": "a", "submission_id": id, "allocation": {"c0": 100}});
    let first = receipt(&system.post(&path(&budget), &body).await?)?;
    system.submit(&budget, "a", &[0, 10_000]).await?;
    // Later, through another ingest, and with different JSON text.
    let same_in_other_text = format!(
        r#"{{"allocation":{{"c1":0,"c0":1e2}},"submission_id":"{}","person":"a"}}"#,
        id.to_uppercase()
    );
    let url = format!("{}{}", system.write_to(1), path(&budget));
    let request = system
        .request(Method::POST, url)
        .header("content-type", "application/json")
        .body(same_in_other_text);
    let again = receipt(&send(request).await?)?;
    ensure!(again == first, "first {first:?}, again {again:?}");
    system.verify_counts_only(&budget, 2, &[vec![0, 10_000]]).await
}

async fn an_idempotency_key_may_be_any_text_and_works_for_withdrawals(
    system: &System,
) -> Result<()> {
    let budget = unique("any-key");
    system.define(&budget, 2).await?;
    let keyed = async |method: Method,
                       path: String,
                       key: &str,
                       body: Option<Value>|
           -> Result<RecordAddress> {
        let request = system
            .request(method, format!("{}{path}", system.write_to(0)))
            .header("idempotency-key", key);
        receipt(
            &send(match body {
                Some(body) => request.json(&body),
                None => request,
            })
            .await?,
        )
    };
    let body = json!({"person": "a", "allocation": {"c0": 100}});
    let first = keyed(Method::POST, path(&budget), "form-7/a", Some(body.clone())).await?;
    ensure!(keyed(Method::POST, path(&budget), "form-7/a", Some(body)).await? == first);
    let withdrawal = keyed(Method::DELETE, format!("{}/a", path(&budget)), "gone", None).await?;
    ensure!(
        keyed(Method::DELETE, format!("{}/a", path(&budget)), "gone", None).await? == withdrawal
    );
    ensure!(withdrawal != first);
    system.wait_until_shown(&budget, &Totals::from_allocations(2, []), VISIBLE_TIMEOUT).await
}

async fn a_submission_id_with_different_content_is_refused_and_is_free_for_another_person(
    system: &System,
) -> Result<()> {
    let budget = unique("reused");
    system.define(&budget, 2).await?;
    let id = uuid(mix_128(2));
    let submission = |person: &str, share: u32| json!({"person": person, "submission_id": id, "allocation": {"c0": share, "c1": 100 - share}});
    receipt(&system.post(&path(&budget), &submission("a", 30)).await?)?;
    system.post(&path(&budget), &submission("a", 31)).await?.problem(422, "key-reused")?;
    let of_another = system.post(&path(&budget), &submission("b", 40)).await?;
    receipt(&of_another)?;
    ensure!(of_another.json()?["submission_id"] == *id, "{}", of_another.text());
    system.post(&path(&budget), &submission("b", 41)).await?.problem(422, "key-reused")?;
    system.verify_counts_only(&budget, 2, &[vec![3_000, 7_000], vec![4_000, 6_000]]).await
}

async fn a_location_shows_the_submission_at_once_and_says_what_became_of_it(
    system: &System,
) -> Result<()> {
    let budget = unique("location");
    system.define(&budget, 2).await?;
    let mut first = None;
    for share in [10, 20, 30, 40] {
        let body = json!({"person": "a", "allocation": {"c0": share, "c1": 100 - share}});
        let answer = system.post(&path(&budget), &body).await?;
        receipt(&answer)?;
        let location = answer.header("location").to_owned();
        let shown = system.get(&location).await?.expect(200)?.json()?;
        ensure!(floats(&shown["allocation"])[0] == f64::from(share), "{share}: {shown}");
        ensure!(shown["submission"] == "counted", "{shown}");
        first.get_or_insert(location);
    }
    let shown = system.get(&first.unwrap_or_default()).await?.expect(200)?.json()?;
    ensure!(shown["submission"] == "superseded", "{shown}");
    let url = format!("{}{}/a", system.write_to(0), path(&budget));
    let withdrawn = send(system.request(Method::DELETE, url)).await?;
    system.get(withdrawn.header("location")).await?.problem(404, "not-found")?;
    Ok(())
}

async fn a_batch_answers_each_item_in_order_and_an_invalid_item_affects_no_other(
    system: &System,
) -> Result<()> {
    let budget = unique("batch");
    system.define(&budget, 2).await?;
    let items = json!([
        {"person": "a", "allocation": {"c0": 100}},
        {"person": "b", "allocation": {"c0": 99}},
        17,
        {"person": "c", "allocation": {"c1": 100}},
        {"person": "a", "allocation": {"c0": 50, "c1": 50}},
    ]);
    let answer =
        system.post(&format!("{}/batch", path(&budget)), &items).await?.expect(200)?.json()?;
    let results = answer["results"].as_array().cloned().unwrap_or_default();
    let statuses: Vec<_> =
        results.iter().map(|result| result["status"].as_u64().unwrap_or_default()).collect();
    ensure!(statuses == [202, 422, 400, 202, 202], "{statuses:?}");
    e2e::response::check_problem(&results[1]["problem"], 422, "invalid-allocation")?;
    e2e::response::check_problem(&results[2]["problem"], 400, "malformed")?;
    let (first, last) = (receipt_from_body(&results[0])?, receipt_from_body(&results[4])?);
    ensure!(
        first.partition == last.partition && first.offset < last.offset,
        "one person's order is kept"
    );
    let counted = [vec![5_000, 5_000], vec![0, 10_000]];
    system.wait_until_shown(&budget, &Totals::from_allocations(2, &counted), VISIBLE_TIMEOUT).await
}

async fn an_ndjson_batch_is_read_like_an_array(system: &System) -> Result<()> {
    let budget = unique("lines");
    system.define(&budget, 2).await?;
    let lines = "{\"person\":\"a\",\"allocation\":{\"c0\":100}}\r\n\nnot json\n{\"person\":\"b\",\"allocation\":{\"c1\":100}}";
    let batch = format!("{}/batch", path(&budget));
    let answer =
        system.post_text(&batch, "application/x-ndjson", lines).await?.expect(200)?.json()?;
    let statuses: Vec<_> = answer["results"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|result| result["status"].clone())
        .collect();
    ensure!(statuses == [202, 400, 202], "{answer}");

    let thousand: Vec<Value> = (0..1_000)
        .map(|person| json!({"person": format!("t-{person}"), "allocation": {"c0": 100}}))
        .collect();
    let answer = system.post(&batch, &json!(thousand)).await?.expect(200)?.json()?;
    let all = answer["results"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|result| result["status"] == 202)
        .count();
    ensure!(all == 1_000, "{all} of 1,000 were accepted");
    let counted: Vec<Vec<u32>> = (0..1_002)
        .map(|person| if person == 0 { vec![0, 10_000] } else { vec![10_000, 0] })
        .collect();
    system.wait_until_shown(&budget, &Totals::from_allocations(2, &counted), VISIBLE_TIMEOUT).await
}

async fn without_identity_each_submission_is_a_separate_person(system: &System) -> Result<()> {
    let budget = unique("anonymous");
    let mut definition = e2e::system::definition(2);
    definition["identity"] = json!("optional");
    system.define_with(&budget, &definition).await?;
    for share in [10, 20] {
        let body = json!({"allocation": {"c0": share, "c1": 100 - share}});
        let answer = system.post(&path(&budget), &body).await?;
        receipt(&answer)?;
        ensure!(
            answer.header("location").starts_with(&path(&budget)),
            "Location: {}",
            answer.header("location")
        );
    }
    let counted = [vec![1_000, 9_000], vec![2_000, 8_000]];
    system.wait_until_shown(&budget, &Totals::from_allocations(2, &counted), VISIBLE_TIMEOUT).await
}
