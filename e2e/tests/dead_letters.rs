//! Invalid records: dead-lettered with reason and record address, counted, and without effect on other records.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::audit;
use e2e::operator::{Operator, wait_for_exit};
use e2e::record::{SubmissionRecord, allocation_record, mix_128, partition_of, shares};
use e2e::response::send;
use e2e::scenario::scenario;
use e2e::stack::{ServiceOverrides, Stack, StackBuilder};
use e2e::wait::eventually;
use prost::Message;
use reqwest::Method;

const CATEGORIES: usize = 10;
const BUDGET: &str = "taxes";
const STATE_TIMEOUT: Duration = Duration::from_secs(60);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

type Written = (u32, Vec<u8>, Vec<u8>);

fn key(person: u64) -> Vec<u8> {
    mix_128(person).to_be_bytes().to_vec()
}

/// Builds records with every kind of fault, as variations of a valid record.
fn invalid_records(partitions: u32) -> Vec<Written> {
    let valid = SubmissionRecord {
        version: 1,
        budget: BUDGET.to_owned(),
        submission_id: mix_128(999).to_be_bytes().to_vec(),
        accepted_at_ms: 1,
        kind: 1,
        basis_points: shares(1, CATEGORIES),
        generated_id: false,
        marker: None,
    };
    let person = key(7_777);
    let home = partition_of(&person, partitions);
    let mut invalid: Vec<Written> = [
        SubmissionRecord { version: 2, ..valid.clone() },
        SubmissionRecord { version: 0, ..valid.clone() },
        SubmissionRecord { budget: String::new(), ..valid.clone() },
        SubmissionRecord { budget: "No Slug!".to_owned(), ..valid.clone() },
        SubmissionRecord { submission_id: vec![1; 15], ..valid.clone() },
        SubmissionRecord { kind: 0, ..valid.clone() },
        SubmissionRecord { kind: 9, ..valid.clone() },
        SubmissionRecord { kind: 2, ..valid.clone() },
        SubmissionRecord { basis_points: vec![5_000, 4_999], ..valid.clone() },
        SubmissionRecord { basis_points: vec![u32::MAX, 10_001], ..valid.clone() },
        SubmissionRecord { basis_points: vec![10_000], ..valid.clone() },
        SubmissionRecord { basis_points: [vec![10_000], vec![0; 64]].concat(), ..valid.clone() },
        SubmissionRecord { basis_points: Vec::new(), ..valid.clone() },
    ]
    .iter()
    .map(|record| (home, person.clone(), record.encode_to_vec()))
    .collect();
    invalid.push((home, person.clone(), b"garbage \xff\x00\x9c".to_vec()));
    invalid.push((home, person.clone(), Vec::new()));
    invalid.push((home, b"short".to_vec(), valid.encode_to_vec()));
    invalid.push(((home + 1) % partitions, person, valid.encode_to_vec()));
    invalid
}

#[test]
fn invalid_records_are_dead_lettered_with_reason_and_address_and_valid_ones_count() {
    scenario(async || {
        let stack = StackBuilder { processors: 2, ..Stack::builder() }.start().await?;
        stack.system.wait_until_known(BUDGET, Duration::from_secs(10)).await?;
        // A partition that moves meanwhile may write a dead letter twice.
        stack.wait_until_owned(|owned| owned.iter().all(|owned| *owned > 0)).await?;
        let invalid = invalid_records(stack.partitions);
        let mut written = Vec::new();
        for (number, invalid) in (0..).zip(&invalid) {
            for person in 0..5 {
                let key = key(number * 5 + person);
                let value = allocation_record(
                    BUDGET,
                    mix_128(number * 5 + person + 1),
                    shares(person, CATEGORIES),
                );
                written.push((partition_of(&key, stack.partitions), key, value));
            }
            written.push(invalid.clone());
        }
        stack.kafka.write(&stack.topic, written).await?;

        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(totals.people == invalid.len() as u64 * 5, "{} people are counted", totals.people);
        check_dead_letters(&stack, &invalid).await?;
        eventually("the metrics count the dead letters", Duration::from_secs(30), async || {
            let mut counted = 0.0;
            for processor in &stack.processors {
                let text = e2e::http_client::get(format!("{}/metrics", processor.url))
                    .await?
                    .text()
                    .await?;
                counted += text
                    .lines()
                    .filter(|line| line.starts_with("allocator_processor_records_folded_total{"))
                    .filter(|line| line.contains("outcome=\"dead_lettered\""))
                    .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                    .sum::<f64>();
            }
            ensure!(counted == invalid.len() as f64, "{counted} of {} are counted", invalid.len());
            Ok(())
        })
        .await
    });
}

