//! Runs operator commands against a running deployment.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::embedded::Embedded;
use crate::process::{Process, binary};
use crate::scenario::new_dir;
use crate::stack::Stack;

/// The binary and the configuration of operator commands.
pub struct Operator {
    program: &'static str,
    /// The folder of the program; `None`: that of all tests.
    folder: Option<PathBuf>,
    arguments: Vec<String>,
}

impl Operator {
    /// Runs `processor COMMAND` for a stack.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn for_stack(stack: &Stack) -> Result<Self> {
        Self::of("processor", stack)
    }

    /// Runs `processor COMMAND` for a stack, of the release whose programs are in `folder`.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn of_release(stack: &Stack, folder: &Path) -> Result<Self> {
        Ok(Self { folder: Some(folder.to_owned()), ..Self::for_stack(stack)? })
    }

    /// Runs `allocator COMMAND` for a stack.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn with_allocator(stack: &Stack) -> Result<Self> {
        Self::of("allocator", stack)
    }

    fn of(program: &'static str, stack: &Stack) -> Result<Self> {
        let config = new_dir("operator")?.join("operator.toml");
        fs::write(&config, stack.config("processor", 1))?;
        let arguments = vec!["--config".to_owned(), config.display().to_string()];
        Ok(Self { program, folder: None, arguments })
    }

    /// Runs `allocator COMMAND` for an embedded process.
    pub fn for_embedded(embedded: &Embedded) -> Self {
        Self::for_data_dir(&embedded.data)
    }

    /// Runs `allocator COMMAND` for a data directory, with or without a running process.
    pub fn for_data_dir(dir: &Path) -> Self {
        let dir = format!("sqlite.dir={}", dir.display());
        Self { program: "allocator", folder: None, arguments: vec!["--set".to_owned(), dir] }
    }

    /// Starts a command without waiting for it.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn start(&self, command: &[&str]) -> Result<Process> {
        let mut arguments: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        arguments.extend(self.arguments.clone());
        let program = match &self.folder {
            Some(folder) => folder.join(self.program),
            None => binary(self.program)?,
        };
        Process::start("operator", &new_dir("operator")?, &program, &arguments)
    }

    /// Runs a command to a successful exit and returns its output.
    ///
    /// # Errors
    /// When the command fails or does not exit within `timeout`.
    pub async fn run(&self, command: &[&str], timeout: Duration) -> Result<String> {
        expect_success(self.start(command)?, timeout).await
    }
}

/// Waits for the exit of a command and returns its exit code and output.
///
/// # Errors
/// When the command does not exit within `timeout`.
pub async fn wait_for_exit(
    mut command: Process,
    timeout: Duration,
) -> Result<(Option<i32>, String)> {
    let status = command.exit(timeout).await?;
    Ok((status.code(), command.log()?))
}

/// Waits for the successful exit of a command and returns its output.
///
/// # Errors
/// When the command fails or does not exit within `timeout`.
pub async fn expect_success(command: Process, timeout: Duration) -> Result<String> {
    let (code, output) = wait_for_exit(command, timeout).await?;
    ensure!(code == Some(0), "exited with {code:?}: {output}");
    Ok(output)
}
