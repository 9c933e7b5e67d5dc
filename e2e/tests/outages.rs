//! Outages of servers: the services report them at once, keep working as far as possible, and recover by themselves.
//!
//! These tests have servers of their own, because they stop and kill them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::audit;
use e2e::chaos::clock::Clocks;
use e2e::chaos::fault::Kind;
use e2e::chaos::proxy::{NetworkFault, Proxy};
use e2e::load::Crowd;
use e2e::own_servers::{OwnServers, Server};
use e2e::process::Signal;
use e2e::record::SubmissionRecord;
use e2e::response::{HttpResponse, send};
use e2e::scenario::scenario_within;
use e2e::stack::{ServiceOverrides, Stack, StackBuilder};
use e2e::system::System;
use e2e::wait::eventually;
use e2e::watch::{Tolerance, Watch};
use prost::Message;
use reqwest::Method;
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::sleep;

const CATEGORIES: usize = 10;
const BUDGET: &str = "outages";
/// Includes the start of the servers by the first test.
const SCENARIO_TIMEOUT: Duration = Duration::from_secs(240);
const CLOCK_STEP_SECONDS: i64 = 7_000;
const RETURN_TIMEOUT: Duration = Duration::from_secs(60);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

async fn own_servers() -> Result<&'static OwnServers> {
    static SERVERS: OnceCell<OwnServers> = OnceCell::const_new();
    let own = SERVERS
        .get_or_try_init(async || tokio::task::spawn_blocking(OwnServers::start).await?)
        .await?;
    // An earlier test may have failed before it restarted its server.
    tokio::task::spawn_blocking(|| own.start_missing()).await??;
    Ok(own)
}

async fn stack(own: &OwnServers) -> Result<Stack> {
    let stack =
        StackBuilder { servers: Some(own.servers.clone()), ..Stack::builder() }.start().await?;
    stack.system.define(BUDGET, CATEGORIES).await?;
    Ok(stack)
}

