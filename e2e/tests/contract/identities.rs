//! Who may submit and read, and for whom, where the service vouches for persons.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::oracle::Totals;
use e2e::response::{HttpResponse, receipt, send};
use e2e::system::System;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{on_both, unique};

on_both!(
    an_anonymous_person_is_one_over_cookie_and_session,
    a_person_reads_and_changes_nobody_elses_submission,
    a_wrong_code_opens_no_session,
    no_forged_credential_is_accepted_by_any_route,
    signing_out_clears_the_cookie_and_a_token_stays_valid,
    a_budget_of_an_unknown_provider_cannot_be_defined,
);

const VISIBLE_TIMEOUT: Duration = Duration::from_secs(30);

async fn define(system: &System, prefix: &str, rule: &str) -> Result<String> {
    let budget = unique(prefix);
    let mut definition = e2e::system::definition(2);
    definition["identity"] = json!(rule);
    system.define_with(&budget, &definition).await?;
    Ok(budget)
}

fn me(budget: &str) -> String {
    format!("/v1/budgets/{budget}/submissions/me")
}

/// Writes as a person: without the administrator's token that the system's client sends.
async fn write(
    system: &System,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Result<HttpResponse> {
    let system = system.without_token()?;
    let mut request = system.request(method, format!("{}{path}", system.write_to(0)));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request.json(body)).await
}

async fn read(system: &System, path: &str, headers: &[(&str, &str)]) -> Result<HttpResponse> {
    system.without_token()?.get_with(path, headers).await
}

/// Opens a session and returns its token and its person's cookie.
async fn session(system: &System, budget: &str) -> Result<(String, String)> {
    let path = format!("/v1/budgets/{budget}/session");
    let answer = write(system, Method::POST, &path, &[], &json!({})).await?.expect(200)?;
    let cookie = answer.header("set-cookie").split(';').next().context("no cookie")?.to_owned();
    let token = answer.json()?["token"].as_str().context("no token")?.to_owned();
    Ok((format!("Bearer {token}"), cookie))
}

async fn an_anonymous_person_is_one_over_cookie_and_session(system: &System) -> Result<()> {
    let budget = define(system, "anonymous", "anonymous").await?;
    let (token, cookie) = session(system, &budget).await?;
    let first = json!({"allocation": {"c0": 100}});
    let by_token = [("authorization", token.as_str())];
    let answer = write(system, Method::PUT, &me(&budget), &by_token, &first).await?.expect(202)?;
    let location = answer.header("location").to_owned();
    ensure!(
        location == format!("{}?at_least={}", me(&budget), receipt(&answer)?.token),
        "{location}"
    );
    let second = json!({"allocation": {"c1": 100}});
    let by_cookie = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    let answer =
        write(system, Method::PUT, &me(&budget), &by_cookie, &second).await?.expect(202)?;
    let location = answer.header("location").to_owned();
    for headers in [&by_token[..], &by_cookie] {
        let own = read(system, &location, headers).await?.expect(200)?.json()?;
        ensure!(
            own["allocation"] == json!({"c0": 0, "c1": 100}) && own["submission"] == "counted",
            "{own}"
        );
    }
    let counted = Totals::from_allocations(2, &[vec![0, 10_000]]);
    system.wait_until_shown(&budget, &counted, VISIBLE_TIMEOUT).await?;
    write(system, Method::DELETE, &me(&budget), &by_token, &json!({})).await?.expect(202)?;
    system.wait_until_shown(&budget, &Totals::from_allocations(2, &[]), VISIBLE_TIMEOUT).await
}

async fn a_person_reads_and_changes_nobody_elses_submission(system: &System) -> Result<()> {
    let budget = define(system, "own", "anonymous").await?;
    let (token, cookie) = session(system, &budget).await?;
    let (_, other) = session(system, &budget).await?;
    let other = other.split('=').nth(1).context("no id")?.to_owned();
    let path = format!("/v1/budgets/{budget}/submissions/{other}");
    let own = json!({"allocation": {"c0": 100}});
    let named = json!({"person": other, "allocation": {"c0": 100}});
    let by_token = [("authorization", token.as_str())];
    let submissions = format!("/v1/budgets/{budget}/submissions");
    let batch = format!("{submissions}/batch");
    for (method, path, body) in [
        (Method::DELETE, path.clone(), own.clone()),
        (Method::PUT, me(&budget), named.clone()),
        (Method::POST, submissions, named.clone()),
        (Method::POST, batch.clone(), json!([own])),
    ] {
        let answer = write(system, method.clone(), &path, &by_token, &body).await?;
        answer.problem(403, "forbidden").with_context(|| path.clone())?;
        // The system runs on the same machine, which gives no right here.
        write(system, method, &path, &[], &body).await?.problem(401, "unauthorized")?;
    }
    read(system, &path, &by_token).await?.problem(403, "forbidden")?;
    read(system, &path, &[]).await?.problem(401, "unauthorized")?;
    read(system, &me(&budget), &[]).await?.problem(401, "unauthorized")?;
    // Another site's page has the cookie, and neither a token nor the right origin.
    for origin in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        let headers = [("cookie", cookie.as_str()), origin];
        let answer = write(system, Method::PUT, &me(&budget), &headers, &own).await?;
        answer.problem(403, "forbidden")?;
    }
    let elsewhere = define(system, "elsewhere", "anonymous").await?;
    let answer = write(system, Method::PUT, &me(&elsewhere), &by_token, &own).await?;
    answer.problem(403, "forbidden")?;
    // The administrator submits for others, alone and in batches.
    system.post(&batch, &json!([named])).await?.expect(200)?;
    let counted = Totals::from_allocations(2, &[vec![10_000, 0]]);
    system.wait_until_shown(&budget, &counted, VISIBLE_TIMEOUT).await
}

