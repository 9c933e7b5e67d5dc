//! The local stack: `local/up all`, killed processes, `local/status`, `local/up all` again, and `local/down`.
//!
//! Nothing is left running after `local/down`. A port in use by another program is reported.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::port::is_free;
use e2e::process::{Signal, binary, signal, workspace};
use e2e::response::{receipt, send};
use e2e::scenario::{at_exit, scenario, scenario_within};
use e2e::system::System;
use e2e::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

/// Two starts of the whole stack, on a machine with other load.
const SCENARIO_TIMEOUT: Duration = Duration::from_secs(300);
/// Bounds asynchronous steps: the group rebalances, Prometheus scrapes again.
const STATE_TIMEOUT: Duration = Duration::from_secs(60);
const KILLED: [&str; 3] = ["ingest-1", "processor-2", "gateway"];
const SERVERS: usize = 4;
const SERVICES: usize = 7;
const GATEWAY: usize = 1;
const BUDGET: &str = "/v1/budgets/taxes";

/// Offsets from the port bases, as in `local/README.md`.
const SERVERS_PORTS: [u16; 7] = [42, 70, 79, 90, 92, 93, 94];
const HTTP_PORTS: [u16; 8] = [0, 1, 2, 3, 11, 12, 13, 23];
const PROMETHEUS: u16 = 90;
const API_2: u16 = 12;

/// A stack with its own state directory and ports. It is stopped and wiped when this program exits.
struct LocalStack {
    dir: PathBuf,
    /// The folder of the service binaries that were built with the tests.
    bin_dir: PathBuf,
    servers_base: u16,
    http_base: u16,
}

impl LocalStack {
    fn new(name: &str) -> Result<Self> {
        let temp = fs::canonicalize(std::env::temp_dir())?;
        let dir = temp.join(format!("allocator-e2e-stack-{name}-{}", std::process::id()));
        at_exit("STACK_DIR=\"$1\" \"$2\" --wipe", &[&dir, &workspace().join("local/down")])?;
        let bin_dir =
            binary("ingest")?.parent().context("the program has no parent folder")?.to_owned();
        let (servers_base, http_base) = free_bases()?;
        Ok(Self { dir, bin_dir, servers_base, http_base })
    }

    async fn run(&self, command: &str, arguments: &[&str]) -> Result<Output> {
        let program = workspace().join("local").join(command);
        let output = Command::new(program)
            .args(arguments)
            .env("STACK_DIR", &self.dir)
            .env("STACK_BIN_DIR", &self.bin_dir)
            .env("STACK_PORT_BASE", self.servers_base.to_string())
            .env("STACK_HTTP_BASE", self.http_base.to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        Ok(output.await?)
    }

    /// Runs a command that must succeed.
    async fn run_ok(&self, command: &str, arguments: &[&str]) -> Result<()> {
        let output = self.run(command, arguments).await?;
        ensure!(output.status.success(), "local/{command} {arguments:?}: {}", describe(&output));
        Ok(())
    }

    async fn status(&self) -> Result<Status> {
        let output = self.run("status", &[]).await?;
        let table = String::from_utf8(output.stdout)?;
        Ok(Status { code: output.status.code(), table })
    }

    /// Waits until `local/status` reports that everything is up.
    async fn wait_until_up(&self) -> Result<()> {
        eventually("all of the stack is up", STATE_TIMEOUT, async || {
            let status = self.status().await?;
            ensure!(status.code == Some(0), "local/status exits with {status:?}");
            Ok(())
        })
        .await
    }

    /// Creates a client of the gateway.
    fn system(&self) -> Result<System> {
        let gateway = format!("http://127.0.0.1:{}", self.http_base);
        System::new(vec![gateway.clone()], vec![gateway])
    }

    /// Queries the stack's Prometheus.
    async fn prometheus(&self, path: &str) -> Result<Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.servers_base + PROMETHEUS);
        send(self.system()?.request(Method::GET, url)).await?.expect(200)?.json()
    }

    /// Lists the running processes of this stack.
    fn processes(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let process = entry?.path();
            if self.owns(&process) {
                let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
                found.push(format!("{} ({})", process.display(), name.trim()));
            }
        }
        Ok(found)
    }

    /// Returns whether a process belongs to this stack.
    ///
    /// Servers run in the stack's folder; their helpers have its path in their environment. A process that cannot be
    /// read has ended or belongs to another user.
    fn owns(&self, process: &Path) -> bool {
        let variable = [b"STACK_DIR=", self.dir.as_os_str().as_bytes()].concat();
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        fs::read_link(process.join("cwd")).is_ok_and(|folder| folder.starts_with(&self.dir))
            || environment.split(|byte| *byte == 0).any(|entry| entry == variable)
    }

    fn check_nothing_is_left(&self) -> Result<()> {
        let left = self.processes()?;
        ensure!(left.is_empty(), "still running: {left:?}");
        Ok(())
    }
}

/// The output of `local/status`: a line per process with name, pid, port and state.
#[derive(Debug)]
struct Status {
    code: Option<i32>,
    table: String,
}