const INVALID_RECORDS: u64 = 500;
const VALID_RECORDS: u64 = 40;

#[test]
fn a_run_of_invalid_records_halts_its_partition_until_an_operator_raises_the_limit() {
    scenario(async || {
        let strict = ServiceOverrides {
            settings: vec!["processor.dead_letter_run=50".to_owned()],
            ..ServiceOverrides::default()
        };
        let overrides = HashMap::from([("processor-1".to_owned(), strict)]);
        let mut stack = StackBuilder { overrides, ..Stack::builder() }.start().await?;
        stack.system.wait_until_known(BUDGET, Duration::from_secs(10)).await?;
        let garbage =
            (0..INVALID_RECORDS).map(|number| (0, key(number), b"not one of ours".to_vec()));
        stack.kafka.write(&stack.topic, garbage.collect()).await?;
        let url = format!("{}/readyz", stack.processors[0].url);
        eventually("readiness names the reason", STATE_TIMEOUT, async || {
            let answer = send(stack.system.request(Method::GET, url.clone())).await?.expect(503)?;
            let reason = "partition 0: halted: 50 records in a row were rejected";
            ensure!(answer.text().contains(reason), "{}", answer.text());
            Ok(())
        })
        .await?;
        let halted = stack.processors[0].metric("allocator_processor_partition_halted{").await?;
        ensure!(halted == 1.0, "{halted} partitions are halted");

        let home = |person: &u64| partition_of(&key(*person), stack.partitions) == 1;
        let valid = (0..).filter(home).take(VALID_RECORDS as usize).map(|person| {
            let value = allocation_record(BUDGET, mix_128(person + 1), shares(person, CATEGORIES));
            (1, key(person), value)
        });
        stack.kafka.write(&stack.topic, valid.collect()).await?;
        let tables = stack.tables().await?;
        let position = async |partition| {
            anyhow::Ok(tables.partition(partition).await?.context("never claimed")?.position)
        };
        eventually("the other partitions make progress", STATE_TIMEOUT, async || {
            let other = position(1).await?;
            ensure!(other == VALID_RECORDS, "partition 1 is at {other}");
            Ok(())
        })
        .await?;
        let letters = stack.kafka.read(&format!("{}.dead-letters", stack.topic)).await?.len();
        let passed = position(0).await?;
        ensure!(passed < 50 && letters < 50, "at {passed}, with {letters} letters");

        // The next processor has the default limit, which is higher.
        stack.processors.remove(0).terminate(SHUTDOWN_TIMEOUT).await?;
        stack.add_processor().await?;
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(totals.people == VALID_RECORDS, "{} people are counted", totals.people);
        let letters = stack.kafka.read(&format!("{}.dead-letters", stack.topic)).await?;
        let offsets: HashSet<&str> = letters
            .iter()
            .filter_map(|letter| Some(letter.headers.get("offset")?.as_str()))
            .collect();
        ensure!(offsets.len() as u64 == INVALID_RECORDS, "{} letters", offsets.len());
        Ok(())
    });
}

