//! Child processes: start with the output in a file, signal, wait. They are killed when this program ends for any
//! reason.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;

use crate::scenario;
use crate::wait::{eventually, eventually_blocking};

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A signal for a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Terminate gracefully.
    Term,
    /// Terminate immediately.
    Kill,
    /// Suspend.
    Stop,
    /// Resume.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// Sends a signal. After `Stop`, the process is suspended when this returns.
///
/// # Errors
/// When there is no such process.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let sent =
        Command::new("kill").arg(format!("-{}", signal.name())).arg(pid.to_string()).status()?;
    ensure!(sent.success(), "SIG{} did not reach process {pid}", signal.name());
    if signal == Signal::Stop { wait_until_suspended(pid) } else { Ok(()) }
}

/// Waits until every thread is suspended. On a busy machine some keep running for a moment.
fn wait_until_suspended(pid: u32) -> Result<()> {
    eventually_blocking(&format!("process {pid} is suspended"), STOP_TIMEOUT, || {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let stat = fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            ensure!(state.is_empty() || state.starts_with('T'), "a thread is still running");
        }
        Ok(())
    })
}

/// A child process, killed on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output in `<dir>/<name>.log`.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(name: &str, dir: &Path, program: &Path, arguments: &[String]) -> Result<Self> {
        Self::start_with(name, dir, program, arguments, &[])
    }

    /// Starts a program with additional environment variables.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_with(
        name: &str,
        dir: &Path,
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().cloned())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child =
            spawn(command).with_context(|| format!("cannot start {}", program.display()))?;
        scenario::register_log(name, &log);
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The name in the logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads everything that the process has written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has exited.
    pub fn signal(&self, which: Signal) -> Result<()> {
        signal(self.pid(), which)
    }

    /// Kills the process and waits until it has exited.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The exit status, if the process has exited.
    ///
    /// # Errors
    /// When the status cannot be read.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until the process exits by itself.
    ///
    /// # Errors
    /// When the process does not exit within `timeout`.
    pub async fn exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        eventually(&format!("{name} exits"), timeout, async || {
            self.exit_status()?.with_context(|| format!("{name} is still running"))
        })
        .await
    }

    /// Waits until `url` responds with a success status.
    ///
    /// # Errors
    /// When it does not within `timeout`, or the process has exited.
    pub async fn ready(&mut self, url: &str, timeout: Duration) -> Result<()> {
        let client = crate::http_client::builder().build()?;
        let name = self.name.clone();
        let outcome = eventually(&format!("{name} is ready"), timeout, async || {
            if let Some(status) = self.exit_status()? {
                return Ok(Err(status));
            }
            let response = client.get(url).timeout(Duration::from_secs(1)).send().await?;
            let status = response.status();
            let body = response.text().await.unwrap_or_default();
            ensure!(status.is_success(), "{url} returned {status}: {body}");
            Ok(Ok(()))
        })
        .await?;
        match outcome {
            Ok(()) => Ok(()),
            Err(status) => bail!("{name} exited while starting: {status}"),
        }
    }

    /// CPU time used so far, user and system, in seconds.
    ///
    /// # Errors
    /// When the process has exited.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let (_, fields) = stat.rsplit_once(')').context("unknown format of /proc/PID/stat")?;
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap_or(0))
            .sum();
        // USER_HZ is 100 on every Linux that Rust runs on.
        Ok(ticks as f64 / 100.0)
    }

    /// Current resident memory, in bytes.
    ///
    /// # Errors
    /// When the process has exited.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// Peak resident memory, in bytes.
    ///
    /// # Errors
    /// When the process has exited.
    pub fn peak_resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = line
            .and_then(|line| line.split_whitespace().next())
            .context("no memory in /proc/PID/status")?;
        Ok(kilobytes.parse::<u64>()? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
        scenario::mark_log_ended(&self.log);
    }
}

/// Spawns from a thread that never exits, because `--pdeathsig` fires when the spawning thread exits.
fn spawn(command: Command) -> Result<Child> {
    type Request = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(requests)
    });
    let (reply, child) = mpsc::channel();
    spawner.lock().send((command, reply))?;
    Ok(child.recv()??)
}

/// The path of one of the project's binaries.
///
/// # Errors
/// When the binary is not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let dir = std::env::var_os("ALLOCATOR_BIN_DIR")
        .map_or_else(|| workspace().join("target/release"), PathBuf::from);
    let path = dir.join(name);
    ensure!(path.is_file(), "{} is missing: run `make build`", path.display());
    Ok(fs::canonicalize(path)?)
}

/// The root directory of the workspace.
pub fn workspace() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().unwrap_or(crate_dir).to_owned()
}
