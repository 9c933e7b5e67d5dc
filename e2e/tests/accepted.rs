//! The embedded default: what it accepts is counted, what has no effect leaves nothing behind, also across restarts.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::embedded::Embedded;
use e2e::operator::{Operator, wait_for_exit};
use e2e::response::{HttpResponse, receipt, send};
use e2e::scenario::scenario;
use reqwest::Method;

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