/// Submits for twenty people concurrently; returns each answer and its latency.
async fn submit_at_once(stack: &Stack, prefix: &str) -> Result<Vec<(HttpResponse, Duration)>> {
    let mut requests = JoinSet::new();
    for person in 0..20 {
        let url = format!("{}/v1/budgets/{BUDGET}/submissions", stack.system.write_to(0));
        let body = json!({"person": format!("{prefix}-{person}"), "allocation": {"c0": 100}});
        let request = stack.system.request(Method::POST, url).json(&body);
        requests.spawn(async move {
            let began = Instant::now();
            send(request).await.map(|answer| (answer, began.elapsed()))
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = requests.join_next().await {
        answers.push(answer??);
    }
    Ok(answers)
}

#[test]
fn without_kafka_submissions_are_refused_within_a_second_and_accepted_again_once_it_recovers() {
    scenario_within(SCENARIO_TIMEOUT, async || {
        let own = own_servers().await?;
        let stack = stack(own).await?;
        submit_at_once(&stack, "before").await?;
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        own.signal(Server::Kafka, Signal::Stop)?;
        for round in ["first", "second", "third"] {
            for (answer, took) in submit_at_once(&stack, round).await? {
                answer.problem(503, "unavailable")?;
                let wait: u64 = answer.header("retry-after").parse().context("no Retry-After")?;
                ensure!(
                    wait >= 1 && took <= Duration::from_secs(1),
                    "503 after {took:?}, Retry-After: {wait}"
                );
            }
        }
        eventually("ingest is not ready", Duration::from_secs(10), async || {
            let url = format!("{}/readyz", stack.ingests[0].url);
            send(stack.system.request(Method::GET, url)).await?.expect(503)
        })
        .await?;
        own.signal(Server::Kafka, Signal::Continue)?;
        eventually("submissions are accepted again", Duration::from_secs(15), async || {
            for (answer, _) in submit_at_once(&stack, "after").await? {
                answer.expect(202)?;
            }
            Ok(())
        })
        .await?;
        watch.stop().await?;
        // Submissions without an answer may or may not be in the log; the totals equal the log either way.
        audit::exact(&stack, BUDGET, CATEGORIES).await.map(|_| ())
    });
}

#[test]
fn services_that_start_without_kafka_are_unready_at_once_and_work_once_it_starts() {
    scenario_within(SCENARIO_TIMEOUT, async || {
        let own = own_servers().await?;
        let mut stack = stack(own).await?;
        submit_at_once(&stack, "before").await?;
        let (mut ingest, mut processor) = (stack.ingests.remove(0), stack.processors.remove(0));
        ingest.terminate(SHUTDOWN_TIMEOUT).await?;
        processor.terminate(SHUTDOWN_TIMEOUT).await?;
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        own.kill(Server::Kafka)?;
        ingest.respawn()?;
        processor.respawn()?;
        stack.ingests.insert(0, ingest);
        stack.processors.insert(0, processor);
        eventually("ingest answers", Duration::from_secs(10), async || {
            submit_at_once(&stack, "early").await
        })
        .await?;
        for (answer, took) in submit_at_once(&stack, "without").await? {
            answer.problem(503, "unavailable")?;
            answer.header("retry-after").parse::<u64>().context("no Retry-After")?;
            ensure!(took <= Duration::from_secs(1), "503 after {took:?}");
        }
        for service in [&stack.ingests[0], &stack.processors[0]] {
            let url = format!("{}/readyz", service.url);
            eventually("the service listens", Duration::from_secs(30), async || {
                send(stack.system.request(Method::GET, url.clone())).await?.expect(503).map(drop)
            })
            .await?;
        }
        own.start_missing()?;
        for service in [&mut stack.ingests[0], &mut stack.processors[0]] {
            service.ready().await?;
        }
        // A server that has just started may confirm its first records late; the same people submit again then.
        eventually("submissions are accepted", Duration::from_secs(15), async || {
            for (answer, _) in submit_at_once(&stack, "after").await? {
                answer.expect(202)?;
            }
            Ok(())
        })
        .await?;
        watch.stop().await?;
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(totals.people == 40, "{} people and not 40", totals.people);
        Ok(())
    });
}

/// Sends submissions at a fixed rate, each once, without waiting for earlier ones.
async fn submit_once_each(stack: &Stack, stop: &AtomicBool) -> Result<()> {
    let url = format!("{}/v1/budgets/{BUDGET}/submissions", stack.system.write_to(0));
    let mut beat = tokio::time::interval(Duration::from_millis(5));
    let mut requests = JoinSet::new();
    for number in 0.. {
        beat.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let body = json!({"person": format!("person-{number}"), "allocation": {"c0": 100}});
        requests.spawn(send(stack.system.request(Method::POST, url.clone()).json(&body)));
    }
    while let Some(answer) = requests.join_next().await {
        let answer = answer??;
        ensure!([202, 503].contains(&answer.status), "{}: {}", answer.status, answer.text());
    }
    Ok(())
}

#[test]
fn late_or_lost_acknowledgements_put_no_submission_in_the_log_twice() {
    scenario_within(SCENARIO_TIMEOUT, async || {
        let own = own_servers().await?;
        let kafka = Proxy::start(own.kafka_proxy(), own.kafka_behind_proxy()).await?;
        let behind = vec![format!("kafka.brokers={}", kafka.address())];
        let overrides = ServiceOverrides { settings: behind, ..ServiceOverrides::default() };
        let builder = StackBuilder {
            servers: Some(own.servers.clone()),
            overrides: HashMap::from([("ingest-1".to_owned(), overrides)]),
            ..Stack::builder()
        };
        let stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let stop = AtomicBool::new(false);
        let submitting = submit_once_each(&stack, &stop);
        let trouble = async {
            // Kafka has appended records whose acknowledgements are cut off; some exceed the delivery timeout unsent.
            for _ in 0..12 {
                for (trouble, lasts_ms) in [
                    (Some(NetworkFault::Late(Duration::from_secs(5))), 550),
                    (Some(NetworkFault::Cut), 300),
                    (None, 1_000),
                ] {
                    kafka.set(trouble);
                    sleep(Duration::from_millis(lasts_ms)).await;
                }
            }
            stop.store(true, Ordering::Relaxed);
        };
        let (submitted, ()) = tokio::join!(submitting, trouble);
        submitted?;
        ensure!(kafka.affected() > 12, "no faults were injected: {}", kafka.affected());

        audit::exact(&stack, BUDGET, CATEGORIES).await?;
        let mut ids = HashSet::new();
        for record in stack.kafka.read(&stack.topic).await? {
            let id = SubmissionRecord::decode(&record.value[..])?.submission_id;
            let (partition, offset) = (record.partition, record.offset);
            ensure!(ids.insert(id), "{partition}.{offset} is a duplicate");
        }
        ensure!(ids.len() > 500, "{} submissions", ids.len());
        Ok(())
    });
}

#[test]
fn a_killed_and_restarted_kafka_loses_and_duplicates_nothing() {
    scenario_within(SCENARIO_TIMEOUT, async || {
        let own = own_servers().await?;
        let stack = stack(own).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        load.wait_for_acknowledgements(200).await?;
        own.kill(Server::Kafka)?;
        own.start_missing()?;
        load.wait_for_acknowledgements(200).await?;
        watch.stop().await?;
        load.stop().await?.verify_counted(&stack, BUDGET, CATEGORIES).await
    });
}

/// A wait that begins with the clock ahead lasts as long as one during which the machine's clock goes back; see
/// [`e2e::chaos::clock`].
#[test]
fn services_whose_clock_goes_back_during_an_outage_return_to_kafka() {
    scenario_within(SCENARIO_TIMEOUT, async || {
        let own = own_servers().await?;
        let clocks = Clocks::new()?;
        let builder = StackBuilder {
            servers: Some(own.servers.clone()),
            ingests: 2,
            processors: 2,
            apis: 2,
            overrides: clocks.overrides(),
            ..Stack::builder()
        };
        let stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let seconds = [
            (Kind::Ingest, &stack.ingests[1]),
            (Kind::Processor, &stack.processors[1]),
            (Kind::Api, &stack.apis[1]),
        ];
        let ingests = vec![stack.ingests[1].url.clone()];
        let second = System::new(ingests, vec![stack.apis[1].url.clone()])?;
        second.submit(BUDGET, "person", &[10_000]).await?;
        // What is submitted meanwhile makes the ingest probe Kafka.
        let submitting = second.clone();
        let submitter = tokio::spawn(async move {
            loop {
                let _ = submitting.submit(BUDGET, "person", &[10_000]).await;
                sleep(Duration::from_millis(20)).await;
            }
        });
        for (kind, service) in seconds {
            clocks.set(kind, service, CLOCK_STEP_SECONDS).await?;
        }
        own.kill(Server::Kafka)?;
        for (kind, service) in seconds {
            clocks.set(kind, service, 0).await?;
        }
        own.start_missing()?;

        stack.wait_until_owned(|owned| owned.iter().all(|owned| *owned > 0)).await?;
        submitter.abort();
        eventually("the second ingest accepts a submission", RETURN_TIMEOUT, async || {
            second.submit(BUDGET, "person", &[10_000]).await.map(|_| ())
        })
        .await?;
        eventually("the second api shows the submission", RETURN_TIMEOUT, async || {
            let people = second.totals(0, BUDGET).await?.people;
            ensure!(people == 1, "{people} people");
            Ok(())
        })
        .await?;
        // A definition reaches every service through the control topic.
        stack.system.define("later", 2).await?;
        second.wait_until_known("later", RETURN_TIMEOUT).await
    });
}

#[test]
fn submissions_and_reads_continue_while_cassandra_is_stopped_and_totals_catch_up() {
    scenario_within(SCENARIO_TIMEOUT, async || {
        let own = own_servers().await?;
        let stack = stack(own).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        load.wait_for_acknowledgements(200).await?;
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        own.signal(Server::Cassandra, Signal::Stop)?;
        let stopped_at = Instant::now();
        while stopped_at.elapsed() < Duration::from_secs(6) {
            load.wait_for_acknowledgements(50).await?;
        }
        own.signal(Server::Cassandra, Signal::Continue)?;
        load.wait_for_acknowledgements(100).await?;
        watch.stop().await?;
        load.stop().await?.verify_counted(&stack, BUDGET, CATEGORIES).await
    });
}

#[test]
fn a_killed_and_restarted_cassandra_loses_and_duplicates_nothing() {
    scenario_within(SCENARIO_TIMEOUT, async || {
        let own = own_servers().await?;
        let stack = stack(own).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        load.wait_for_acknowledgements(200).await?;
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        own.kill(Server::Cassandra)?;
        own.start_missing()?;
        load.wait_for_acknowledgements(100).await?;
        watch.stop().await?;
        load.stop().await?.verify_counted(&stack, BUDGET, CATEGORIES).await
    });
}

#[test]
fn without_redis_an_answer_says_that_its_id_was_not_checked_and_the_read_what_became_of_it() {
    scenario_within(SCENARIO_TIMEOUT, async || {
        let mut stack = StackBuilder { ingests: 2, ..Stack::builder() }.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let path = format!("/v1/budgets/{BUDGET}/submissions");
        let ballot = |id: u32, share: u32| {
            let id = format!("00000000-0000-4000-8000-{id:012}");
            json!({"person": "a", "submission_id": id, "allocation": {"c0": share, "c1": 100 - share}})
        };
        let submit = async |stack: &Stack, ingest: usize, body: &serde_json::Value| {
            let url = format!("{}{path}", stack.system.write_to(ingest));
            send(stack.system.request(Method::POST, url).json(body)).await
        };
        let became = async |stack: &Stack, answer: &HttpResponse| -> Result<serde_json::Value> {
            stack.system.get(answer.header("location")).await?.expect(200)?.json()
        };
        let first = submit(&stack, 0, &ballot(1, 10)).await?.expect(202)?;
        ensure!(first.json()?["id_checked"].is_null(), "{}", first.text());
        ensure!(became(&stack, &first).await?["submission"] == "counted");

        stack.redis.kill()?;
        // This one has accepted it, that one cannot know.
        submit(&stack, 0, &ballot(1, 90)).await?.problem(422, "key-reused")?;
        let other = submit(&stack, 1, &ballot(1, 90)).await?.expect(202)?;
        ensure!(other.json()?["id_checked"] == false, "{}", other.text());
        let shown = became(&stack, &other).await?;
        ensure!(shown["submission"] == "duplicate" && shown["allocation"]["c0"] == 10.0, "{shown}");
        let new = submit(&stack, 1, &ballot(2, 20)).await?.expect(202)?;
        ensure!(new.json()?["id_checked"] == false, "{}", new.text());
        ensure!(became(&stack, &new).await?["submission"] == "counted");
        ensure!(became(&stack, &first).await?["submission"] == "superseded");
        let unchecked = "allocator_ingest_submission_ids_unchecked_total";
        ensure!(stack.ingests[1].metric(unchecked).await? == 2.0);

        // It comes back empty: for a day, an id that it does not know may be known to the log.
        stack.redis.restart()?;
        let next = AtomicU32::new(3);
        eventually("ids are known to both again", Duration::from_secs(10), async || {
            let id = next.fetch_add(1, Ordering::Relaxed);
            let answer = submit(&stack, 1, &ballot(id, 30)).await?.expect(202)?;
            ensure!(answer.json()?["id_checked"] == false, "{}", answer.text());
            submit(&stack, 0, &ballot(id, 40)).await?.problem(422, "key-reused").map(drop)
        })
        .await?;
        let mut redis = redis::Client::open(stack.redis.url())?.get_connection()?;
        let day_ms = 24 * 60 * 60 * 1_000;
        let yesterday_ms = jiff::Timestamp::now().as_millisecond() - day_ms;
        redis::cmd("SET").arg("idempotency:complete_since").arg(yesterday_ms).exec(&mut redis)?;
        let id = next.fetch_add(1, Ordering::Relaxed);
        let answer = submit(&stack, 1, &ballot(id, 30)).await?.expect(202)?;
        ensure!(answer.json()?["id_checked"].is_null(), "{}", answer.text());
        Ok(())
    });
}

#[test]
fn reads_and_submissions_continue_without_redis_and_an_empty_redis_is_refilled() {
    scenario_within(SCENARIO_TIMEOUT, async || {
        let mut stack = Stack::builder().start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        load.wait_for_acknowledgements(200).await?;
        let watch = Watch::start(&stack.system, BUDGET, Tolerance::None);
        stack.redis.kill()?;
        load.wait_for_acknowledgements(300).await?;
        let answer = eventually("the summary tier answers", Duration::from_secs(5), async || {
            let answer =
                stack.system.get(&format!("/v1/budgets/{BUDGET}/aggregate")).await?.expect(200)?;
            ensure!(
                answer.header("cache-status").contains("allocator-summary; hit"),
                "{}",
                answer.header("cache-status")
            );
            Ok(answer)
        })
        .await?;
        ensure!(!answer.body.is_empty());
        stack.redis.restart()?;
        load.wait_for_acknowledgements(100).await?;
        watch.stop().await?;
        // Checks the totals in Redis, too.
        load.stop().await?.verify_counted(&stack, BUDGET, CATEGORIES).await
    });
}
