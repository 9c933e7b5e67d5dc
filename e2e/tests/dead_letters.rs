//! Records that are not ours: put away with their reason and place, counted, and of no effect on their neighbours.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::answer::send;
use e2e::audit;
use e2e::operator::{Operator, ended};
use e2e::record::{SubmissionRecord, allocation_record, mix_128, partition_of, shares};
use e2e::scenario::scenario;
use e2e::stack::{Special, Stack, StackBuilder};
use e2e::wait::eventually;
use prost::Message;
use reqwest::Method;

const CATEGORIES: usize = 10;
const BUDGET: &str = "taxes";
const PATIENCE: Duration = Duration::from_secs(20);
const LEAVE: Duration = Duration::from_secs(15);

type Written = (u32, Vec<u8>, Vec<u8>);

fn key(person: u64) -> Vec<u8> {
    mix_128(person).to_be_bytes().to_vec()
}

/// Everything that can be wrong with a record, as variations of a good one.
fn wrong_records(partitions: u32) -> Vec<Written> {
    let good = SubmissionRecord {
        version: 1,
        budget: BUDGET.to_owned(),
        submission_id: mix_128(999).to_be_bytes().to_vec(),
        accepted_at_ms: 1,
        kind: 1,
        basis_points: shares(1, CATEGORIES),
    };
    let person = key(7_777);
    let home = partition_of(&person, partitions);
    let mut wrong: Vec<Written> = [
        SubmissionRecord { version: 2, ..good.clone() },
        SubmissionRecord { version: 0, ..good.clone() },
        SubmissionRecord { budget: String::new(), ..good.clone() },
        SubmissionRecord { budget: "No Slug!".to_owned(), ..good.clone() },
        SubmissionRecord { submission_id: vec![1; 15], ..good.clone() },
        SubmissionRecord { kind: 0, ..good.clone() },
        SubmissionRecord { kind: 9, ..good.clone() },
        SubmissionRecord { kind: 2, ..good.clone() },
        SubmissionRecord { basis_points: vec![5_000, 4_999], ..good.clone() },
        SubmissionRecord { basis_points: vec![u32::MAX, 10_001], ..good.clone() },
        SubmissionRecord { basis_points: vec![10_000], ..good.clone() },
        SubmissionRecord { basis_points: [vec![10_000], vec![0; 64]].concat(), ..good.clone() },
        SubmissionRecord { basis_points: Vec::new(), ..good.clone() },
    ]
    .iter()
    .map(|record| (home, person.clone(), record.encode_to_vec()))
    .collect();
    wrong.push((home, person.clone(), b"garbage \xff\x00\x9c".to_vec()));
    wrong.push((home, person.clone(), Vec::new()));
    wrong.push((home, b"short".to_vec(), good.encode_to_vec()));
    wrong.push(((home + 1) % partitions, person, good.encode_to_vec()));
    wrong
}

#[test]
fn what_is_not_ours_is_put_away_with_reason_and_place_and_its_neighbours_count() {
    scenario(async || {
        let stack = StackBuilder { processors: 2, ..Stack::builder() }.start().await?;
        stack.system.known(BUDGET, Duration::from_secs(10)).await?;
        let wrong = wrong_records(stack.partitions);
        let mut written = Vec::new();
        for (number, wrong) in (0..).zip(&wrong) {
            for person in 0..5 {
                let key = key(number * 5 + person);
                let value = allocation_record(
                    BUDGET,
                    mix_128(number * 5 + person + 1),
                    shares(person, CATEGORIES),
                );
                written.push((partition_of(&key, stack.partitions), key, value));
            }
            written.push(wrong.clone());
        }
        stack.kafka.write(&stack.topic, written).await?;

        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(totals.people == wrong.len() as u64 * 5, "{} people are counted", totals.people);
        check_letters(&stack, &wrong).await?;
        eventually("the metrics count them", Duration::from_secs(5), async || {
            let mut counted = 0.0;
            for processor in &stack.processors {
                let text = reqwest::get(format!("{}/metrics", processor.url)).await?.text().await?;
                counted += text
                    .lines()
                    .filter(|line| line.starts_with("allocator_processor_records_folded_total{"))
                    .filter(|line| line.contains("outcome=\"dead_lettered\""))
                    .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                    .sum::<f64>();
            }
            ensure!(counted == wrong.len() as f64, "{counted} of {} are counted", wrong.len());
            Ok(())
        })
        .await
    });
}

const STORM: u64 = 500;
const GOOD: u64 = 40;

