//! The load generator for the highest rates: `wrk`, the same for us and for the bare servers.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::steady::{WINDOW, until_steady};
use crate::scenario::new_dir;

/// What `wrk` is to send.
#[derive(Debug, Clone, Copy)]
pub struct Requests<'a> {
    /// Where to.
    pub url: &'a str,
    /// Connections open at once.
    pub connections: u32,
    /// A Lua script that makes the requests; plain GETs without one.
    pub script: Option<&'a str>,
}

impl Requests<'_> {
    /// Asks as often as possible until that is no longer more often than before.
    ///
    /// # Errors
    /// When it cannot be measured, or an answer is none.
    pub async fn until_steady(&self) -> Result<()> {
        until_steady(async || self.rate(WINDOW).await).await
    }

    /// Answers a second, asked as often as possible.
    ///
    /// # Errors
    /// When it cannot be measured, or an answer is none.
    pub async fn rate(&self, lasts: Duration) -> Result<f64> {
        self.run(&new_dir("wrk")?, lasts).await
    }

    async fn run(&self, dir: &Path, lasts: Duration) -> Result<f64> {
        let mut command = Command::new("wrk");
        command
            .args(["--threads", "2", "--timeout", "10s"])
            .args(["--connections", &self.connections.to_string()])
            .args(["--duration", &format!("{}s", lasts.as_secs())]);
        if let Some(script) = self.script {
            let file = dir.join("requests.lua");
            std::fs::write(&file, script)?;
            command.arg("--script").arg(file);
        }
        let output = command.arg(self.url).stdin(Stdio::null()).output().await;
        let output = output.context("wrk is not installed: `apt install wrk`")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk failed: {said}");
        ensure!(
            !said.contains("Non-2xx") && !said.contains("Socket errors"),
            "requests failed: {said}"
        );
        let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        Ok(rate.context("wrk told no rate")?.trim().parse()?)
    }
}
