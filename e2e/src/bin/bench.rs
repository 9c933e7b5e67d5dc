//! Prints each figure of the benchmark beside its limit: `bench [FIGURE...]`, all of them without a name.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let kept = e2e::bench::run(&names).await?;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