#[test]
fn a_storm_of_what_is_not_ours_halts_its_partition_until_an_operator_lets_it_pass() {
    scenario(async || {
        let strict = Special {
            settings: vec!["processor.dead_letter_run=50".to_owned()],
            ..Special::default()
        };
        let special = HashMap::from([("processor-1".to_owned(), strict)]);
        let mut stack = StackBuilder { special, ..Stack::builder() }.start().await?;
        stack.system.known(BUDGET, Duration::from_secs(10)).await?;
        let garbage = (0..STORM).map(|number| (0, key(number), b"not one of ours".to_vec()));
        stack.kafka.write(&stack.topic, garbage.collect()).await?;
        let url = format!("{}/readyz", stack.processors[0].url);
        eventually("readiness says why", PATIENCE, async || {
            let answer = send(stack.system.request(Method::GET, url.clone())).await?.expect(503)?;
            let why = "partition 0: halted: 50 records in a row cannot be taken";
            ensure!(answer.text().contains(why), "{}", answer.text());
            Ok(())
        })
        .await?;
        let halted = stack.processors[0].metric("allocator_processor_partition_halted{").await?;
        ensure!(halted == 1.0, "{halted} partitions are halted");

        let home = |person: &u64| partition_of(&key(*person), stack.partitions) == 1;
        let good = (0..).filter(home).take(GOOD as usize).map(|person| {
            let value = allocation_record(BUDGET, mix_128(person + 1), shares(person, CATEGORIES));
            (1, key(person), value)
        });
        stack.kafka.write(&stack.topic, good.collect()).await?;
        let tables = stack.tables().await?;
        let position = async |partition| {
            anyhow::Ok(tables.partition(partition).await?.context("never claimed")?.position)
        };
        eventually("the other partitions go on", PATIENCE, async || {
            let other = position(1).await?;
            ensure!(other == GOOD, "partition 1 is at {other}");
            Ok(())
        })
        .await?;
        let letters = stack.kafka.read(&format!("{}.dead-letters", stack.topic)).await?.len();
        let passed = position(0).await?;
        ensure!(passed < 50 && letters < 50, "at {passed}, with {letters} letters");

        // The next one takes more in a row.
        stack.processors.remove(0).terminate(LEAVE).await?;
        stack.add_processor().await?;
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(totals.people == GOOD, "{} people are counted", totals.people);
        let letters = stack.kafka.read(&format!("{}.dead-letters", stack.topic)).await?;
        let offsets: HashSet<&str> = letters
            .iter()
            .filter_map(|letter| Some(letter.headers.get("offset")?.as_str()))
            .collect();
        ensure!(offsets.len() as u64 == STORM, "{} letters", offsets.len());
        Ok(())
    });
}

/// Runs `processor dead-letters`; what it says, if it ends with `code`.
async fn letters(stack: &Stack, action: &str, which: &[&str], code: i32) -> Result<String> {
    let command = [&["dead-letters", action], which].concat();
    let (ended_with, said) = ended(Operator::of_stack(stack)?.start(&command)?, PATIENCE).await?;
    ensure!(ended_with == Some(code), "{action} ended with {ended_with:?}: {said}");
    Ok(said)
}

#[test]
fn an_operator_lists_shows_replays_and_drops_dead_letters() {
    scenario(async || {
        let stack = Stack::builder().start().await?;
        stack.system.known(BUDGET, Duration::from_secs(10)).await?;
        // Good, but not where its person belongs; and nothing that anybody could take.
        let person = key(7);
        let wrong = (partition_of(&person, stack.partitions) + 1) % stack.partitions;
        let good = allocation_record(BUDGET, mix_128(1), shares(3, CATEGORIES));
        let other = (wrong + 1) % stack.partitions;
        let records = vec![(wrong, person, good), (other, key(8), b"garbage \x1b[31m".to_vec())];
        stack.kafka.write(&stack.topic, records).await?;
        stack.caught_up(PATIENCE).await?;
        let (misplaced, garbage) = (format!("{wrong}.0"), format!("{other}.0"));

        let said = letters(&stack, "list", &[], 0).await?;
        ensure!(said.contains(&format!("{misplaced}  open  ")), "{said}");
        ensure!(said.contains("the person belongs to partition"), "{said}");
        ensure!(said.contains("open=2 replaying=0 replayed=0 dropped=0 foreign=0"), "{said}");
        let said = letters(&stack, "show", &[&garbage], 0).await?;
        ensure!(said.contains("67617262616765201b5b33316d"), "{said}");
        ensure!(said.contains("garbage \\u{1b}[31m") && !said.contains('\x1b'), "{said}");

        let said = letters(&stack, "replay", &[&misplaced, &garbage], 1).await?;
        ensure!(said.contains(&format!("{misplaced}  replayed as ")), "{said}");
        ensure!(said.contains(&format!("{garbage}  not replayed: it still cannot")), "{said}");
        // A second time it is where it is.
        letters(&stack, "replay", &[&misplaced], 0).await?;
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(totals.people == 1, "{} people are counted", totals.people);
        ensure!(stack.kafka.read(&stack.topic).await?.len() == 3);

        let said = letters(&stack, "drop", &[&garbage], 0).await?;
        ensure!(said.contains(&format!("{garbage}  dropped\n")), "{said}");
        letters(&stack, "drop", &["0.99"], 1).await?;
        let said = letters(&stack, "list", &["--all"], 0).await?;
        ensure!(said.contains("open=0 replaying=0 replayed=1 dropped=1 foreign=0"), "{said}");
        Ok(())
    });
}

