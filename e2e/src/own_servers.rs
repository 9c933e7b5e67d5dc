//! Where the servers are: those that everyone shares, or a set of one's own that may be stopped and killed.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Signal, signal, workspace};
use crate::scenario;
use crate::wait::eventually_blocking;

const KILL_PATIENCE: Duration = Duration::from_secs(20);

/// Where Kafka and Cassandra or ScyllaDB are.
#[derive(Debug, Clone)]
pub struct Servers {
    /// `host:port, ...`
    pub kafka: String,
    /// `host:port, ...`
    pub scylla: String,
}

impl Servers {
    /// Those that the environment names.
    ///
    /// # Errors
    /// When it names none.
    pub fn shared() -> Result<Self> {
        let named = |variable: &str| {
            std::env::var(variable).ok().filter(|value| !value.is_empty()).with_context(|| {
                format!(
                    "{variable} is not set: run `local/up servers`, then `eval \"$(local/env)\"`"
                )
            })
        };
        Ok(Self { kafka: named("KAFKA_BROKERS")?, scylla: named("SCYLLA_NODES")? })
    }
}

/// Servers that only this test program uses. They end, and their data goes, with this program.
#[derive(Debug)]
pub struct OwnServers {
    dir: PathBuf,
    port_base: u16,
    /// Where they are.
    pub servers: Servers,
}

impl OwnServers {
    /// Starts them.
    ///
    /// # Errors
    /// When they do not start.
    pub fn start() -> Result<Self> {
        let dir = scenario::new_dir("servers")?;
        let port_base = free_port_base()?;
        let down = workspace().join("local/down");
        scenario::at_exit("STACK_DIR=\"$1\" \"$2\" --wipe", &[&dir, &down])?;
        let servers = Servers {
            kafka: format!("127.0.0.1:{}", port_base + 92),
            scylla: format!("127.0.0.1:{}", port_base + 42),
        };
        let own = Self { dir, port_base, servers };
        own.start_missing()?;
        Ok(own)
    }

    /// Starts those that do not run.
    ///
    /// # Errors
    /// When they do not start.
    pub fn start_missing(&self) -> Result<()> {
        self.run("up", &["servers"]).map(|_| ())
    }

    /// Sends a signal to the server `name`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, name: &str, which: Signal) -> Result<()> {
        signal(self.pid(name)?, which)
    }

    /// Ends the server `name` at once and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run, or is not gone after a while.
    pub fn kill(&self, name: &str) -> Result<()> {
        let pid = self.pid(name)?;
        signal(pid, Signal::Kill)?;
        eventually_blocking(&format!("{name} is gone"), KILL_PATIENCE, || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let dead =
                stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['Z', 'X']));
            ensure!(dead, "process {pid} is still there");
            Ok(())
        })
    }

    fn pid(&self, name: &str) -> Result<u32> {
        // It exits with 1 when one server is down, and says all the same where the others are.
        let status = self.command("status").output()?;
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        status
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|columns| columns.first() == Some(&name))
            .and_then(|columns| columns.get(1).and_then(|pid| pid.parse().ok()))
            .with_context(|| format!("{name} does not run:\n{status}"))
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Result<Output> {
        let output = self.command(command).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "local/{command} failed: {said}");
        Ok(output)
    }

    fn command(&self, command: &str) -> Command {
        let mut command = Command::new(workspace().join("local").join(command));
        command
            .env("STACK_DIR", &self.dir)
            .env("STACK_PORT_BASE", self.port_base.to_string())
            .env("STACK_HTTP_BASE", (self.port_base + 200).to_string());
        command
    }
}

/// The first of three hundred ports of which those that the servers need are free.
fn free_port_base() -> Result<u16> {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (200..320)
        .map(|hundreds| hundreds * 100)
        .find(|base| [42, 70, 79, 90, 92, 93].iter().all(|offset| free(base + offset)))
        .context("no free ports for servers of our own")
}
