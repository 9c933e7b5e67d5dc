//! Batches through the gateway, behind which nobody is on the services' machine.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::gateway::Gateway;
use e2e::scenario::scenario;
use e2e::stack::{Stack, StackBuilder};
use e2e::system::System;
use serde_json::{Value, json};

const BATCH: &str = "/v1/budgets/taxes/submissions/batch";
const TIMEOUT: Duration = Duration::from_secs(10);

/// More than nginx and sockets buffer.
fn large_batch() -> Value {
    let person = "p".repeat(120);
    let item = |number: u32| json!({"person": format!("{person}-{number}"), "allocation": {"health": 100}});
    let mut items: Vec<Value> = (0..1_000).map(item).collect();
    items.push(json!({"padding": "x".repeat(1_500_000)}));
    items.into()
}

async fn check_refused(system: &System, batch: &Value) -> Result<()> {
    let refused = system.post(BATCH, batch).await?;
    let problem = refused.problem(401, "unauthorized")?;
    let detail = problem["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains("`submitter`") && detail.contains("`admin.tokens_file`"), "{detail}");
    Ok(())
}

#[test]
fn a_batch_through_the_gateway_needs_a_token_and_its_client_is_told_so() {
    scenario(async || {
        let stack = StackBuilder { ingests: 2, apis: 2, ..Stack::builder() }.start().await?;
        let gateway = Gateway::start(&stack).await?;
        let public = System::new(vec![gateway.url.clone()], vec![gateway.url.clone()])?;
        public.wait_until_known("taxes", TIMEOUT).await?;
        let batch = json!([{"person": "p-1", "allocation": {"health": 100}}]);
        check_refused(&public, &batch).await?;
        check_refused(&public, &large_batch()).await?;
        let token = std::fs::read_to_string(stack.token_file())?;
        public.with_token(token.trim())?.post(BATCH, &batch).await?.expect(200)?;
        // No token of the role `submitter` is configured, and this program is on the services' machine.
        stack.system.without_token()?.post(BATCH, &batch).await?.expect(200)?;
        Ok(())
    });
}
