//! Ballots imported with `allocator import` yield exactly their totals.
//!
//! On the embedded default, on real servers, with a processor killed during the import, and when imported again. Uses
//! real ballots where available; `local/test` prints whether they are.

mod pabulib;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::audit;
use e2e::embedded::Embedded;
use e2e::gateway::Gateway;
use e2e::oracle::Totals;
use e2e::process::{Process, binary};
use e2e::scenario::{new_dir, scenario};
use e2e::stack::{Stack, StackBuilder};
use e2e::system::System;
use e2e::wait::eventually;

const BUDGET: &str = "ballots";

/// The published totals of Katowice's 32,815 ballots of 2022, in basis points.
const PUBLISHED: [(&str, u64); 7] = [
    ("public space", 155_094_887),
    ("sport", 58_844_580),
    ("health", 49_664_889),
    ("education", 28_858_650),
    ("culture", 26_802_161),
    ("public transit and roads", 6_054_915),
    ("welfare", 2_829_918),
];

/// A file of ballots and its expected totals.
struct Ballots {
    file: PathBuf,
    /// The categories' names, in ascending order of their ids.
    categories: Vec<String>,
    totals: Totals,
}

/// Reads the ballots of the file in `ALLOCATOR_REAL_BALLOTS`. Checks them against the published totals.
///
/// Without that variable, generates synthetic ballots of the same shape.
fn ballots() -> Result<Ballots> {
    let Some(file) = std::env::var_os("ALLOCATOR_REAL_BALLOTS").map(PathBuf::from) else {
        let file = new_dir("ballots")?.join("synthetic.pb");
        std::fs::write(&file, pabulib::synthetic(4_000))?;
        return count_ballots(file);
    };
    ensure!(file.is_file(), "ALLOCATOR_REAL_BALLOTS names {}, which is no file", file.display());
    let ballots = count_ballots(file)?;
    ensure!(ballots.totals.people == 32_815, "{} ballots", ballots.totals.people);
    for (name, published) in PUBLISHED {
        let index = ballots.categories.iter().position(|category| category == name);
        let found = index.map(|index| ballots.totals.basis_points[index]);
        ensure!(found == Some(published), "{name}: counted here {found:?}, published {published}");
    }
    Ok(ballots)
}

/// Counts a file's ballots with an independent, simple implementation.
fn count_ballots(file: PathBuf) -> Result<Ballots> {
    let text = std::fs::read_to_string(&file)?;
    let (categories, allocations) = pabulib::count(&text)?;
    Ok(Ballots {
        file,
        totals: Totals::from_allocations(categories.len(), &allocations),
        categories,
    })
}

fn start_import(file: &Path, url: &str, token_file: &Path) -> Result<Process> {
    let (file, token_file) = (file.display().to_string(), token_file.display().to_string());
    let arguments =
        ["import", &file, "--url", url, "--budget", BUDGET, "--token-file", &token_file];
    Process::start(
        "import",
        &new_dir("import")?,
        &binary("allocator")?,
        &arguments.map(str::to_owned),
    )
}

async fn import(file: &Path, url: &str, token_file: &Path) -> Result<()> {
    let mut import = start_import(file, url, token_file)?;
    let status = import.exit(Duration::from_secs(60)).await?;
    ensure!(status.success(), "the import ended with {status}: {}", import.log()?);
    Ok(())
}

async fn check_served_totals(system: &System, ballots: &Ballots) -> Result<()> {
    system.wait_until_shown(BUDGET, &ballots.totals, Duration::from_secs(20)).await?;
    let definition = system.get(&format!("/v1/budgets/{BUDGET}")).await?.expect(200)?.json()?;
    let names: Vec<_> = definition["categories"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|category| category["name"].clone())
        .collect();
    ensure!(names == ballots.categories, "{names:?} instead of {:?}", ballots.categories);
    Ok(())
}

async fn two_of_each() -> Result<Stack> {
    let builder = StackBuilder {
        ingests: 2,
        processors: 2,
        apis: 2,
        partitions: 12,
        session_timeout_ms: 2_000,
        ..Stack::builder()
    };
    builder.start().await
}

#[test]
fn imported_ballots_yield_exactly_their_totals_embedded_and_again() {
    scenario(async || {
        let ballots = ballots()?;
        let embedded = Embedded::start().await?;
        import(&ballots.file, &embedded.service.url, &embedded.token_file()).await?;
        check_served_totals(&embedded.system, &ballots).await?;
        import(&ballots.file, &embedded.service.url, &embedded.token_file()).await?;
        check_served_totals(&embedded.system, &ballots).await
    });
}

#[test]
fn imported_ballots_yield_exactly_their_totals_on_real_servers_and_again() {
    scenario(async || {
        let ballots = ballots()?;
        let stack = two_of_each().await?;
        let gateway = Gateway::start(&stack).await?;
        for _ in 0..2 {
            import(&ballots.file, &gateway.url, &stack.token_file()).await?;
            let totals = audit::exact(&stack, BUDGET, ballots.categories.len()).await?;
            ensure!(totals == ballots.totals, "the log's totals differ from the ballots");
            check_served_totals(&stack.system, &ballots).await?;
        }
        Ok(())
    });
}

#[test]
fn imported_ballots_yield_exactly_their_totals_with_a_processor_killed_half_way() {
    scenario(async || {
        let ballots = ballots()?;
        let mut stack = two_of_each().await?;
        stack.wait_until_owned(|owned| owned.iter().all(|owned| *owned > 0)).await?;
        let gateway = Gateway::start(&stack).await?;
        let mut importing = start_import(&ballots.file, &gateway.url, &stack.token_file())?;
        eventually("some ballots are counted", Duration::from_secs(30), async || {
            let people = stack.system.totals(0, BUDGET).await?.people;
            ensure!(people > 500, "{people} are counted");
            Ok(())
        })
        .await?;
        stack.processors[0].process.kill()?;
        let status = importing.exit(Duration::from_secs(60)).await?;
        ensure!(status.success(), "the import ended with {status}");
        let totals = audit::exact(&stack, BUDGET, ballots.categories.len()).await?;
        ensure!(totals == ballots.totals, "the log's totals differ from the ballots");
        check_served_totals(&stack.system, &ballots).await.context("after the takeover")
    });
}
