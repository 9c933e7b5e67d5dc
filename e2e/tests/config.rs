//! A wrong configuration is refused at startup: every fault at once, each with its key and the expected value.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::port::free_port;
use e2e::process::{Process, binary};
use e2e::scenario::{new_dir, scenario};
use e2e::stack::Stack;

const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a program that must refuse its configuration; returns its log.
async fn run_refused(program: &str, arguments: &[&str]) -> Result<String> {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let mut process = Process::start(program, &new_dir(program)?, &binary(program)?, &arguments)?;
    let status = process.exit(EXIT_TIMEOUT).await?;
    ensure!(!status.success(), "{program} accepted it: {}", process.log()?);
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

fn check_every_fault_is_named(program: &str, output: &str) -> Result<()> {
    for key in [
        "log.partitions",
        "kafka.session_timeout_ms",
        "http.max_connections",
        "telemetry.format",
        "kafka.brokres",
    ] {
        ensure!(output.contains(key), "{program} does not name {key}: {output}");
    }
    ensure!(output.contains("json"), "{program} does not name the expected value: {output}");
    Ok(())
}

#[test]
fn every_service_names_all_faults_of_its_configuration_at_once() {
    scenario(async || {
        for program in ["ingest", "processor", "api"] {
            check_every_fault_is_named(program, &run_refused(program, &WRONG).await?)?;
        }
        let embedded = [&["run"][..], &WRONG].concat();
        check_every_fault_is_named("allocator", &run_refused("allocator", &embedded).await?)
    });
}

#[test]
fn a_configuration_file_that_is_missing_or_not_toml_is_named() {
    scenario(async || {
        let file = new_dir("config")?.join("wrong.toml");
        let name = file.display().to_string();
        for program in ["ingest", "processor", "api"] {
            let output = run_refused(program, &["--config", &name]).await?;
            ensure!(output.contains("wrong.toml"), "{program}: {output}");
        }
        std::fs::write(&file, "[kafka\nbrokers = ")?;
        for program in ["ingest", "processor", "api"] {
            let output = run_refused(program, &["--config", &name]).await?;
            ensure!(
                output.contains("wrong.toml") && output.contains("TOML"),
                "{program}: {output}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_fault_never_repeats_a_secret() {
    scenario(async || {
        for program in ["ingest", "processor", "api"] {
            let output = run_refused(program, &["--set", "redis.url=hunter2-is-no-url"]).await?;
            ensure!(
                output.contains("redis.url") && !output.contains("hunter2"),
                "{program}: {output}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_partition_count_that_differs_from_the_topics_is_refused() {
    scenario(async || {
        let stack = Stack::builder().start().await?;
        let dir = new_dir("other-count")?;
        for program in ["ingest", "processor"] {
            let config = dir.join(format!("{program}.toml"));
            std::fs::write(&config, stack.config(program, free_port()?))?;
            let config = config.display().to_string();
            let output =
                run_refused(program, &["--config", &config, "--set", "log.partitions=5"]).await?;
            ensure!(
                output.contains(&stack.topic) && output.contains("4 partitions"),
                "{program}: {output}"
            );
        }
        Ok(())
    });
}