async fn a_wrong_code_opens_no_session(system: &System) -> Result<()> {
    let budget = define(system, "code", "code").await?;
    let path = format!("/v1/budgets/{budget}/session");
    let mut details = Vec::new();
    for code in ["0000-0000-0000-0000", "AAAA-BBBB-CCCC-DDDD", "", "not a code"] {
        let answer = write(system, Method::POST, &path, &[], &json!({ "code": code })).await?;
        details.push(answer.problem(401, "unauthorized")?["detail"].clone());
    }
    details.dedup();
    ensure!(details.len() == 1, "{details:?}");
    let own = json!({"allocation": {"c0": 100}});
    write(system, Method::PUT, &me(&budget), &[], &own).await?.problem(401, "unauthorized")?;
    Ok(())
}

async fn no_forged_credential_is_accepted_by_any_route(system: &System) -> Result<()> {
    let budget = define(system, "forged", "anonymous").await?;
    let elsewhere = define(system, "elsewhere", "anonymous").await?;
    let (token, _) = session(system, &budget).await?;
    let (other, _) = session(system, &elsewhere).await?;
    let parts = |token: &str| -> Vec<String> {
        token.trim_start_matches("Bearer ").split('.').map(str::to_owned).collect()
    };
    let (own, other) = (parts(&token), parts(&other));
    let (header, payload, signature) = (&own[0], &own[1], &own[2]);
    let swapped: String = signature.chars().rev().collect();
    let forged = [
        "x".to_owned(),
        "..".to_owned(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}.{signature}x"),
        format!("{header}.{payload}.{swapped}"),
        format!("{header}.{payload}.{signature}.{signature}"),
        format!("{header}.{}.{signature}", other[1]),
        format!("{header}.{payload}.{}", other[2]),
        // {"alg":"none"} and {"alg":"HS256","typ":"JWT","kid":"x"}
        format!("eyJhbGciOiJub25lIn0.{payload}."),
        format!("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IngifQ.{payload}.{signature}"),
        "A".repeat(5_000),
    ];
    let submissions = format!("/v1/budgets/{budget}/submissions");
    let (named, batch) = (format!("{submissions}/p-1"), format!("{submissions}/batch"));
    let own = json!({"allocation": {"c0": 100}});
    for forged in &forged {
        let bearer = format!("Bearer {forged}");
        let headers = [("authorization", bearer.as_str())];
        for (method, path, body) in [
            (Method::PUT, me(&budget), own.clone()),
            (Method::DELETE, me(&budget), own.clone()),
            (Method::POST, submissions.clone(), own.clone()),
            (Method::DELETE, named.clone(), own.clone()),
            (Method::POST, batch.clone(), json!([])),
            (Method::POST, format!("/v1/budgets/{budget}/session"), json!({})),
        ] {
            let answer = write(system, method, &path, &headers, &body).await?;
            let what = || format!("{path} takes {forged:.60}");
            answer.problem(401, "unauthorized").with_context(what)?;
            let challenge = answer.header("www-authenticate");
            ensure!(challenge == "Bearer error=\"invalid_token\"", "{challenge}");
        }
        for path in [me(&budget), named.clone()] {
            read(system, &path, &headers).await?.problem(401, "unauthorized")?;
        }
    }
    // However many were wrong, a right one passes.
    let headers = [("authorization", token.as_str())];
    write(system, Method::PUT, &me(&budget), &headers, &own).await?.expect(202)?;
    let counted = Totals::from_allocations(2, &[vec![10_000, 0]]);
    system.wait_until_shown(&budget, &counted, VISIBLE_TIMEOUT).await
}

async fn signing_out_clears_the_cookie_and_a_token_stays_valid(system: &System) -> Result<()> {
    let budget = define(system, "out", "anonymous").await?;
    let (token, _) = session(system, &budget).await?;
    let path = format!("/v1/budgets/{budget}/session");
    for _ in 0..2 {
        let answer = write(system, Method::DELETE, &path, &[], &json!(null)).await?.expect(204)?;
        let cookie = answer.header("set-cookie");
        ensure!(
            cookie.starts_with("allocator_session=; ") && cookie.contains("Max-Age=0"),
            "{cookie}"
        );
        ensure!(answer.header("cache-control") == "no-store");
    }
    let other_site = [("sec-fetch-site", "cross-site")];
    let answer =
        write(system, Method::DELETE, &path, &other_site, &json!(null)).await?.expect(204)?;
    ensure!(answer.header("set-cookie").is_empty(), "another site's page signs people out");
    let (headers, own) = ([("authorization", token.as_str())], json!({"allocation": {"c0": 100}}));
    write(system, Method::PUT, &me(&budget), &headers, &own).await?.expect(202)?;
    let named = define(system, "named", "required").await?;
    let path = format!("/v1/budgets/{named}/session");
    write(system, Method::DELETE, &path, &[], &json!(null)).await?.problem(403, "forbidden")?;
    Ok(())
}

async fn a_budget_of_an_unknown_provider_cannot_be_defined(system: &System) -> Result<()> {
    let budget = unique("token");
    for rule in ["token", "email", "passport"] {
        let mut definition = e2e::system::definition(2);
        definition["identity"] = json!(rule);
        let url = format!("{}/v1/budgets/{budget}", system.write_to(0));
        let answer = send(system.request(Method::PUT, url).json(&definition)).await?;
        let problem = answer.problem(422, "invalid-budget")?;
        ensure!(problem["errors"][0]["pointer"] == "/identity", "{problem}");
    }
    Ok(())
}
