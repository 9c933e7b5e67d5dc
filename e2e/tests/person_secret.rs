//! Processes with another person secret than the deployment's are refused.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::port::free_port;
use e2e::process::{Process, binary};
use e2e::scenario::scenario;
use e2e::stack::Stack;

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
