//! Runs tests one at a time per program, on one runtime, with a timeout.
//!
//! When a test fails, the last log lines of its processes are printed and all its files are kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Runtime;

/// Log lines printed for each process.
const PRINTED_LINES: usize = 25;

static TEST_LOCK: Mutex<()> = Mutex::new(());
static LOGS: Mutex<Vec<Log>> = Mutex::new(Vec::new());

struct Log {
    name: String,
    path: PathBuf,
    ended: bool,
}

/// Runs a test with a timeout of five minutes.
///
/// # Panics
/// When the test fails.
pub fn scenario(test: impl AsyncFnOnce() -> Result<()>) {
    scenario_within(Duration::from_secs(300), test);
}

/// Runs a test with a timeout.
///
/// # Panics
/// When the test fails.
#[expect(clippy::panic, reason = "this is how a test fails")]
pub fn scenario_within(timeout: Duration, test: impl AsyncFnOnce() -> Result<()>) {
    let _lock = TEST_LOCK.lock();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    };
    // Running processes are shared with this test. Exited ones belong to earlier tests.
    logs().retain(|log| !log.ended);
    let print_logs = PrintLogsOnPanic;
    let outcome = runtime.block_on(async { tokio::time::timeout(timeout, test()).await });
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(_) => panic!("not done within {timeout:?}"),
    }
    drop(print_logs);
}

/// The runtime of the whole test program. Tests share it, and so can share processes and clients.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let new = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(RUNTIME.get_or_init(|| new))
}

struct PrintLogsOnPanic;

impl Drop for PrintLogsOnPanic {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for log in logs().iter() {
            print_tail(&log.name, &log.path);
        }
        if let Ok(dir) = work_dir() {
            let _ = fs::write(dir.join("keep"), "");
            eprintln!("--- all files are kept in {}", dir.display());
        }
    }
}

fn logs() -> MutexGuard<'static, Vec<Log>> {
    LOGS.lock()
}

fn print_tail(name: &str, path: &Path) {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.contains("\"target\":\"access\"")).collect();
    let from = lines.len().saturating_sub(PRINTED_LINES);
    eprintln!("--- {name}, the last of {} lines of {}", lines.len(), path.display());
    for line in lines.iter().skip(from) {
        eprintln!("    {}", line.chars().take(400).collect::<String>());
    }
}

/// Registers a process's log for printing if the running test fails.
pub(crate) fn register_log(name: &str, path: &Path) {
    logs().push(Log { name: name.to_owned(), path: path.to_owned(), ended: false });
}

/// Marks the log of an exited process, which later tests do not print.
pub(crate) fn mark_log_ended(path: &Path) {
    for log in logs().iter_mut().filter(|log| log.path == path) {
        log.ended = true;
    }
}

/// Returns a number that is unique in this program.
pub(crate) fn serial() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Creates a directory. It is deleted when this program exits, unless a test failed.
///
/// # Errors
/// When the directory cannot be created.
pub fn new_dir(what: &str) -> Result<PathBuf> {
    let dir = work_dir()?.join(format!("{}-{what}", serial()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

fn work_dir() -> Result<&'static Path> {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    if let Some(dir) = DIR.get() {
        return Ok(dir);
    }
    let dir = std::env::temp_dir().join(format!("allocator-e2e-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    at_exit("[ -e \"$1/keep\" ] || rm -rf \"$1\"", &[&dir])?;
    Ok(DIR.get_or_init(|| dir))
}

/// Runs a shell command after this program has exited for any reason.
///
/// A shell waits for the end of a pipe that only this program holds open.
///
/// # Errors
/// When the shell cannot be started.
pub fn at_exit(command: &str, arguments: &[&Path]) -> Result<()> {
    static PIPES: Mutex<Vec<std::process::ChildStdin>> = Mutex::new(Vec::new());
    let mut shell = Command::new("setsid")
        .args(["sh", "-c", &format!("cat; {command}"), "sh"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the shell")?;
    let pipe = shell.stdin.take().context("no pipe to the shell")?;
    PIPES.lock().push(pipe);
    Ok(())
}
