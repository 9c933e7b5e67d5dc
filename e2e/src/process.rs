//! Child processes: started with their output in a file, signalled, waited for, and ended when this program ends, in
//! whatever way it does.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::scenario;
use crate::wait::{eventually, eventually_blocking};

const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What is sent to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End in good order.
    Term,
    /// End at once.
    Kill,
    /// Stand still.
    Stop,
    /// Go on.
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

/// Sends a signal; one to stop has taken effect when this returns.
///
/// # Errors
/// When there is no such process.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let sent =
        Command::new("kill").arg(format!("-{}", signal.name())).arg(pid.to_string()).status()?;
    ensure!(sent.success(), "SIG{} did not reach process {pid}", signal.name());
    if signal == Signal::Stop { stands_still(pid) } else { Ok(()) }
}

/// Waits until every thread of a process has stopped: on a busy machine some run on for a moment.
fn stands_still(pid: u32) -> Result<()> {
    eventually_blocking(&format!("process {pid} stands still"), STOP_PATIENCE, || {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let stat = fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            ensure!(state.is_empty() || state.starts_with('T'), "a thread still runs");
        }
        Ok(())
    })
}

/// A child process. Killed when dropped.
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
    /// When it cannot be started.
    pub fn start(name: &str, dir: &Path, program: &Path, arguments: &[String]) -> Result<Self> {
        Self::start_with(name, dir, program, arguments, &[])
    }

    /// As [`Self::start`], with more variables in its environment.
    ///
    /// # Errors
    /// When it cannot be started.
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

    /// Its name in the logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, which: Signal) -> Result<()> {
        signal(self.pid(), which)
    }

    /// Ends it at once and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it has not within the bound.
    pub async fn exit(&mut self, bound: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), bound, async || {
            self.ended()?.with_context(|| format!("{name} still runs"))
        })
        .await
    }

    /// Waits until `url` answers 200.
    ///
    /// # Errors
    /// When it does not within the bound, or the process has ended.
    pub async fn ready(&mut self, url: &str, bound: Duration) -> Result<()> {
        let client = reqwest::Client::new();
        let name = self.name.clone();
        let outcome = eventually(&format!("{name} is ready"), bound, async || {
            if let Some(status) = self.ended()? {
                return Ok(Err(status));
            }
            let answer = client.get(url).timeout(Duration::from_secs(1)).send().await?;
            let status = answer.status();
            let body = answer.text().await.unwrap_or_default();
            ensure!(status.is_success(), "{url} answers {status}: {body}");
            Ok(Ok(()))
        })
        .await?;
        match outcome {
            Ok(()) => Ok(()),
            Err(status) => bail!("{name} ended while starting: {status}"),
        }
    }

    /// Processor time used so far, user and system, in seconds.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let (_, fields) = stat.rsplit_once(')').context("an unknown form of /proc/PID/stat")?;
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap_or(0))
            .sum();
        // USER_HZ is 100 on every Linux that Rust runs on.
        Ok(ticks as f64 / 100.0)
    }

    /// Resident memory now, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most resident memory it ever had, in bytes.
    ///
    /// # Errors
    /// When it has ended.
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
        scenario::log_ended(&self.log);
    }
}

/// Spawns from a thread that lasts: a child that is to die with its parent dies with the thread that made it.
fn spawn(command: Command) -> Result<Child> {
    type Request = (Command, mpsc::Sender<std::io::Result<Child>>);
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(requests)
    });
    let (answer, child) = mpsc::channel();
    keeper.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer))?;
    Ok(child.recv()??)
}

/// One of our own programs.
///
/// # Errors
/// When it is not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let dir = std::env::var_os("ALLOCATOR_BIN_DIR")
        .map_or_else(|| workspace().join("target/release"), PathBuf::from);
    let path = dir.join(name);
    ensure!(path.is_file(), "{} is missing: run `make build`", path.display());
    Ok(fs::canonicalize(path)?)
}

/// The folder of the whole workspace.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
