//! The public pages and their forms, as a browser without a script uses them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::response::{HttpResponse, send};
use e2e::system::System;
use e2e::wait::eventually;
use reqwest::Client;
use reqwest::redirect::Policy;
use serde_json::json;

use crate::{on_both, unique};

on_both!(
    an_allocation_is_sent_changed_and_withdrawn_without_a_script,
    a_confirmation_sent_twice_is_one_person,
    faulty_values_come_back_as_they_were_typed,
    a_script_gets_the_answers_of_the_api,
    forms_of_other_sites_are_refused,
    hostile_names_are_shown_as_text,
    withheld_results_are_on_no_page,
    every_language_and_asset_is_served,
);

/// A browser without a script: it follows redirects by hand and keeps one cookie for each budget.
struct Browser<'s> {
    system: &'s System,
    client: Client,
    budget: String,
    cookie: Option<String>,
}

impl<'s> Browser<'s> {
    async fn on(system: &'s System, budget: &str) -> Result<Self> {
        system.define(budget, 3).await?;
        let client =
            e2e::http_client::builder().redirect(Policy::none()).timeout(Duration::from_secs(20));
        Ok(Self { system, client: client.build()?, budget: budget.to_owned(), cookie: None })
    }

    fn path(&self, rest: &str) -> String {
        format!("/budgets/{}{rest}", self.budget)
    }

    async fn get(&mut self, path: &str) -> Result<HttpResponse> {
        let mut request = self.client.get(format!("{}{path}", self.system.read_from(0)));
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        let response = send(request).await?;
        self.keep_cookie(&response);
        Ok(response)
    }

    async fn post(
        &mut self,
        path: &str,
        form: String,
        headers: &[(&str, &str)],
    ) -> Result<HttpResponse> {
        let mut request = self.client.post(format!("{}{path}", self.system.write_to(0)));
        request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = send(request).await?;
        self.keep_cookie(&response);
        Ok(response)
    }

    fn keep_cookie(&mut self, response: &HttpResponse) {
        if let Some(pair) =
            response.header("set-cookie").split(';').next().filter(|pair| !pair.is_empty())
        {
            self.cookie = Some(pair.to_owned());
        }
    }

    /// Presses the button of a page's form that posts, and follows to the page that comes next.
    async fn press(&mut self, page: &HttpResponse) -> Result<HttpResponse> {
        let text = page.text();
        let (_, form) = text.split_once("method=\"post\" action=\"").context("no form")?;
        let (action, form) = form.split_once('"').context("no action")?;
        let (form, _) = form.split_once("</form>").context("no end of the form")?;
        let fields = form.split("<input type=\"hidden\" name=\"").skip(1).filter_map(|input| {
            let (name, rest) = input.split_once("\" value=\"")?;
            Some(format!("{name}={}", rest.split_once('"')?.0))
        });
        let body = fields.collect::<Vec<_>>().join("&");
        let answer =
            self.post(action, body, &[("sec-fetch-site", "same-origin")]).await?.expect(303)?;
        self.get(answer.header("location")).await?.expect(200)
    }

    async fn people(&self) -> Result<u64> {
        let path = format!("/v1/budgets/{}/aggregate", self.budget);
        let aggregate = self.system.get(&path).await?.expect(200)?.json()?;
        aggregate["people"].as_u64().context("no people")
    }
}

