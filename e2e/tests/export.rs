//! `processor export` and `processor archive`: exports of rebuilt generations have identical bytes.
//!
//! This holds for any number of processors, and for a rebuild from the archive after the topic was truncated.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::load::Crowd;
use e2e::operator::{Operator, wait_for_exit};
use e2e::scenario::{new_dir, scenario_within};
use e2e::stack::{Stack, StackBuilder};
use e2e::wait::eventually;

const BUDGET: &str = "exported";
const CATEGORIES: usize = 10;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(90);

/// An export's bytes and the facts of its manifest.
#[derive(PartialEq, Eq)]
struct Exported {
    bytes: Vec<u8>,
    sha256: String,
    positions: String,
}

async fn export(operator: &Operator, format: &str) -> Result<Exported> {
    let path = new_dir("export")?.join(format!("people.{format}"));
    let name = path.display().to_string();
    let output =
        operator.run(&["export", "--budget", BUDGET, "--output", &name], COMMAND_TIMEOUT).await?;
    let manifest = fs::read(format!("{name}.json"))?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest)?;
    let sha256 = manifest["sha256"].as_str().context("no checksum")?.to_owned();
    ensure!(output.contains(&format!(" sha256={sha256} ")), "{output}");
    Ok(Exported { bytes: fs::read(path)?, sha256, positions: manifest["positions"].to_string() })
}

