//! Prints the figures of the benchmark with their limits: `bench [FIGURE...]`, default all figures.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let passed = e2e::bench::run(&names).await?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