async fn an_allocation_is_sent_changed_and_withdrawn_without_a_script(
    system: &System,
) -> Result<()> {
    let mut browser = Browser::on(system, &unique("page")).await?;
    let page = browser.get(&browser.path("")).await?.expect(200)?;
    ensure!(page.text().contains("name=\"c.c0\"") && browser.cookie.is_none(), "{}", page.text());
    for (values, shown) in
        [("c.c0=50&c.c1=30.25&c.c2=19,75", "30.25\u{a0}%"), ("c.c0=1&c.c1=&c.c2=99", "99\u{a0}%")]
    {
        let confirm =
            browser.get(&browser.path(&format!("/confirm?{values}&lang=en"))).await?.expect(200)?;
        let mine = browser.press(&confirm).await?;
        ensure!(mine.text().contains("Counted") && mine.text().contains(shown), "{}", mine.text());
    }
    eventually("the newer answer replaced the earlier one", Duration::from_secs(30), async || {
        ensure!(browser.people().await? == 1);
        Ok(())
    })
    .await?;
    let mine = browser.get(&browser.path("/mine")).await?;
    let withdrawn = browser.press(&mine).await?;
    ensure!(
        withdrawn.text().contains("Withdrawn: your answer is no longer counted"),
        "{}",
        withdrawn.text()
    );
    eventually("nobody is counted", Duration::from_secs(30), async || {
        ensure!(browser.people().await? == 0);
        Ok(())
    })
    .await
}

async fn a_confirmation_sent_twice_is_one_person(system: &System) -> Result<()> {
    let mut browser = Browser::on(system, &unique("page")).await?;
    let path = browser.path("/confirm?c.c0=50&c.c1=50&lang=en");
    let confirm = browser.get(&path).await?;
    let first = browser.press(&confirm).await?;
    let second = browser.press(&confirm).await?;
    let receipt = |page: &HttpResponse| {
        let text = page.text();
        let (_, rest) = text.split_once("<code class=\"receipt-text\"><bdi>")?;
        Some(rest.split_once('<')?.0.to_owned())
    };
    ensure!(receipt(&first).is_some() && receipt(&first) == receipt(&second), "{}", second.text());
    // Reloaded, it has another submission id, and is still the same person.
    let reloaded = browser.get(&path).await?;
    browser.press(&reloaded).await?;
    eventually("one person", Duration::from_secs(30), async || {
        ensure!(browser.people().await? == 1);
        Ok(())
    })
    .await
}

async fn faulty_values_come_back_as_they_were_typed(system: &System) -> Result<()> {
    let mut browser = Browser::on(system, &unique("page")).await?;
    let typed = "c.c0=%22%3E%3Cb%3E&c.c1=101&c.c2=0.001";
    let answer =
        browser.get(&browser.path(&format!("/confirm?{typed}&lang=en"))).await?.expect(303)?;
    let page = browser.get(answer.header("location")).await?.expect(200)?.text();
    for part in [
        "value=\"&quot;&gt;&lt;b&gt;\"",
        "value=\"101\"",
        "value=\"0.001\"",
        "<title>Error: ",
        "aria-invalid=\"true\"",
    ] {
        ensure!(page.contains(part), "no {part} in {page}");
    }
    let ours = [("sec-fetch-site", "same-origin")];
    let answer =
        browser.post(&browser.path("/submit"), typed.to_owned(), &ours).await?.expect(303)?;
    ensure!(
        answer.header("location").contains("c.c0=%22%3E%3Cb%3E"),
        "{}",
        answer.header("location")
    );
    Ok(())
}

async fn a_script_gets_the_answers_of_the_api(system: &System) -> Result<()> {
    let mut browser = Browser::on(system, &unique("page")).await?;
    let script = [("sec-fetch-site", "same-origin"), ("accept", "application/json")];
    let refused = browser.post(&browser.path("/submit"), "c.c0=100".to_owned(), &script).await?;
    refused.problem(403, "forbidden")?;
    browser.post(&browser.path("/person"), String::new(), &script).await?.expect(204)?;
    let faulty = browser.post(&browser.path("/submit"), "c.c0=90".to_owned(), &script).await?;
    let problem = faulty.problem(422, "invalid-allocation")?;
    ensure!(problem["errors"][0]["pointer"] == "/allocation", "{problem}");
    let accepted = browser
        .post(&browser.path("/submit"), "c.c0=100".to_owned(), &script)
        .await?
        .expect(202)?;
    let token = accepted.header("consistency-token").to_owned();
    ensure!(
        accepted.json()?["receipt"] == *token
            && accepted.header("location") == browser.path("/mine")
    );
    let cookie = browser.cookie.clone().unwrap_or_default();
    let headers = [
        ("accept", "application/json"),
        ("cookie", cookie.as_str()),
        ("consistency-token", token.as_str()),
        ("prefer", "wait=10"),
    ];
    let mine = system.get_with(&browser.path("/mine"), &headers).await?.expect(200)?.json()?;
    ensure!(mine["allocation"]["c0"] == 100 && mine["receipt"] == *token, "{mine}");
    let nobody = system.get_with(&browser.path("/mine"), &headers[..1]).await?;
    ensure!(nobody.status == 204, "{}", nobody.status);
    Ok(())
}