/// Runs `processor dead-letters`, checks its exit code, and returns its output.
async fn dead_letters(stack: &Stack, action: &str, which: &[&str], code: i32) -> Result<String> {
    let command = [&["dead-letters", action], which].concat();
    let (ended_with, output) =
        wait_for_exit(Operator::for_stack(stack)?.start(&command)?, STATE_TIMEOUT).await?;
    ensure!(ended_with == Some(code), "{action} ended with {ended_with:?}: {output}");
    Ok(output)
}

#[test]
fn an_operator_lists_shows_replays_and_drops_dead_letters() {
    scenario(async || {
        let stack = Stack::builder().start().await?;
        stack.system.wait_until_known(BUDGET, Duration::from_secs(10)).await?;
        // A valid record in the wrong partition, and one that cannot be decoded.
        let person = key(7);
        let wrong = (partition_of(&person, stack.partitions) + 1) % stack.partitions;
        let good = allocation_record(BUDGET, mix_128(1), shares(3, CATEGORIES));
        let other = (wrong + 1) % stack.partitions;
        let records = vec![(wrong, person, good), (other, key(8), b"garbage \x1b[31m".to_vec())];
        stack.kafka.write(&stack.topic, records).await?;
        stack.wait_until_caught_up(STATE_TIMEOUT).await?;
        let (misplaced, garbage) = (format!("{wrong}.0"), format!("{other}.0"));

        let output = dead_letters(&stack, "list", &[], 0).await?;
        ensure!(output.contains(&format!("{misplaced}  open  ")), "{output}");
        ensure!(output.contains("the person belongs to partition"), "{output}");
        ensure!(output.contains("open=2 replaying=0 replayed=0 dropped=0 foreign=0"), "{output}");
        let output = dead_letters(&stack, "show", &[&garbage], 0).await?;
        ensure!(output.contains("67617262616765201b5b33316d"), "{output}");
        ensure!(output.contains("garbage \\u{1b}[31m") && !output.contains('\x1b'), "{output}");

        let output = dead_letters(&stack, "replay", &[&misplaced, &garbage], 1).await?;
        ensure!(output.contains(&format!("{misplaced}  replayed as ")), "{output}");
        ensure!(
            output.contains(&format!("{garbage}  not replayed: the fold still rejects it")),
            "{output}"
        );
        // A repeated replay appends nothing.
        dead_letters(&stack, "replay", &[&misplaced], 0).await?;
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(totals.people == 1, "{} people are counted", totals.people);
        ensure!(stack.kafka.read(&stack.topic).await?.len() == 3);

        let output = dead_letters(&stack, "drop", &[&garbage], 0).await?;
        ensure!(output.contains(&format!("{garbage}  dropped\n")), "{output}");
        dead_letters(&stack, "drop", &["0.99"], 1).await?;
        let output = dead_letters(&stack, "list", &["--all"], 0).await?;
        ensure!(output.contains("open=0 replaying=0 replayed=1 dropped=1 foreign=0"), "{output}");
        Ok(())
    });
}

/// Submits a decision by HTTP and waits for the job's end; returns its state and result.
async fn decide(stack: &Stack, letter: &str, action: &str) -> Result<(String, String)> {
    let system = &stack.system;
    let url = format!("{}/v1/admin/dead-letters/{letter}/{action}", system.read_from(0));
    let answer = send(system.request(Method::POST, url)).await?.expect(202)?;
    let location = answer.header("location").to_owned();
    eventually("the job has ended", STATE_TIMEOUT, async || {
        let job = system.get(&location).await?.expect(200)?.json()?;
        let text = |member: &str| job[member].as_str().unwrap_or_default().to_owned();
        ensure!(matches!(text("state").as_str(), "succeeded" | "dead"), "{job}");
        Ok((text("state"), text("result")))
    })
    .await
}

