//! The tier chain: memory, Redis, committed totals, person rows.
//!
//! Each tier answers when the earlier tiers have no answer, and all tiers return the same totals.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::oracle::Totals;
use e2e::record::shares;
use e2e::response::HttpResponse;
use e2e::scenario::scenario;
use e2e::stack::Stack;
use e2e::wait::eventually;
use reqwest::Method;

const CATEGORIES: usize = 5;
const BUDGET: &str = "tiers";

async fn start_with_submissions() -> Result<(Stack, Totals)> {
    let stack = Stack::builder().start().await?;
    stack.system.define(BUDGET, CATEGORIES).await?;
    let people: Vec<Vec<u32>> = (0..40).map(|person| shares(person, CATEGORIES)).collect();
    for (person, shares) in people.iter().enumerate() {
        stack.system.submit(BUDGET, &format!("p-{person}"), shares).await?;
    }
    let totals = e2e::audit::exact(&stack, BUDGET, CATEGORIES).await?;
    ensure!(totals == Totals::from_allocations(CATEGORIES, &people));
    Ok((stack, totals))
}

/// Reads the first aggregate of an API with an empty memory.
async fn first_answer(stack: &mut Stack) -> Result<HttpResponse> {
    let url =
        format!("{}/v1/budgets/{BUDGET}/aggregate?include=distribution", stack.system.read_from(0));
    eventually("a cold API answers", Duration::from_secs(20), async || {
        e2e::response::send(stack.system.request(Method::GET, url.clone())).await?.expect(200)
    })
    .await
}

async fn restart_api(stack: &mut Stack) -> Result<()> {
    stack.apis[0].process.kill()?;
    stack.apis[0].restart().await
}

#[test]
fn a_cold_api_answers_from_redis_and_then_from_memory() {
    scenario(async || {
        let (mut stack, totals) = start_with_submissions().await?;
        restart_api(&mut stack).await?;
        let first = first_answer(&mut stack).await?;
        let tiers = first.header("cache-status");
        ensure!(
            tiers == "allocator-memory; fwd=miss, allocator-redis; hit",
            "Cache-Status: {tiers}"
        );
        ensure!(Totals::parse(&first.json()?)? == totals);
        eventually("the next read is a hit in memory", Duration::from_secs(2), async || {
            let next = first_answer(&mut stack).await?;
            ensure!(
                next.header("cache-status") == "allocator-memory; hit",
                "{}",
                next.header("cache-status")
            );
            ensure!(next.body == first.body && next.header("etag") == first.header("etag"));
            Ok(())
        })
        .await
    });
}

#[test]
fn without_redis_the_committed_totals_answer_and_without_those_the_person_rows() {
    scenario(async || {
        let (mut stack, totals) = start_with_submissions().await?;
        stack.redis.kill()?;
        restart_api(&mut stack).await?;
        let summary = first_answer(&mut stack).await?;
        let tiers = summary.header("cache-status").to_owned();
        ensure!(
            tiers
                == "allocator-memory; fwd=miss, allocator-redis; fwd=miss, allocator-summary; hit",
            "{tiers}"
        );
        ensure!(Totals::parse(&summary.json()?)? == totals);

        // No processor commits any more and the committed totals are gone: only person rows are left.
        for processor in &mut stack.processors {
            processor.process.kill()?;
        }
        stack.tables().await?.truncate("totals").await?;
        restart_api(&mut stack).await?;
        let recount = first_answer(&mut stack).await?;
        ensure!(
            recount.header("cache-status").ends_with("allocator-recount; hit"),
            "{}",
            recount.header("cache-status")
        );
        ensure!(Totals::parse(&recount.json()?)? == totals);
        Ok(())
    });
}
