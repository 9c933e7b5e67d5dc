//! The servers of the tests: shared ones, or dedicated ones that a test may stop and kill.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;

use crate::port::is_free;
use crate::process::{Signal, signal, workspace};
use crate::scenario;
use crate::wait::eventually_blocking;

/// Offset of Kafka's listener for clients behind a proxy, from the port base.
const KAFKA_BEHIND_PROXY: u16 = 94;
/// Offset of the port that Kafka advertises to those clients, where the proxy must listen.
const KAFKA_PROXY: u16 = 95;
const KILL_TIMEOUT: Duration = Duration::from_secs(20);
/// Start timeout of a server, in seconds. Long, because a load uses all CPUs meanwhile.
const START_SECONDS: &str = "240";
/// Timeout for a graceful exit, the same as in `local/down`.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(30);

/// The addresses of Kafka and of Cassandra or ScyllaDB.
#[derive(Debug, Clone)]
pub struct Servers {
    /// `host:port, ...`
    pub kafka: String,
    /// `host:port, ...`
    pub scylla: String,
}

impl Servers {
    /// Reads the addresses of the shared servers from the environment.
    ///
    /// # Errors
    /// When a variable is not set.
    pub fn shared() -> Result<Self> {
        let read = |variable: &str| {
            std::env::var(variable).ok().filter(|value| !value.is_empty()).with_context(|| {
                format!(
                    "{variable} is not set: run `local/up servers`, then `eval \"$(local/env)\"`"
                )
            })
        };
        Ok(Self { kafka: read("KAFKA_BROKERS")?, scylla: read("SCYLLA_NODES")? })
    }
}

/// A server that a test can stop and kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The broker, or the first of three.
    Kafka,
    /// The second of three brokers.
    Kafka2,
    /// The third of three brokers.
    Kafka3,
    /// The CQL server.
    Cassandra,
}

/// The brokers of a cluster of three, by node id from 1.
pub const BROKERS: [Server; 3] = [Server::Kafka, Server::Kafka2, Server::Kafka3];

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Kafka2 => "kafka-2",
            Self::Kafka3 => "kafka-3",
            Self::Cassandra => "cassandra",
        }
    }

    /// Offsets of the ports that the server listens on, from the port base.
    fn ports(self) -> &'static [u16] {
        match self {
            Self::Kafka => &[92, 93, KAFKA_BEHIND_PROXY],
            Self::Kafka2 => &[82, 83],
            Self::Kafka3 => &[62, 63],
            Self::Cassandra => &[42, 70],
        }
    }
}

/// Servers of this test program only. They stop and their data is deleted when the program exits.
#[derive(Debug)]
pub struct OwnServers {
    dir: PathBuf,
    port_base: u16,
    brokers: usize,
    /// The addresses.
    pub servers: Servers,
}

impl OwnServers {
    /// Starts the servers, with one broker.
    ///
    /// # Errors
    /// When a server does not start.
    pub fn start() -> Result<Self> {
        Self::start_with_brokers(1)
    }

