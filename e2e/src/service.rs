//! A service process that keeps its address over restarts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Process, Signal};

const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A service process that keeps its address over restarts.
#[derive(Debug)]
pub struct Service {
    /// The base URL.
    pub url: String,
    /// The process.
    pub process: Process,
    name: String,
    dir: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Service {
    pub(crate) fn start(
        name: String,
        dir: &Path,
        program: PathBuf,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        url: String,
    ) -> Result<Self> {
        let process = Process::start_with(&name, dir, &program, &arguments, &environment)?;
        Ok(Self { url, process, name, dir: dir.to_owned(), program, arguments, environment })
    }

    /// Kind and number, as in the logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Uses another build of the program from its next start on.
    pub fn set_program(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Starts the process again after it has exited, without waiting for readiness.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn respawn(&mut self) -> Result<()> {
        self.process = Process::start_with(
            &self.name,
            &self.dir,
            &self.program,
            &self.arguments,
            &self.environment,
        )?;
        Ok(())
    }

    /// Starts the process again after it has exited and waits until it is ready.
    ///
    /// # Errors
    /// When the service does not become ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.respawn()?;
        self.ready().await
    }

    /// Waits until the service is ready.
    ///
    /// # Errors
    /// When the service does not become ready in time.
    pub async fn ready(&mut self) -> Result<()> {
        let url = format!("{}/readyz", self.url);
        self.process.ready(&url, START_TIMEOUT).await
    }

    /// Sends SIGTERM and expects exit code 0.
    ///
    /// # Errors
    /// When the process does not exit within `timeout`, or with another code.
    pub async fn terminate(&mut self, timeout: Duration) -> Result<()> {
        self.process.signal(Signal::Term)?;
        let status = self.process.exit(timeout).await?;
        ensure!(status.success(), "{} exited with {status}", self.name);
        Ok(())
    }

    /// Sums the metric samples that start with `prefix`.
    ///
    /// # Errors
    /// When the service does not respond.
    pub async fn metric(&self, prefix: &str) -> Result<f64> {
        let request = crate::http_client::builder()
            .build()?
            .get(format!("{}/metrics", self.url))
            .timeout(Duration::from_secs(2));
        let text = request.send().await?.text().await?;
        let samples = text.lines().filter(|line| line.starts_with(prefix));
        samples
            .map(|line| {
                let value = line.rsplit(' ').next().unwrap_or_default();
                value.parse::<f64>().with_context(|| format!("not a sample: {line}"))
            })
            .sum()
    }
}