#[test]
fn dead_letters_are_listed_shown_replayed_and_dropped_by_http() {
    scenario(async || {
        let stack = Stack::builder().start().await?;
        stack.system.wait_until_known(BUDGET, Duration::from_secs(10)).await?;
        let person = key(7);
        let wrong = (partition_of(&person, stack.partitions) + 1) % stack.partitions;
        let good = allocation_record(BUDGET, mix_128(1), shares(3, CATEGORIES));
        let other = (wrong + 1) % stack.partitions;
        let records = vec![(wrong, person, good), (other, key(8), b"garbage".to_vec())];
        stack.kafka.write(&stack.topic, records).await?;
        stack.wait_until_caught_up(STATE_TIMEOUT).await?;
        let (misplaced, garbage) = (format!("{wrong}.0"), format!("{other}.0"));

        let get = async |path: &str| {
            let path = format!("/v1/admin/dead-letters{path}");
            stack.system.get(&path).await?.expect(200)?.json()
        };
        let (first, last) =
            if wrong < other { (&misplaced, &garbage) } else { (&garbage, &misplaced) };
        let page = get("?limit=1").await?;
        ensure!(page["dead_letters"][0]["id"] == **first && page["next"] == **first, "{page}");
        let page = get(&format!("?limit=1&after={first}")).await?;
        ensure!(page["dead_letters"][0]["id"] == **last && page["next"].is_null(), "{page}");
        let shown = get(&format!("/{garbage}")).await?;
        ensure!(
            shown["record"]["value"] == "67617262616765" && shown["state"] == "open",
            "{shown}"
        );

        let (state, result) = decide(&stack, &misplaced, "replay").await?;
        ensure!(state == "succeeded" && result.starts_with("replayed as "), "{state}: {result}");
        let again = decide(&stack, &misplaced, "replay").await?;
        ensure!(again == (state, result), "{again:?}");
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(totals.people == 1, "{} people are counted", totals.people);
        ensure!(stack.kafka.read(&stack.topic).await?.len() == 3, "it was appended once");
        let (state, result) = decide(&stack, &garbage, "replay").await?;
        ensure!(state == "succeeded", "{state}: {result}");
        ensure!(result.starts_with("refused: the fold still rejects it"), "{result}");
        let dropped = decide(&stack, &garbage, "drop").await?;
        ensure!(dropped == ("succeeded".to_owned(), "dropped".to_owned()), "{dropped:?}");
        let shown = get(&format!("/{misplaced}")).await?;
        ensure!(shown["state"] == "replayed", "{shown}");
        // The command line shows the same states.
        let output = dead_letters(&stack, "list", &["--all"], 0).await?;
        ensure!(output.contains("open=0 replaying=0 replayed=1 dropped=1 foreign=0"), "{output}");
        Ok(())
    });
}

async fn check_dead_letters(stack: &Stack, invalid: &[Written]) -> Result<()> {
    let letters = stack.kafka.read(&format!("{}.dead-letters", stack.topic)).await?;
    ensure!(
        letters.len() == invalid.len(),
        "{} dead letters of {} invalid records",
        letters.len(),
        invalid.len()
    );
    let log = stack.kafka.read(&stack.topic).await?;
    let by_address: HashMap<_, _> =
        log.iter().map(|record| ((record.partition, record.offset), record)).collect();
    for letter in &letters {
        let header = |name: &str| {
            letter.headers.get(name).with_context(|| format!("no {name} in {:?}", letter.headers))
        };
        let address = (header("partition")?.parse()?, header("offset")?.parse()?);
        ensure!(!header("reason")?.is_empty());
        let source =
            by_address.get(&address).with_context(|| format!("no record at {address:?}"))?;
        ensure!(
            source.key == letter.key && source.value == letter.value,
            "the record at {address:?} differs"
        );
        ensure!(
            invalid.iter().any(|(_, key, value)| *key == letter.key && *value == letter.value),
            "a valid record was dead-lettered"
        );
    }
    Ok(())
}
