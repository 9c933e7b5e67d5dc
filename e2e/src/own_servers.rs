//! Where the servers are: those that everyone shares, or a set of one's own that may be stopped and killed.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::process::{Signal, signal, workspace};
use crate::scenario;

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
        // It exits with 1 when one server is down, and says all the same where the others are.
        let status = self.command("status").output()?;
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        let pid = status
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|columns| columns.first() == Some(&name))
            .and_then(|columns| columns.get(1).and_then(|pid| pid.parse().ok()))
            .with_context(|| format!("{name} does not run:\n{status}"))?;
        signal(pid, which)
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