async fn forms_of_other_sites_are_refused(system: &System) -> Result<()> {
    let mut browser = Browser::on(system, &unique("page")).await?;
    for headers in
        [&[("sec-fetch-site", "cross-site")][..], &[("origin", "https://elsewhere.example")], &[]]
    {
        for route in ["/person", "/submit", "/withdraw"] {
            let answer = browser.post(&browser.path(route), "c.c0=100".to_owned(), headers).await?;
            answer.problem(403, "forbidden")?;
        }
    }
    ensure!(browser.cookie.is_none());
    Ok(())
}

async fn hostile_names_are_shown_as_text(system: &System) -> Result<()> {
    let budget = unique("page");
    let name = "</script><script>alert(1)</script>\"'&\u{202e}";
    let definition = json!({"name": name, "categories": [
        {"id": "do", "name": name, "description": name}, {"id": "lang", "name": "W".repeat(200)}]});
    system.define_with(&budget, &definition).await?;
    for rest in ["", "/results", "/confirm?c.do=40&c.lang=60", "?c.do=x&do=check", "/mine"] {
        let page = system.get(&format!("/budgets/{budget}{rest}")).await?.expect(200)?;
        let text = page.text();
        ensure!(
            !text.contains("<script>alert") && text.contains("&lt;script&gt;alert"),
            "{rest}: {text}"
        );
        ensure!(page.header("content-security-policy").contains("default-src 'self'"), "{rest}");
    }
    Ok(())
}

async fn withheld_results_are_on_no_page(system: &System) -> Result<()> {
    let budget = unique("page");
    let categories = json!([{"id": "c0", "name": "A"}, {"id": "c1", "name": "B"}]);
    let definition = json!({"name": "Q", "categories": categories, "minimum_people": 1_000});
    system.define_with(&budget, &definition).await?;
    let page = |rest: &str| format!("/budgets/{budget}{rest}");
    let before = system.get(&page("/results")).await?.expect(200)?;
    let receipt = system.submit(&budget, "somebody", &[4_321, 5_679]).await?;
    let wait = [("consistency-token", &*receipt.token), ("prefer", "wait=10")];
    system.get_with(&format!("/v1/budgets/{budget}/aggregate"), &wait).await?.expect(200)?;
    let after = system.get(&page("/results")).await?.expect(200)?;
    ensure!(after.text() == before.text() && after.header("etag") == before.header("etag"));
    for rest in ["", "/results", "/mine"] {
        let text = system.get(&page(rest)).await?.text();
        ensure!(
            !text.contains("43.2")
                && !text.contains("id=\"averages\"")
                && !text.contains("id=\"people\""),
            "{text}"
        );
    }
    Ok(())
}

async fn every_language_and_asset_is_served(system: &System) -> Result<()> {
    for language in ["en", "de", "fr", "es", "pl", "ar"] {
        let page = system
            .get_with("/budgets", &[("accept-language", language)])
            .await?
            .expect(200)?
            .text();
        ensure!(page.contains(&format!("<html lang=\"{language}\"")), "{page}");
    }
    let page = system.get("/budgets/taxes").await?.expect(200)?.text();
    let assets: Vec<&str> =
        page.split('"').filter(|part| part.starts_with("/assets/") && part.contains('.')).collect();
    ensure!(assets.len() >= 2, "{assets:?}");
    for asset in assets {
        let response = system.get(asset).await?.expect(200)?;
        ensure!(response.header("cache-control").contains("immutable"), "{asset}");
    }
    Ok(())
}
