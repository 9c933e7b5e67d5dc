//! `processor export` and `processor archive`: what is derived anew is exported with the same bytes, however many
//! processors derive it, and also from an archive, once the topic was shortened.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::load::Crowd;
use e2e::operator::{Operator, ended};
use e2e::scenario::{new_dir, scenario_within};
use e2e::stack::{Stack, StackBuilder};
use e2e::wait::eventually;

const BUDGET: &str = "exported";
const CATEGORIES: usize = 10;
const BOUND: Duration = Duration::from_secs(90);

/// An export: its bytes, and what is said about it.
#[derive(PartialEq, Eq)]
struct Exported {
    bytes: Vec<u8>,
    sha256: String,
    positions: String,
}

async fn export(operator: &Operator, format: &str) -> Result<Exported> {
    let path = new_dir("export")?.join(format!("people.{format}"));
    let name = path.display().to_string();
    let said = operator.does(&["export", "--budget", BUDGET, "--output", &name], BOUND).await?;
    let beside = fs::read(format!("{name}.json"))?;
    let manifest: serde_json::Value = serde_json::from_slice(&beside)?;
    let sha256 = manifest["sha256"].as_str().context("no checksum")?.to_owned();
    ensure!(said.contains(&format!(" sha256={sha256} ")), "{said}");
    Ok(Exported { bytes: fs::read(path)?, sha256, positions: manifest["positions"].to_string() })
}

/// Every API shows the same as an export of this generation.
async fn answers_from(stack: &Stack, generation: u64) -> Result<()> {
    eventually(&format!("generation {generation} answers"), BOUND, async || {
        let answer = stack.system.get(&format!("/v1/budgets/{BUDGET}/aggregate")).await?;
        let body = answer.expect(200)?.json()?;
        ensure!(body["generation"] == generation, "{}", body["generation"]);
        Ok(())
    })
    .await
}

async fn wipe(stack: &Stack) -> Result<()> {
    let tables = stack.tables().await?;
    for table in ["totals", "allocations", "partition_reports"] {
        tables.truncate(table).await?;
    }
    stack.keys().await?.flush().await
}

#[test]
fn what_one_three_and_six_processors_derive_anew_is_exported_with_the_same_sha256() {
    scenario_within(Duration::from_secs(300), async || {
        let builder = StackBuilder { processors: 1, partitions: 6, ..Stack::builder() };
        let mut stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let operator = Operator::of_stack(&stack)?;
        // People change their minds and withdraw meanwhile: whatever moves, each export is of one position.
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        load.goes_on_for(300).await?;
        let early = export(&operator, "csv").await?;
        load.goes_on_for(300).await?;
        let ledger = load.stop().await?;
        ledger.is_counted(&stack, BUDGET, CATEGORIES).await?;

        let before = export(&operator, "csv").await?;
        ensure!(before.positions != early.positions, "nothing has moved");
        let people = before.bytes.split(|byte| *byte == b'\n').count() as u64 - 2;
        ensure!(people == ledger.totals(CATEGORIES).people, "{people} people were exported");
        let pb = export(&operator, "pb").await?;
        for (generation, processors) in [(2, 1), (3, 3), (4, 6)] {
            while stack.processors.len() < processors {
                stack.add_processor().await?;
            }
            stack.owned_so(|owned| owned.iter().all(|owned| *owned > 0)).await?;
            wipe(&stack).await?;
            let (code, said) = ended(operator.start(&["rebuild"])?, BOUND).await?;
            ensure!(matches!(code, Some(0 | 1)), "ended with {code:?}: {said}");
            ensure!(said.contains(" answers now"), "{said}");
            answers_from(&stack, generation).await?;
            let after = export(&operator, "csv").await?;
            println!("EXPORT processors={processors} sha256={}", after.sha256);
            ensure!(after == before, "{processors} processors: {} people", after.bytes.len());
            // Also what the other formats say about themselves is of the log alone.
            ensure!(export(&operator, "pb").await? == pb, "{processors} processors: another .pb");
            operator.does(&["generations", "retire"], BOUND).await?;
        }
        ledger.is_counted(&stack, BUDGET, CATEGORIES).await
    });
}

/// The archive's files of a partition, in order.
fn segments(dir: &str, partition: u32) -> Result<Vec<PathBuf>> {
    let mut segments = Vec::new();
    for file in fs::read_dir(dir)? {
        segments.push(file?.path());
    }
    let of_partition = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(&format!("{partition:05}-")) && name.ends_with(".segment.zst")
    };
    segments.retain(of_partition);
    segments.sort();
    Ok(segments)
}

