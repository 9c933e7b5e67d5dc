//! A running nginx, which is stopped with its workers.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::process::{Process, Signal};
use crate::wait::eventually_blocking;

const START_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
}

impl Nginx {
    /// Starts a program that becomes nginx in the foreground, and waits until `ready_url` responds.
    ///
    /// # Errors
    /// When nginx does not start.
    pub async fn start<'a>(
        name: &str,
        dir: &Path,
        program: &'a str,
        arguments: impl IntoIterator<Item = &'a str>,
        ready_url: &str,
    ) -> Result<Self> {
        // SIGKILL would leave the workers running, so nginx gets SIGTERM when this program exits.
        let arguments = ["--pdeathsig", "TERM", program].into_iter().chain(arguments);
        let arguments: Vec<String> = arguments.map(str::to_owned).collect();
        let process = Process::start(name, dir, Path::new("setpriv"), &arguments)?;
        let mut nginx = Self { process };
        nginx.process.ready(ready_url, START_TIMEOUT).await?;
        Ok(nginx)
    }

    /// The process id of the master process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Terminates nginx with its workers gracefully. After the timeout the process is killed.
impl Drop for Nginx {
    fn drop(&mut self) {
        if self.process.signal(Signal::Term).is_ok() {
            let _ = eventually_blocking("nginx exits", STOP_TIMEOUT, || {
                ensure!(self.process.exit_status()?.is_some(), "it is still running");
                Ok(())
            });
        }
    }
}
