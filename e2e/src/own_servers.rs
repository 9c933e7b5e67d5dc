//! Where the servers are: those that everyone shares, or a set of one's own that may be stopped and killed.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::port::is_free;
use crate::process::{Signal, signal, workspace};
use crate::scenario;
use crate::wait::eventually_blocking;

/// Kafka's listener for clients that come through a proxy, counted from the port base.
const KAFKA_BEHIND_PROXY: u16 = 94;
/// Where it tells those clients that it is: where the proxy has to listen.
const KAFKA_PROXY: u16 = 95;
const KILL_PATIENCE: Duration = Duration::from_secs(20);
/// What a server may take to start: a load that spares no processor goes on meanwhile.
const START_SECONDS: &str = "240";
/// What a server may take to put everything in order and end; `local/down` gives it as long.
const END_PATIENCE: Duration = Duration::from_secs(30);

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

/// A server that can be stopped and killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The broker.
    Kafka,
    /// The CQL server.
    Cassandra,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Cassandra => "cassandra",
        }
    }

    /// Where it listens, counted from the port base.
    fn ports(self) -> &'static [u16] {
        match self {
            Self::Kafka => &[92, 93, KAFKA_BEHIND_PROXY],
            Self::Cassandra => &[42, 70],
        }
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
        // Not among the tests' own files: those may be gone before the servers are.
        let dir =
            std::env::temp_dir().join(format!("allocator-e2e-servers-{}", std::process::id()));
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

    /// Where Cassandra listens.
    pub fn cassandra(&self) -> u16 {
        self.port_base + 42
    }

    /// Kafka's listener for clients that come through a proxy.
    pub fn kafka_behind_proxy(&self) -> u16 {
        self.port_base + KAFKA_BEHIND_PROXY
    }

    /// Where Kafka tells those clients that it is: a proxy in between has to listen there.
    pub fn kafka_proxy(&self) -> u16 {
        self.port_base + KAFKA_PROXY
    }

    /// Sends a signal to a server.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, server: Server, which: Signal) -> Result<()> {
        signal(self.pid(server)?, which)
    }

    /// Ends a server at once and waits until its ports are free: its threads take a moment to be gone.
    ///
    /// # Errors
    /// When it does not run, or is not gone after a while.
    pub fn kill(&self, server: Server) -> Result<()> {
        self.signal(server, Signal::Kill)?;
        self.ports_are_free(server)
    }

    /// Asks a server to end and waits until it has: its process may outlast its ports.
    ///
    /// # Errors
    /// When it does not run, or is not gone after a while.
    pub fn terminate(&self, server: Server) -> Result<()> {
        let pid = self.pid(server)?;
        signal(pid, Signal::Term)?;
        eventually_blocking(&format!("{server:?} ends"), END_PATIENCE, || {
            ensure!(!runs(pid), "process {pid} still runs");
            Ok(())
        })?;
        self.ports_are_free(server)
    }

    fn ports_are_free(&self, server: Server) -> Result<()> {
        eventually_blocking(&format!("{server:?} is gone"), KILL_PATIENCE, || {
            let free = server.ports().iter().all(|offset| is_free(self.port_base + offset));
            ensure!(free, "its ports are not free");
            Ok(())
        })
    }

    fn pid(&self, server: Server) -> Result<u32> {
        // It exits with 1 when one server is down, and says all the same where the others are.
        let status = self.command("status").output()?;
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        status
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|columns| columns.first() == Some(&server.name()))
            .and_then(|columns| columns.get(1).and_then(|pid| pid.parse().ok()))
            .with_context(|| format!("{server:?} does not run:\n{status}"))
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
            .env("STACK_START_SECONDS", START_SECONDS)
            .env("STACK_PORT_BASE", self.port_base.to_string())
            .env("STACK_HTTP_BASE", (self.port_base + 200).to_string());
        command
    }
}

/// The first of three hundred ports of which those that the servers need are free.
fn free_port_base() -> Result<u16> {
    (200..320)
        .map(|hundreds| hundreds * 100)
        .find(|base| {
            [42, 70, 79, 90, 92, 93, KAFKA_BEHIND_PROXY, KAFKA_PROXY]
                .iter()
                .all(|offset| is_free(base + offset))
        })
        .context("no free ports for servers of our own")
}

/// A process that nobody has waited for has ended all the same.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}