#[test]
fn a_shortened_topic_is_rebuilt_from_its_archive_and_not_with_a_gap() {
    scenario_within(Duration::from_secs(240), async || {
        let archive = new_dir("archive")?.display().to_string();
        let configured = format!("archive.dir={archive}");
        let settings = vec![configured.clone()];
        let builder = StackBuilder { processors: 2, settings, ..Stack::builder() };
        let stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let operator = Operator::of_stack(&stack)?;
        let with_archive =
            |command: &[&'static str]| [command, &["--set", configured.as_str()]].concat();
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        // In two goes, and beside the load.
        for _ in 0..2 {
            load.goes_on_for(250).await?;
            operator.does(&with_archive(&["archive"]), BOUND).await?;
        }
        load.goes_on_for(100).await?;
        let totals = load.stop().await?.totals(CATEGORIES);
        stack.system.shows(BUDGET, &totals, BOUND).await?;
        stack.caught_up(BOUND).await?;
        let before = export(&operator, "csv").await?;

        let mut lows = Vec::new();
        for partition in 0..stack.partitions {
            let segments = segments(&archive, partition)?;
            ensure!(segments.len() > 1, "partition {partition} has {} segments", segments.len());
            let name = segments[1].file_name().unwrap_or_default().to_string_lossy().into_owned();
            let end = name.split(['-', '.']).nth(2).context("no end")?.parse::<u64>()?;
            // The archive has a few of the records that the topic has still.
            lows.push(end - 3);
        }
        stack.kafka.shorten(&stack.topic, &lows).await?;
        let said = operator.does(&with_archive(&["archive", "--check"]), BOUND).await?;
        ensure!(said.contains(" faults=0 "), "{said}");
        let audited = operator.does(&with_archive(&["audit"]), BOUND).await?;
        ensure!(audited.contains(" differences=0 unchecked=0 "), "{audited}");

        let refused = async |command: &[&str], why: &str| {
            let (code, said) = ended(operator.start(command)?, BOUND).await?;
            ensure!(code == Some(2) && said.contains(why), "ended with {code:?}: {said}");
            Ok(())
        };
        let begins = format!("partition 0 of the log begins at {}", lows[0]);
        refused(&["rebuild"], &begins).await?;
        refused(&["rebuild", "--from-archive"], "a folder is needed: archive.dir").await?;

        let said = operator.does(&with_archive(&["rebuild", "--from-archive"]), BOUND).await?;
        ensure!(said.contains(" differences=0 answers now"), "{said}");
        answers_from(&stack, 2).await?;
        stack.system.shows(BUDGET, &totals, BOUND).await?;
        ensure!(export(&operator, "csv").await? == before, "another export");

        // Everything derived is gone, and the topic's beginning: the archive is enough.
        operator.does(&["generations", "retire"], BOUND).await?;
        wipe(&stack).await?;
        let (code, said) =
            ended(operator.start(&with_archive(&["rebuild", "--from-archive"]))?, BOUND).await?;
        ensure!(matches!(code, Some(0 | 1)) && said.contains(" answers now"), "{code:?}: {said}");
        stack.system.shows(BUDGET, &totals, BOUND).await?;
        ensure!(
            export(&operator, "csv").await? == before,
            "another export after everything was wiped"
        );
        operator.does(&["generations", "retire"], BOUND).await?;

        let lost = segments(&archive, 1)?.remove(0);
        let name = lost.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let end = name.split(['-', '.']).nth(2).context("no end")?.parse::<u64>()?;
        fs::remove_file(lost)?;
        let gap = format!(
            "partition 1: the archive has no records 0..{end}, and the log begins at {}",
            lows[1]
        );
        refused(&with_archive(&["rebuild", "--from-archive"]), &gap).await?;
        refused(&with_archive(&["rebuild"]), &format!("partition 1 of the log begins at {end}"))
            .await?;
        let (code, said) =
            ended(operator.start(&with_archive(&["archive", "--check"]))?, BOUND).await?;
        ensure!(code == Some(1) && said.contains(&gap), "ended with {code:?}: {said}");
        refused(&with_archive(&["archive"]), "partition 1: the archive has no records 0..").await
    });
}
