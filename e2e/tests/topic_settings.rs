//! Settings of topics that are changed while the services run.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::response::{HttpResponse, send};
use e2e::scenario::scenario;
use e2e::stack::Stack;
use e2e::wait::eventually;
use reqwest::Method;
use serde_json::json;

/// Longer than two looks at the settings.
const TIMEOUT: Duration = Duration::from_secs(90);

async fn submit(stack: &Stack, person: &str) -> Result<HttpResponse> {
    let url = format!("{}/v1/budgets/taxes/submissions", stack.system.write_to(0));
    let body = json!({"person": person, "allocation": {"health": 40, "education": 60}});
    send(stack.system.request(Method::POST, url).json(&body)).await
}

#[test]
fn a_limit_below_a_batch_is_named_while_submissions_are_refused_and_they_go_on_once_it_is_raised() {
    scenario(async || {
        let stack = Stack::builder().start().await?;
        stack.system.wait_until_known("taxes", TIMEOUT).await?;
        submit(&stack, "before").await?.expect(202)?;
        stack.kafka.set_max_message_bytes(&stack.topic, "50").await?;
        eventually("submissions are refused", TIMEOUT, async || {
            submit(&stack, "meanwhile").await?.problem(503, "unavailable")
        })
        .await?;
        let topic = &stack.topic;
        let refused = format!(
            "allocator_ingest_topic_setting_refused{{setting=\"max.message.bytes\",topic=\"{topic}\"}} "
        );
        eventually("the setting is named", TIMEOUT, async || {
            ensure!(stack.ingests[0].metric(&refused).await? == 1.0, "it is not named yet");
            Ok(())
        })
        .await?;
        let log = stack.ingests[0].process.log()?;
        ensure!(log.contains(&format!("topic `{topic}` has max.message.bytes=50")), "{log}");

        stack.kafka.set_max_message_bytes(topic, "1000000").await?;
        eventually("submissions are accepted again", TIMEOUT, async || {
            submit(&stack, "meanwhile").await?.expect(202).map(drop)
        })
        .await?;
        eventually("the setting is accepted", TIMEOUT, async || {
            ensure!(stack.ingests[0].metric(&refused).await? == 0.0, "it is reported still");
            Ok(())
        })
        .await?;
        e2e::audit::exact(&stack, "taxes", 10).await.map(drop)
    });
}
