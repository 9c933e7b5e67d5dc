//! The load generator for maximum rates: `wrk`, for the services and the baselines alike.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::steady::{WINDOW, until_steady};
use crate::scenario::new_dir;

/// The requests that `wrk` sends.
#[derive(Debug, Clone, Copy)]
pub struct Requests<'a> {
    /// The URL.
    pub url: &'a str,
    /// Number of concurrent connections.
    pub connections: u32,
    /// A Lua script that builds the requests. `None` for plain GETs.
    pub script: Option<&'a str>,
}

impl Requests<'_> {
    /// Sends requests until the rate is steady.
    ///
    /// # Errors
    /// When the rate cannot be measured, or a request fails.
    pub async fn until_steady(&self) -> Result<()> {
        until_steady(async || self.rate(WINDOW).await).await
    }

    /// Measures the maximum requests per second.
    ///
    /// # Errors
    /// When the rate cannot be measured, or a request fails.
    pub async fn rate(&self, duration: Duration) -> Result<f64> {
        self.run(&new_dir("wrk")?, duration).await
    }

    async fn run(&self, dir: &Path, duration: Duration) -> Result<f64> {
        let mut command = Command::new("wrk");
        command
            .args(["--threads", "2", "--timeout", "10s"])
            .args(["--connections", &self.connections.to_string()])
            .args(["--duration", &format!("{}s", duration.as_secs())]);
        if let Some(script) = self.script {
            let file = dir.join("requests.lua");
            std::fs::write(&file, script)?;
            command.arg("--script").arg(file);
        }
        let output = command.arg(self.url).stdin(Stdio::null()).output().await;
        let output = output.context("wrk is not installed: `apt install wrk`")?;
        let report = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk failed: {report}");
        ensure!(
            !report.contains("Non-2xx") && !report.contains("Socket errors"),
            "requests failed: {report}"
        );
        let rate = report.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        Ok(rate.context("wrk reported no rate")?.trim().parse()?)
    }
}
