//! Rate limits over several processes: two ingests that share a Redis admit exactly what one would, and what is
//! declared without Redis.

use anyhow::{Result, ensure};
use e2e::response::{HttpResponse, send};
use e2e::scenario::scenario;
use e2e::stack::{Stack, StackBuilder};
use reqwest::Method;
use serde_json::json;

/// This program is on the services' machine, where only limits of trusted clients apply.
const LIMIT: &str = "limits.person=person sliding-window 5/1d on=submission for=trusted";

async fn submit(stack: &Stack, ingest: usize, person: &str) -> Result<HttpResponse> {
    let url = format!("{}/v1/budgets/taxes/submissions", stack.ingests[ingest].url);
    let body = json!({"person": person, "allocation": {"health": 40, "education": 60}});
    send(stack.system.request(Method::POST, url).json(&body)).await
}

/// Returns how many of twenty submissions are accepted, one ingest after the other.
async fn accepted_of_twenty(stack: &Stack, person: &str) -> Result<u64> {
    let mut accepted = 0;
    for number in 0..20 {
        let response = submit(stack, number % 2, person).await?;
        ensure!(matches!(response.status, 202 | 429), "{response:?}");
        accepted += u64::from(response.status == 202);
    }
    Ok(accepted)
}

#[test]
fn two_ingests_admit_together_what_one_would_and_their_shares_without_redis() {
    scenario(async || {
        let settings = vec![LIMIT.to_owned(), "limits.instances=2".to_owned()];
        let builder = StackBuilder { ingests: 2, settings, ..Stack::builder() };
        let mut stack = builder.start().await?;

        let first = submit(&stack, 0, "anna").await?.expect(202)?;
        ensure!(first.header("ratelimit-policy") == "\"person\";q=5;w=86400", "{first:?}");
        ensure!(first.header("x-ratelimit-remaining") == "4", "{first:?}");
        ensure!(accepted_of_twenty(&stack, "anna").await? == 4);
        for ingest in [0, 1] {
            let refused = submit(&stack, ingest, "anna").await?.expect(429)?;
            ensure!(refused.header("retry-after").parse::<u64>()? > 0, "{refused:?}");
        }
        ensure!(accepted_of_twenty(&stack, "otto").await? == 5);

        stack.redis.kill()?;
        // Each grants a half of five, rounded up.
        ensure!(accepted_of_twenty(&stack, "vera").await? == 6);
        let refused = submit(&stack, 0, "vera").await?.expect(429)?;
        let policy = refused.header("ratelimit-policy");
        ensure!(policy == "\"person\";q=3;w=86400;source=local-share", "{policy}");
        ensure!(stack.ingests[0].metric("allocator_limits_counters_unreachable").await? == 1.0);
        Ok(())
    });
}
