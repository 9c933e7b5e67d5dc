//! A Redis of one's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::process::{Process, Signal};

/// A Redis of one's own.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    dir: PathBuf,
}

impl Redis {
    pub(crate) fn start(dir: &Path, port: u16) -> Result<Self> {
        Ok(Self { process: Self::spawn(dir, port)?, port, dir: dir.to_owned() })
    }

    fn spawn(dir: &Path, port: u16) -> Result<Process> {
        let port = port.to_string();
        // Nothing is kept over a restart, and nothing compressed, so that tests can search in it.
        let arguments =
            ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"];
        let arguments = arguments.into_iter().chain(["--rdbcompression", "no"]);
        let arguments: Vec<String> = arguments.map(str::to_owned).collect();
        Process::start("redis", dir, Path::new("redis-server"), &arguments)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Asks it to end and expects it to end well.
    ///
    /// # Errors
    /// When it does not within the bound.
    pub async fn terminate(&mut self, bound: Duration) -> Result<()> {
        self.process.signal(Signal::Term)?;
        let status = self.process.exit(bound).await?;
        ensure!(status.success(), "redis ended with {status}");
        Ok(())
    }

    /// Starts it again, empty.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.process = Self::spawn(&self.dir, self.port)?;
        Ok(())
    }
}
