//! How a test runs: one after the other within its file, on one runtime, within a bound; when it fails, the ends of the
//! logs of its processes are quoted and all its files are kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

/// Log lines quoted of each process.
const QUOTED_LINES: usize = 25;

static ALONE: Mutex<()> = Mutex::new(());
static LOGS: Mutex<Vec<Log>> = Mutex::new(Vec::new());

struct Log {
    name: String,
    path: PathBuf,
    ended: bool,
}

/// Runs a test of at most two minutes.
///
/// # Panics
/// When the test fails.
pub fn scenario(test: impl AsyncFnOnce() -> Result<()>) {
    scenario_within(Duration::from_secs(120), test);
}

/// Runs a test within a bound of its own.
///
/// # Panics
/// When the test fails.
#[expect(clippy::panic, reason = "this is how a test fails")]
pub fn scenario_within(bound: Duration, test: impl AsyncFnOnce() -> Result<()>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    };
    // What still runs is shared with this test; what has ended belongs to tests before it.
    logs().retain(|log| !log.ended);
    let quoting = QuoteOnPanic;
    let outcome = runtime.block_on(async { tokio::time::timeout(bound, test()).await });
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(_) => panic!("not done within {bound:?}"),
    }
    drop(quoting);
}

/// One runtime for the whole test program, so that what tests share outlives each of them.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let new = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(RUNTIME.get_or_init(|| new))
}

struct QuoteOnPanic;

impl Drop for QuoteOnPanic {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for log in logs().iter() {
            quote(&log.name, &log.path);
        }
        if let Ok(dir) = work_dir() {
            let _ = fs::write(dir.join("keep"), "");
            eprintln!("--- everything is kept in {}", dir.display());
        }
    }
}

fn logs() -> MutexGuard<'static, Vec<Log>> {
    LOGS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn quote(name: &str, path: &Path) {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.contains("\"target\":\"access\"")).collect();
    let from = lines.len().saturating_sub(QUOTED_LINES);
    eprintln!("--- {name}, the last of {} lines of {}", lines.len(), path.display());
    for line in lines.iter().skip(from) {
        eprintln!("    {}", line.chars().take(400).collect::<String>());
    }
}

/// Has a process's log quoted if the running test fails.
pub(crate) fn register_log(name: &str, path: &Path) {
    logs().push(Log { name: name.to_owned(), path: path.to_owned(), ended: false });
}

/// The process has ended: later tests have nothing to do with it.
pub(crate) fn log_ended(path: &Path) {
    for log in logs().iter_mut().filter(|log| log.path == path) {
        log.ended = true;
    }
}

/// A number that nobody else in this program has.
pub(crate) fn serial() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A new folder for `what`; it goes with this program, unless a test failed.
///
/// # Errors
/// When it cannot be made.
pub fn new_dir(what: &str) -> Result<PathBuf> {
    let dir = work_dir()?.join(format!("{}-{what}", serial()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
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

/// Runs a shell command once this program has ended, in whatever way: a shell waits for the end of a pipe that only
/// this program holds.
///
/// # Errors
/// When there is no shell.
pub fn at_exit(command: &str, arguments: &[&Path]) -> Result<()> {
    static PIPES: Mutex<Vec<std::process::ChildStdin>> = Mutex::new(Vec::new());
    let mut shell = Command::new("setsid")
        .args(["sh", "-c", &format!("cat; {command}"), "sh"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("no shell")?;
    let pipe = shell.stdin.take().context("no pipe to the shell")?;
    PIPES.lock().unwrap_or_else(PoisonError::into_inner).push(pipe);
    Ok(())
}