/// Waits until the API serves this generation.
async fn wait_for_generation(stack: &Stack, generation: u64) -> Result<()> {
    eventually(&format!("generation {generation} is served"), COMMAND_TIMEOUT, async || {
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
fn rebuilds_by_one_three_and_six_processors_are_exported_with_the_same_sha256() {
    scenario_within(Duration::from_secs(300), async || {
        let builder = StackBuilder { processors: 1, partitions: 6, ..Stack::builder() };
        let mut stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let operator = Operator::for_stack(&stack)?;
        // People resubmit and withdraw during the export: each export still reflects one position.
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        load.wait_for_acknowledgements(300).await?;
        let early = export(&operator, "csv").await?;
        load.wait_for_acknowledgements(300).await?;
        let ledger = load.stop().await?;
        ledger.verify_counted(&stack, BUDGET, CATEGORIES).await?;

        let before = export(&operator, "csv").await?;
        ensure!(before.positions != early.positions, "the positions have not advanced");
        let people = before.bytes.split(|byte| *byte == b'\n').count() as u64 - 2;
        ensure!(people == ledger.totals(CATEGORIES).people, "{people} people were exported");
        let pb = export(&operator, "pb").await?;
        for (generation, processors) in [(2, 1), (3, 3), (4, 6)] {
            while stack.processors.len() < processors {
                stack.add_processor().await?;
            }
            stack.wait_until_owned(|owned| owned.iter().all(|owned| *owned > 0)).await?;
            wipe(&stack).await?;
            let (code, output) =
                wait_for_exit(operator.start(&["rebuild"])?, COMMAND_TIMEOUT).await?;
            ensure!(matches!(code, Some(0 | 1)), "ended with {code:?}: {output}");
            ensure!(output.contains(" answers now"), "{output}");
            wait_for_generation(&stack, generation).await?;
            let after = export(&operator, "csv").await?;
            println!("EXPORT processors={processors} sha256={}", after.sha256);
            ensure!(after == before, "{processors} processors: {} people", after.bytes.len());
            // The metadata in the other formats depends only on the log, too.
            ensure!(export(&operator, "pb").await? == pb, "{processors} processors: another .pb");
            operator.run(&["generations", "retire"], COMMAND_TIMEOUT).await?;
        }
        ledger.verify_counted(&stack, BUDGET, CATEGORIES).await
    });
}

/// Lists the archive's segments of a partition, in order.
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
fn a_truncated_topic_is_rebuilt_from_its_archive_and_a_gap_is_refused() {
    scenario_within(Duration::from_secs(240), async || {
        let archive = new_dir("archive")?.display().to_string();
        let configured = format!("archive.dir={archive}");
        let settings = vec![configured.clone()];
        let builder = StackBuilder { processors: 2, settings, ..Stack::builder() };
        let stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let operator = Operator::for_stack(&stack)?;
        let with_archive =
            |command: &[&'static str]| [command, &["--set", configured.as_str()]].concat();
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        // Archive twice, under load.
        for _ in 0..2 {
            load.wait_for_acknowledgements(250).await?;
            operator.run(&with_archive(&["archive"]), COMMAND_TIMEOUT).await?;
        }
        load.wait_for_acknowledgements(100).await?;
        let totals = load.stop().await?.totals(CATEGORIES);
        stack.system.wait_until_shown(BUDGET, &totals, COMMAND_TIMEOUT).await?;
        stack.wait_until_caught_up(COMMAND_TIMEOUT).await?;
        let before = export(&operator, "csv").await?;

        let mut lows = Vec::new();
        for partition in 0..stack.partitions {
            let segments = segments(&archive, partition)?;
            ensure!(segments.len() > 1, "partition {partition} has {} segments", segments.len());
            let name = segments[1].file_name().unwrap_or_default().to_string_lossy().into_owned();
            let end = name.split(['-', '.']).nth(2).context("no end")?.parse::<u64>()?;
            // The archive and the topic overlap by a few records.
            lows.push((partition, end - 3));
        }
        stack.kafka.delete_records_below(&stack.topic, &lows).await?;
        let output = operator.run(&with_archive(&["archive", "--check"]), COMMAND_TIMEOUT).await?;
        ensure!(output.contains(" faults=0 "), "{output}");
        let audited = operator.run(&with_archive(&["audit"]), COMMAND_TIMEOUT).await?;
        ensure!(audited.contains(" differences=0 unchecked=0 "), "{audited}");

        let expect_refusal = async |command: &[&str], reason: &str| {
            let (code, output) = wait_for_exit(operator.start(command)?, COMMAND_TIMEOUT).await?;
            ensure!(code == Some(2) && output.contains(reason), "ended with {code:?}: {output}");
            Ok(())
        };
        let begins = format!("partition 0 of the log begins at {}", lows[0].1);
        expect_refusal(&["rebuild"], &begins).await?;
        expect_refusal(&["rebuild", "--from-archive"], "a directory is needed: archive.dir")
            .await?;

        let output =
            operator.run(&with_archive(&["rebuild", "--from-archive"]), COMMAND_TIMEOUT).await?;
        ensure!(output.contains(" differences=0 answers now"), "{output}");
        wait_for_generation(&stack, 2).await?;
        stack.system.wait_until_shown(BUDGET, &totals, COMMAND_TIMEOUT).await?;
        ensure!(export(&operator, "csv").await? == before, "the exports differ");

        // All derived data and the topic's beginning are gone: the archive suffices.
        operator.run(&["generations", "retire"], COMMAND_TIMEOUT).await?;
        wipe(&stack).await?;
        let (code, output) = wait_for_exit(
            operator.start(&with_archive(&["rebuild", "--from-archive"]))?,
            COMMAND_TIMEOUT,
        )
        .await?;
        ensure!(
            matches!(code, Some(0 | 1)) && output.contains(" answers now"),
            "{code:?}: {output}"
        );
        stack.system.wait_until_shown(BUDGET, &totals, COMMAND_TIMEOUT).await?;
        ensure!(
            export(&operator, "csv").await? == before,
            "the exports differ after all derived data was wiped"
        );
        operator.run(&["generations", "retire"], COMMAND_TIMEOUT).await?;

        let lost = segments(&archive, 1)?.remove(0);
        let name = lost.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let end = name.split(['-', '.']).nth(2).context("no end")?.parse::<u64>()?;
        fs::remove_file(lost)?;
        let gap = format!(
            "partition 1: the archive has no records 0..{end}, and the log begins at {}",
            lows[1].1
        );
        expect_refusal(&with_archive(&["rebuild", "--from-archive"]), &gap).await?;
        expect_refusal(
            &with_archive(&["rebuild"]),
            &format!("partition 1 of the log begins at {end}"),
        )
        .await?;
        let (code, output) =
            wait_for_exit(operator.start(&with_archive(&["archive", "--check"]))?, COMMAND_TIMEOUT)
                .await?;
        ensure!(code == Some(1) && output.contains(&gap), "ended with {code:?}: {output}");
        expect_refusal(&with_archive(&["archive"]), "partition 1: the archive has no records 0..")
            .await
    });
}