    /// Returns servers with three brokers, which all drills of a program share. Starts those that are not running.
    ///
    /// # Errors
    /// When a server does not start.
    pub fn shared_with_three_brokers() -> Result<&'static Self> {
        static SHARED: Mutex<Option<&'static OwnServers>> = Mutex::new(None);
        let mut shared = SHARED.lock();
        match *shared {
            Some(own) => own.start_missing().map(|()| own),
            None => {
                Ok(shared.insert(Box::leak(Box::new(Self::start_with_brokers(BROKERS.len())?))))
            }
        }
    }

    fn start_with_brokers(brokers: usize) -> Result<Self> {
        // Not in the tests' work directory, which may be deleted before the servers have stopped.
        let name = format!("allocator-e2e-servers-{}-{brokers}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let port_base = free_port_base()?;
        let down = workspace().join("local/down");
        scenario::at_exit("STACK_DIR=\"$1\" \"$2\" --wipe", &[&dir, &down])?;
        let addresses = BROKERS[..brokers]
            .iter()
            .map(|broker| format!("127.0.0.1:{}", port_base + broker.ports()[0]));
        let servers = Servers {
            kafka: addresses.collect::<Vec<_>>().join(","),
            scylla: format!("127.0.0.1:{}", port_base + 42),
        };
        let own = Self { dir, port_base, brokers, servers };
        own.start_missing()?;
        Ok(own)
    }

    /// Starts the servers that are not running.
    ///
    /// # Errors
    /// When a server does not start.
    pub fn start_missing(&self) -> Result<()> {
        self.run("up", &["servers"]).map(|_| ())
    }

    /// Cassandra's port.
    pub fn cassandra(&self) -> u16 {
        self.port_base + 42
    }

    /// Kafka's port for clients behind a proxy.
    pub fn kafka_behind_proxy(&self) -> u16 {
        self.port_base + KAFKA_BEHIND_PROXY
    }

    /// The port that Kafka advertises to those clients, where the proxy must listen.
    pub fn kafka_proxy(&self) -> u16 {
        self.port_base + KAFKA_PROXY
    }

    /// Sends a signal to a server.
    ///
    /// # Errors
    /// When the server is not running.
    pub fn signal(&self, server: Server, which: Signal) -> Result<()> {
        signal(self.pid(server)?, which)
    }

    /// Kills a server and waits until its ports are free.
    ///
    /// # Errors
    /// When the server is not running, or its ports stay in use.
    pub fn kill(&self, server: Server) -> Result<()> {
        self.signal(server, Signal::Kill)?;
        self.wait_until_ports_are_free(server)
    }

    /// Terminates a server gracefully and waits until its process has exited and its ports are free.
    ///
    /// # Errors
    /// When the server is not running, or does not exit in time.
    pub fn terminate(&self, server: Server) -> Result<()> {
        let pid = self.pid(server)?;
        signal(pid, Signal::Term)?;
        eventually_blocking(&format!("{server:?} exits"), TERMINATE_TIMEOUT, || {
            ensure!(!is_running(pid), "process {pid} is still running");
            Ok(())
        })?;
        self.wait_until_ports_are_free(server)
    }

    /// Copies Cassandra's files while the server is stopped, and starts it again.
    ///
    /// # Errors
    /// When the server does not stop or start, or the files cannot be copied.
    pub fn snapshot_cassandra(&self) -> Result<()> {
        self.terminate(Server::Cassandra)?;
        self.copy_cassandra("cassandra", "cassandra-snapshot")?;
        self.start_missing()
    }

    /// Replaces Cassandra's files by the last snapshot while the server is stopped, and starts it again.
    ///
    /// # Errors
    /// When there is no snapshot, or the server does not stop or start.
    pub fn restore_cassandra(&self) -> Result<()> {
        self.terminate(Server::Cassandra)?;
        self.copy_cassandra("cassandra-snapshot", "cassandra")?;
        self.start_missing()
    }

    fn copy_cassandra(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.dir.join(from), self.dir.join(to));
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        let copied = Command::new("cp").arg("-a").arg(&from).arg(&to).status()?;
        ensure!(copied.success(), "cannot copy {} to {}", from.display(), to.display());
        Ok(())
    }

    fn wait_until_ports_are_free(&self, server: Server) -> Result<()> {
        eventually_blocking(&format!("the ports of {server:?} are free"), KILL_TIMEOUT, || {
            let free = server.ports().iter().all(|offset| is_free(self.port_base + offset));
            ensure!(free, "some ports are still in use");
            Ok(())
        })
    }

    fn pid(&self, server: Server) -> Result<u32> {
        // The exit code is 1 when any server is down. The output still lists the others.
        let status = self.command("status").output()?;
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        status
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|columns| columns.first() == Some(&server.name()))
            .and_then(|columns| columns.get(1).and_then(|pid| pid.parse().ok()))
            .with_context(|| format!("{server:?} is not running:\n{status}"))
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Result<Output> {
        let output = self.command(command).args(arguments).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "local/{command} failed: {stderr}");
        Ok(output)
    }

    fn command(&self, command: &str) -> Command {
        let mut command = Command::new(workspace().join("local").join(command));
        command
            .env("STACK_DIR", &self.dir)
            .env("STACK_BROKERS", self.brokers.to_string())
            .env("STACK_START_SECONDS", START_SECONDS)
            .env("STACK_PORT_BASE", self.port_base.to_string())
            .env("STACK_HTTP_BASE", (self.port_base + 200).to_string());
        command
    }
}

/// Stops the servers, so that the next ones have the machine for themselves. They are stopped at the program's end as well.
impl Drop for OwnServers {
    fn drop(&mut self) {
        if let Err(error) = self.run("down", &["--wipe"]) {
            eprintln!("cannot stop the servers in {}: {error:#}", self.dir.display());
        }
    }
}

/// Finds a port base at which all ports of the servers are free.
fn free_port_base() -> Result<u16> {
    (200..320)
        .map(|hundreds| hundreds * 100)
        .find(|base| {
            [42, 62, 63, 70, 79, 82, 83, 90, 92, 93, KAFKA_BEHIND_PROXY, KAFKA_PROXY]
                .iter()
                .all(|offset| is_free(base + offset))
        })
        .context("no free ports for dedicated servers")
}

/// Whether a process is running. A zombie has exited.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}