/// Asks for a decision by HTTP, and waits for what comes of it: the job's state and result.
async fn decided(stack: &Stack, letter: &str, action: &str) -> Result<(String, String)> {
    let system = &stack.system;
    let url = format!("{}/v1/admin/dead-letters/{letter}/{action}", system.read_from(0));
    let asked = send(system.request(Method::POST, url)).await?.expect(202)?;
    let location = asked.header("location").to_owned();
    eventually("the job has ended", PATIENCE, async || {
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
        stack.system.known(BUDGET, Duration::from_secs(10)).await?;
        let person = key(7);
        let wrong = (partition_of(&person, stack.partitions) + 1) % stack.partitions;
        let good = allocation_record(BUDGET, mix_128(1), shares(3, CATEGORIES));
        let other = (wrong + 1) % stack.partitions;
        let records = vec![(wrong, person, good), (other, key(8), b"garbage".to_vec())];
        stack.kafka.write(&stack.topic, records).await?;
        stack.caught_up(PATIENCE).await?;
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

        let (state, result) = decided(&stack, &misplaced, "replay").await?;
        ensure!(state == "succeeded" && result.starts_with("replayed as "), "{state}: {result}");
        let again = decided(&stack, &misplaced, "replay").await?;
        ensure!(again == (state, result), "{again:?}");
        let totals = audit::exact(&stack, BUDGET, CATEGORIES).await?;
        ensure!(totals.people == 1, "{} people are counted", totals.people);
        ensure!(stack.kafka.read(&stack.topic).await?.len() == 3, "it was appended once");
        let (state, result) = decided(&stack, &garbage, "replay").await?;
        ensure!(state == "dead" && result.contains("still cannot be taken"), "{state}: {result}");
        let dropped = decided(&stack, &garbage, "drop").await?;
        ensure!(dropped == ("succeeded".to_owned(), "dropped".to_owned()), "{dropped:?}");
        let shown = get(&format!("/{misplaced}")).await?;
        ensure!(shown["state"] == "replayed", "{shown}");
        // What the command line sees is the same.
        let said = letters(&stack, "list", &["--all"], 0).await?;
        ensure!(said.contains("open=0 replaying=0 replayed=1 dropped=1 foreign=0"), "{said}");
        Ok(())
    });
}

async fn check_letters(stack: &Stack, wrong: &[Written]) -> Result<()> {
    let letters = stack.kafka.read(&format!("{}.dead-letters", stack.topic)).await?;
    ensure!(
        letters.len() == wrong.len(),
        "{} letters of {} wrong records",
        letters.len(),
        wrong.len()
    );
    let log = stack.kafka.read(&stack.topic).await?;
    let by_place: HashMap<_, _> =
        log.iter().map(|record| ((record.partition, record.offset), record)).collect();
    for letter in &letters {
        let header = |name: &str| {
            letter.headers.get(name).with_context(|| format!("no {name} in {:?}", letter.headers))
        };
        let place = (header("partition")?.parse()?, header("offset")?.parse()?);
        ensure!(!header("reason")?.is_empty());
        let source = by_place.get(&place).with_context(|| format!("nothing at {place:?}"))?;
        ensure!(
            source.key == letter.key && source.value == letter.value,
            "another record stands at {place:?}"
        );
        ensure!(
            wrong.iter().any(|(_, key, value)| *key == letter.key && *value == letter.value),
            "a good record was put away"
        );
    }
    Ok(())
}
