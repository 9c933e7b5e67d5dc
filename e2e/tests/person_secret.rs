//! Processes with another person secret than the deployment's are refused.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::port::free_port;
use e2e::process::{Process, Signal, binary};
use e2e::record::{allocation_record, mix_128, partition_of, shares};
use e2e::scenario::scenario;
use e2e::stack::Stack;
use e2e::wait::eventually;

const EXIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts one more service with another secret and returns its log after it exited.
async fn run_with_another_secret(stack: &Stack, kind: &str) -> Result<String> {
    let secret = stack.dir().join("another.secret");
    fs::write(&secret, "another secret than that of the first ingest")?;
    let name = format!("{kind}-other");
    let config = stack.dir().join(format!("{name}.toml"));
    fs::write(&config, stack.config(kind, free_port()?))?;
    let setting = format!("privacy.person_key_secret_file={}", secret.display());
    let arguments =
        ["--config".to_owned(), config.display().to_string(), "--set".to_owned(), setting];
    let mut process = Process::start(&name, stack.dir(), &binary(kind)?, &arguments)?;
    let status = process.exit(EXIT_TIMEOUT).await?;
    ensure!(!status.success(), "{kind} accepted another secret: {}", process.log()?);
    process.log()
}

#[test]
fn a_second_ingest_and_an_api_with_another_secret_are_refused() {
    scenario(async || {
        let mut stack = Stack::builder().start().await?;
        for kind in ["ingest", "api"] {
            let log = run_with_another_secret(&stack, kind).await?;
            ensure!(log.contains("is another one than that of the data"), "{kind}: {log}");
            ensure!(!log.contains("another secret than that of"), "{kind} prints it: {log}");
        }
        // The others continue, and start again.
        for service in stack.services() {
            service.terminate(EXIT_TIMEOUT).await?;
            service.restart().await?;
        }
        Ok(())
    });
}

/// Starts one more ingest with settings and returns its log after it was refused.
async fn refused_ingest(stack: &Stack, name: &str, settings: &[&str]) -> Result<String> {
    let config = stack.dir().join(format!("{name}.toml"));
    fs::write(&config, stack.config("ingest", free_port()?))?;
    let mut arguments = vec!["--config".to_owned(), config.display().to_string()];
    for setting in settings {
        arguments.extend(["--set".to_owned(), (*setting).to_owned()]);
    }
    let mut process = Process::start(name, stack.dir(), &binary("ingest")?, &arguments)?;
    let status = process.exit(EXIT_TIMEOUT).await?;
    ensure!(!status.success(), "{name} was accepted: {}", process.log()?);
    process.log()
}

#[test]
fn no_secret_is_recorded_over_a_lost_control_topic_until_an_operator_confirms_it() {
    scenario(async || {
        let mut stack = Stack::builder().start().await?;
        let key = 7_u128.to_be_bytes();
        let value = allocation_record("taxes", mix_128(1), shares(1, 10));
        let record = (partition_of(&key, stack.partitions), key.to_vec(), value);
        stack.kafka.write(&stack.topic, vec![record]).await?;
        stack.ingests[0].terminate(EXIT_TIMEOUT).await?;
        // The topic and its records are gone; an ingest creates an empty one.
        stack.kafka.delete_topic(&format!("{}_budgets", stack.topic)).await?;

        let log = refused_ingest(&stack, "unconfirmed", &[]).await?;
        ensure!(log.contains("neither the fingerprint of the person secret"), "{log}");
        let after = log.split("privacy.person_key_fingerprint=").nth(1).unwrap_or_default();
        let fingerprint: String = after.chars().take_while(char::is_ascii_hexdigit).collect();
        ensure!(fingerprint.len() == 32, "{log}");

        // Another secret than the confirmed one is refused, and recorded as little.
        let secret = stack.dir().join("another.secret");
        fs::write(&secret, "another secret than that of the first ingest")?;
        let other = format!("privacy.person_key_secret_file={}", secret.display());
        let confirmed = format!("privacy.person_key_fingerprint={fingerprint}");
        let log = refused_ingest(&stack, "other", &[&other, &confirmed]).await?;
        ensure!(log.contains("is another one than that of the data"), "{log}");
        let log = refused_ingest(&stack, "unconfirmed-again", &[]).await?;
        ensure!(log.contains("neither the fingerprint of the person secret"), "{log}");

        // Confirmed once, it is recorded, and needs no confirmation.
        let config = stack.dir().join("confirmed.toml");
        fs::write(&config, stack.config("ingest", free_port()?))?;
        let arguments =
            ["--config".to_owned(), config.display().to_string(), "--set".to_owned(), confirmed];
        let mut process = Process::start("confirmed", stack.dir(), &binary("ingest")?, &arguments)?;
        eventually("the confirmed secret is recorded", EXIT_TIMEOUT, async || {
            let log = process.log()?;
            ensure!(log.contains("person secret is that of the data"), "{log}");
            Ok(())
        })
        .await?;
        process.signal(Signal::Term)?;
        process.exit(EXIT_TIMEOUT).await?;
        let log = refused_ingest(&stack, "other-again", &[&other]).await?;
        ensure!(log.contains("is another one than that of the data"), "{log}");
        stack.ingests[0].restart().await
    });
}
