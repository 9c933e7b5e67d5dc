//! What is accepted, and what it comes to.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::answer::{Receipt, receipt, receipt_in, send};
use e2e::load::uuid;
use e2e::oracle::Totals;
use e2e::record::mix_128;
use e2e::system::System;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{on_both, unique};

on_both!(
    a_submission_is_answered_with_where_it_stands,
    percentages_become_basis_points_exactly,
    a_persons_newest_submission_wins_and_a_withdrawal_takes_it_out,
    a_withdrawn_person_can_come_back,
    the_same_submission_id_again_is_the_same_submission,
    an_idempotency_key_works_for_any_text_and_for_withdrawals,
    one_name_for_two_different_things_is_refused,
    a_batch_answers_for_each_item_in_order_and_one_bad_item_spoils_no_other,
    a_batch_of_lines_is_read_like_an_array,
    without_identity_each_submission_is_a_person_of_its_own,
);

const VISIBLE: Duration = Duration::from_secs(5);

fn path(budget: &str) -> String {
    format!("/v1/budgets/{budget}/submissions")
}

async fn a_submission_is_answered_with_where_it_stands(system: &System) -> Result<()> {
    let budget = unique("receipt");
    system.define(&budget, 3).await?;
    let body = json!({"person": "anna b/c", "allocation": {"c0": 40, "c1": 35.5, "c2": 24.5}});
    let answer = system.post(&path(&budget), &body).await?;
    let stands = receipt(&answer)?;
    let said = answer.json()?;
    ensure!(said["status"] == "accepted" && said["budget"] == *budget, "{said}");
    ensure!(said["submission_id"].as_str().is_some_and(|id| id.len() == 36), "{said}");
    ensure!(answer.header("consistency-token") == stands.token);
    let person = answer.header("location").to_owned();
    ensure!(
        person == format!("/v1/budgets/{budget}/submissions/anna%20b%2Fc"),
        "Location: {person}"
    );

    let wait = [("consistency-token", &*stands.token), ("prefer", "wait=5")];
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
    // As written, because a JSON library would write them its own way.
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
    system.shows(&budget, &Totals::of(3, &counted), VISIBLE).await
}

async fn a_persons_newest_submission_wins_and_a_withdrawal_takes_it_out(
    system: &System,
) -> Result<()> {
    let budget = unique("newest");
    system.define(&budget, 2).await?;
    system.submit(&budget, "a", &[10_000, 0]).await?;
    system.submit(&budget, "b", &[5_000, 5_000]).await?;
    system.submit(&budget, "a", &[1, 9_999]).await?;
    let (a, b) = (vec![1, 9_999], vec![5_000, 5_000]);
    system.shows(&budget, &Totals::of(2, [&a, &b]), VISIBLE).await?;

    let url = format!("{}{}/a", system.write_to(0), path(&budget));
    let withdrawn = receipt(&send(system.request(Method::DELETE, url)).await?)?;
    system.shows(&budget, &Totals::of(2, [&b]), VISIBLE).await?;
    let wait = [("consistency-token", &*withdrawn.token), ("prefer", "wait=5")];
    system.get_with(&format!("{}/a", path(&budget)), &wait).await?.problem(404, "not-found")?;
    Ok(())
}

async fn a_withdrawn_person_can_come_back(system: &System) -> Result<()> {
    let budget = unique("back");
    system.define(&budget, 2).await?;
    let url = format!("{}{}/a", system.write_to(0), path(&budget));
    // Of somebody who never said anything, too.
    receipt(&send(system.request(Method::DELETE, url.clone())).await?)?;
    system.submit(&budget, "a", &[3_000, 7_000]).await?;
    receipt(&send(system.request(Method::DELETE, url)).await?)?;
    system.submit(&budget, "a", &[7_000, 3_000]).await?;
    system.shows(&budget, &Totals::of(2, [&vec![7_000, 3_000]]), VISIBLE).await
}

async fn the_same_submission_id_again_is_the_same_submission(system: &System) -> Result<()> {
    let budget = unique("same-id");
    system.define(&budget, 2).await?;
    let id = uuid(mix_128(1));
    let body = json!({"person": "a", "submission_id": id, "allocation": {"c0": 100}});
    let first = receipt(&system.post(&path(&budget), &body).await?)?;
    system.submit(&budget, "a", &[0, 10_000]).await?;
    // Late, from another door, and in other words.
    let other_words = format!(
        r#"{{"allocation":{{"c1":0,"c0":1e2}},"submission_id":"{}","person":"a"}}"#,
        id.to_uppercase()
    );
    let url = format!("{}{}", system.write_to(1), path(&budget));
    let request = system
        .request(Method::POST, url)
        .header("content-type", "application/json")
        .body(other_words);
    let again = receipt(&send(request).await?)?;
    ensure!(again == first, "first {first:?}, again {again:?}");
    system.counts_only(&budget, 2, &[vec![0, 10_000]]).await
}

async fn an_idempotency_key_works_for_any_text_and_for_withdrawals(system: &System) -> Result<()> {
    let budget = unique("any-key");
    system.define(&budget, 2).await?;
    let keyed =
        async |method: Method, path: String, key: &str, body: Option<Value>| -> Result<Receipt> {
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
    let gone = keyed(Method::DELETE, format!("{}/a", path(&budget)), "gone", None).await?;
    ensure!(keyed(Method::DELETE, format!("{}/a", path(&budget)), "gone", None).await? == gone);
    ensure!(gone != first);
    system.shows(&budget, &Totals::of(2, []), VISIBLE).await
}

async fn one_name_for_two_different_things_is_refused(system: &System) -> Result<()> {
    let budget = unique("reused");
    system.define(&budget, 2).await?;
    let id = uuid(mix_128(2));
    let says = |person: &str, share: u32| json!({"person": person, "submission_id": id, "allocation": {"c0": share, "c1": 100 - share}});
    receipt(&system.post(&path(&budget), &says("a", 30)).await?)?;
    system.post(&path(&budget), &says("a", 31)).await?.problem(422, "key-reused")?;
    system.post(&path(&budget), &says("b", 30)).await?.problem(422, "key-reused")?;
    system.counts_only(&budget, 2, &[vec![3_000, 7_000]]).await
}

async fn a_batch_answers_for_each_item_in_order_and_one_bad_item_spoils_no_other(
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
    e2e::answer::check_problem(&results[1]["problem"], 422, "invalid-allocation")?;
    e2e::answer::check_problem(&results[2]["problem"], 400, "malformed")?;
    let (first, last) = (receipt_in(&results[0])?, receipt_in(&results[4])?);
    ensure!(
        first.partition == last.partition && first.offset < last.offset,
        "one person's order is kept"
    );
    let counted = [vec![5_000, 5_000], vec![0, 10_000]];
    system.shows(&budget, &Totals::of(2, &counted), VISIBLE).await
}

async fn a_batch_of_lines_is_read_like_an_array(system: &System) -> Result<()> {
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
    system.shows(&budget, &Totals::of(2, &counted), VISIBLE).await
}

async fn without_identity_each_submission_is_a_person_of_its_own(system: &System) -> Result<()> {
    let budget = unique("anonymous");
    let mut definition = e2e::system::definition(2);
    definition["identity"] = json!("optional");
    system.define_as(&budget, &definition).await?;
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
    system.shows(&budget, &Totals::of(2, &counted), VISIBLE).await
}
