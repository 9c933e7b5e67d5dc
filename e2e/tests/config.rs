//! A wrong configuration is refused at start: every fault at once, each with its key and what would be right.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::port::free_port;
use e2e::process::{Process, binary};
use e2e::scenario::{new_dir, scenario};
use e2e::stack::Stack;

const BOUND: Duration = Duration::from_secs(10);

/// Runs a program that is to refuse its configuration; what it says.
async fn refused(program: &str, arguments: &[&str]) -> Result<String> {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let mut process = Process::start(program, &new_dir(program)?, &binary(program)?, &arguments)?;
    let status = process.exit(BOUND).await?;
    ensure!(!status.success(), "{program} took it: {}", process.log()?);
    process.log()
}

const WRONG: [&str; 10] = [
    "--set",
    "log.partitions=0",
    "--set",
    "kafka.session_timeout_ms=soon",
    "--set",
    "http.max_connections=-1",
    "--set",
    "telemetry.format=xml",
    "--set",
    "kafka.brokres=localhost:9092",
];

fn names_every_fault(program: &str, said: &str) -> Result<()> {
    for key in [
        "log.partitions",
        "kafka.session_timeout_ms",
        "http.max_connections",
        "telemetry.format",
        "kafka.brokres",
    ] {
        ensure!(said.contains(key), "{program} does not name {key}: {said}");
    }
    ensure!(said.contains("json"), "{program} does not say what would be right: {said}");
    Ok(())
}

#[test]
fn every_service_names_all_faults_of_its_configuration_at_once() {
    scenario(async || {
        for program in ["ingest", "processor", "api"] {
            names_every_fault(program, &refused(program, &WRONG).await?)?;
        }
        let embedded = [&["run"][..], &WRONG].concat();
        names_every_fault("allocator", &refused("allocator", &embedded).await?)
    });
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_named() {
    scenario(async || {
        let file = new_dir("config")?.join("wrong.toml");
        let name = file.display().to_string();
        for program in ["ingest", "processor", "api"] {
            let said = refused(program, &["--config", &name]).await?;
            ensure!(said.contains("wrong.toml"), "{program}: {said}");
        }
        std::fs::write(&file, "[kafka\nbrokers = ")?;
        for program in ["ingest", "processor", "api"] {
            let said = refused(program, &["--config", &name]).await?;
            ensure!(said.contains("wrong.toml") && said.contains("TOML"), "{program}: {said}");
        }
        Ok(())
    });
}

#[test]
fn a_secret_is_never_repeated_in_a_fault() {
    scenario(async || {
        for program in ["ingest", "processor", "api"] {
            let said = refused(program, &["--set", "redis.url=hunter2-is-no-url"]).await?;
            ensure!(said.contains("redis.url") && !said.contains("hunter2"), "{program}: {said}");
        }
        Ok(())
    });
}

#[test]
fn another_partition_count_than_the_generations_is_refused() {
    scenario(async || {
        let stack = Stack::builder().start().await?;
        let dir = new_dir("other-count")?;
        for program in ["ingest", "processor"] {
            let config = dir.join(format!("{program}.toml"));
            std::fs::write(&config, stack.config(program, free_port()?))?;
            let config = config.display().to_string();
            let said =
                refused(program, &["--config", &config, "--set", "log.partitions=5"]).await?;
            ensure!(
                said.contains(&stack.topic) && said.contains("4 partitions"),
                "{program}: {said}"
            );
        }
        Ok(())
    });
}
