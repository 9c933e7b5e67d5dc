//! An operator, who gives commands to what runs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::embedded::Embedded;
use crate::process::{Process, binary};
use crate::scenario::new_dir;
use crate::stack::Stack;

/// How an operator gives commands.
pub struct Operator {
    program: &'static str,
    arguments: Vec<String>,
}

impl Operator {
    /// Of a stack: `processor COMMAND`.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn of_stack(stack: &Stack) -> Result<Self> {
        let config = new_dir("operator")?.join("operator.toml");
        fs::write(&config, stack.config("processor", 1))?;
        let arguments = vec!["--config".to_owned(), config.display().to_string()];
        Ok(Self { program: "processor", arguments })
    }

    /// Of the embedded default: `allocator COMMAND`.
    pub fn of_embedded(embedded: &Embedded) -> Self {
        Self::of_data(&embedded.data)
    }

    /// Of the embedded default with its data in `dir`, whether it runs or not.
    pub fn of_data(dir: &Path) -> Self {
        let dir = format!("sqlite.dir={}", dir.display());
        Self { program: "allocator", arguments: vec!["--set".to_owned(), dir] }
    }

    /// Gives a command, which takes its time.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start(&self, command: &[&str]) -> Result<Process> {
        let mut arguments: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        arguments.extend(self.arguments.clone());
        Process::start("operator", &new_dir("operator")?, &binary(self.program)?, &arguments)
    }

    /// Gives a command, and waits until it has come to a good end. What it said.
    ///
    /// # Errors
    /// When it has not in time.
    pub async fn does(&self, command: &[&str], bound: Duration) -> Result<String> {
        ended_well(self.start(command)?, bound).await
    }
}

/// Waits for the end of a command: its exit code, and what it said.
///
/// # Errors
/// When it does not end in time.
pub async fn ended(mut command: Process, bound: Duration) -> Result<(Option<i32>, String)> {
    let status = command.exit(bound).await?;
    Ok((status.code(), command.log()?))
}

/// Waits for the good end of a command. What it said.
///
/// # Errors
/// When it does not end in time, or not well.
pub async fn ended_well(command: Process, bound: Duration) -> Result<String> {
    let (code, said) = ended(command, bound).await?;
    ensure!(code == Some(0), "ended with {code:?}: {said}");
    Ok(said)
}
