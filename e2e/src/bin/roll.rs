//! Rolls a loaded stack between two releases: `roll FOLDER`, the folder of the previous release's binaries.

use std::path::PathBuf;

use anyhow::{Context, Result};
use e2e::roll;
use e2e::scenario::scenario_within;

fn main() -> Result<()> {
    let previous = std::env::args_os().nth(1).context("usage: roll FOLDER")?;
    let previous = PathBuf::from(previous);
    scenario_within(roll::RUN_TIMEOUT, async || {
        println!("{}", roll::run(&previous).await?);
        Ok(())
    });
    Ok(())
}
