//! A dedicated Redis server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::process::{Process, Signal};

/// A dedicated Redis server.
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
        // No persistence, and no compression, so that tests can search the dumped values.
        let arguments =
            ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"];
        let arguments = arguments.into_iter().chain(["--rdbcompression", "no"]);
        let arguments: Vec<String> = arguments.map(str::to_owned).collect();
        Process::start("redis", dir, Path::new("redis-server"), &arguments)
    }

    /// The URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills the server.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Terminates the server gracefully and expects exit code 0.
    ///
    /// # Errors
    /// When it does not exit within `timeout`.
    pub async fn terminate(&mut self, timeout: Duration) -> Result<()> {
        self.process.signal(Signal::Term)?;
        let status = self.process.exit(timeout).await?;
        ensure!(status.success(), "redis exited with {status}");
        Ok(())
    }

    /// Starts the server again, empty.
    ///
    /// # Errors
    /// When the server cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.process = Self::spawn(&self.dir, self.port)?;
        Ok(())
    }
}
