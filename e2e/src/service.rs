//! One of our processes, on an address that it keeps over restarts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Client;

use crate::process::{Process, Signal};

const START_PATIENCE: Duration = Duration::from_secs(40);

/// One of our processes, on an address that it keeps over restarts.
#[derive(Debug)]
pub struct Service {
    /// Its address.
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

    /// Its kind and number, as in the logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts it again after it has ended, and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = Process::start_with(
            &self.name,
            &self.dir,
            &self.program,
            &self.arguments,
            &self.environment,
        )?;
        Ok(())
    }

    /// Starts it again after it has ended, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.start_again()?;
        self.ready().await
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn ready(&mut self) -> Result<()> {
        let url = format!("{}/readyz", self.url);
        self.process.ready(&url, START_PATIENCE).await
    }

    /// Asks it to end and expects it to end well.
    ///
    /// # Errors
    /// When it does not within the bound, or with another code than 0.
    pub async fn terminate(&mut self, bound: Duration) -> Result<()> {
        self.process.signal(Signal::Term)?;
        let status = self.process.exit(bound).await?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    /// The sum of the samples of its metrics that begin with `prefix`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, prefix: &str) -> Result<f64> {
        let request =
            Client::new().get(format!("{}/metrics", self.url)).timeout(Duration::from_secs(2));
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