impl Status {
    fn column(&self, name: &str, column: usize) -> Result<&str> {
        let mut lines = self.table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.find(|line| line.first() == Some(&name));
        let cell = line.and_then(|line| line.get(column).copied());
        cell.with_context(|| {
            format!("local/status has no column {column} for {name}:\n{}", self.table)
        })
    }

    fn pid(&self, name: &str) -> Result<u32> {
        Ok(self.column(name, 1)?.parse()?)
    }

    fn state(&self, name: &str) -> Result<&str> {
        self.column(name, 3)
    }
}

fn describe(output: &Output) -> String {
    format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
}

/// Finds port bases for servers and services, with all ports of a stack free.
///
/// Below the ephemeral ports of the system, and apart from the ports of other tests.
fn free_bases() -> Result<(u16, u16)> {
    (100..118)
        .map(|hundreds| (hundreds * 100, hundreds * 100 + 100))
        .find(|(servers, http)| {
            let ports = SERVERS_PORTS.map(|offset| servers + offset).into_iter();
            ports.chain(HTTP_PORTS.map(|offset| http + offset)).all(is_free)
        })
        .context("no free ports for a stack")
}

/// Submits once for each person.
async fn submit(system: &System, people: std::ops::Range<u64>) -> Result<()> {
    for number in people {
        let allocation = json!({"health": 40, "education": 35.5, "defence": 24.5});
        let body = json!({"person": format!("p-{number}"), "allocation": allocation});
        // A submission is refused until every ingest has read the budget's definition.
        eventually("a submission is accepted", STATE_TIMEOUT, async || {
            receipt(&system.post(&format!("{BUDGET}/submissions"), &body).await?)
        })
        .await?;
    }
    Ok(())
}

async fn wait_until_counted(system: &System, people: u64) -> Result<()> {
    eventually(&format!("{people} people are counted"), STATE_TIMEOUT, async || {
        let shown = system.get(&format!("{BUDGET}/aggregate")).await?.expect(200)?.json()?;
        ensure!(shown["people"] == people, "{} people are counted", shown["people"]);
        Ok(())
    })
    .await
}

/// Checks that Prometheus has the alert rules, and waits until it sees every service ready.
async fn wait_until_monitored(stack: &LocalStack) -> Result<()> {
    let rules = stack.prometheus("/api/v1/rules").await?;
    ensure!(rules.to_string().contains("\"ServiceNotReady\""), "no alerts: {rules}");
    eventually("Prometheus sees all services ready", STATE_TIMEOUT, async || {
        let answer = stack.prometheus("/api/v1/query?query=sum(allocator_ready)").await?;
        let ready = &answer["data"]["result"][0]["value"][1];
        let ready = ready.as_str().context("no service reports that it is ready")?;
        ensure!(ready.parse() == Ok(SERVICES), "{ready} services are ready");
        Ok(())
    })
    .await
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_started() {
    scenario(async || {
        let stack = LocalStack::new("taken")?;
        let port = stack.http_base + API_2;
        // Killing the process that holds this port would kill this test.
        let foreign = TcpListener::bind(("127.0.0.1", port))?;
        let up = stack.run("up", &["all"]).await?;
        ensure!(up.status.code() == Some(1), "local/up: {}", describe(&up));
        ensure!(
            describe(&up).contains(&format!("port {port}, needed by api-2")),
            "{}",
            describe(&up)
        );
        TcpStream::connect(("127.0.0.1", port)).context("the listener is gone")?;
        drop(foreign);
        stack.check_nothing_is_left()
    });
}

#[test]
fn a_stack_recovers_after_crashes_and_leaves_nothing_running() {
    scenario_within(SCENARIO_TIMEOUT, async || {
        let stack = LocalStack::new("whole")?;
        let system = stack.system()?;
        stack.run_ok("up", &["all"]).await?;
        stack.wait_until_up().await?;
        submit(&system, 0..20).await?;
        wait_until_counted(&system, 20).await?;
        wait_until_monitored(&stack).await?;

        let status = stack.status().await?;
        for name in KILLED {
            signal(status.pid(name)?, Signal::Kill)?;
        }
        eventually("local/status reports the killed processes", STATE_TIMEOUT, async || {
            let status = stack.status().await?;
            ensure!(status.code == Some(1), "{status:?}");
            for name in KILLED {
                ensure!(status.state(name)? == "down", "{status:?}");
            }
            Ok(())
        })
        .await?;

        stack.run_ok("up", &["all"]).await?;
        stack.wait_until_up().await?;
        wait_until_counted(&system, 20).await?;
        submit(&system, 20..25).await?;
        wait_until_counted(&system, 25).await?;

        let (running, all) = (stack.processes()?, SERVERS + SERVICES + GATEWAY);
        ensure!(running.len() >= all, "only these processes were found: {running:?}");
        stack.run_ok("down", &[]).await?;
        stack.check_nothing_is_left()
    });
}
