//! Runs `allocator run` as a child process. No test uses all of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use serde_json::Value;

/// A running allocator, killed on drop.
pub struct Running {
    pub child: Child,
    /// The URL in the welcome text.
    pub url: String,
    /// The file of the administrator's token, in the welcome text.
    pub token_file: PathBuf,
    /// The curl commands of the welcome text.
    pub commands: Vec<String>,
    /// Collects the standard output after the welcome text until the process ends.
    pub log: Option<JoinHandle<String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_allocator"));
    let dir = format!("sqlite.dir={}", data.display());
    command.args(["run", "--set", "allocator.listen=127.0.0.1:0", "--set", &dir]);
    // The test's own directory, because the current one may hold a configuration file.
    command.current_dir(data).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn start(data: &Path) -> Running {
    start_with(data, &[])
}

/// Starts an allocator with settings and waits for its welcome text.
pub fn start_with(data: &Path, settings: &[&str]) -> Running {
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let mut child = command(data).args(settings).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut url, mut token_file, mut commands) = (String::new(), PathBuf::new(), Vec::new());
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).unwrap() == 0 {
            let mut stderr = String::new();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("the process ended before it was ready: {stderr}");
        }
        if let Some((_, rest)) = line.split_once("runs on ") {
            url = rest.split(',').next().unwrap().trim().to_owned();
        }
        if let Some((_, path)) = line.split_once("administrator's token is in ") {
            token_file = PathBuf::from(path.trim());
        }
        if line.trim_start().starts_with("curl ") {
            commands.push(line.trim().to_owned());
        }
        if line.starts_with("Ctrl-C") {
            break;
        }
    }
    // The process would block on a full pipe.
    let log = thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        text
    });
    Running { child, url, token_file, commands, log: Some(log) }
}

impl Running {
    /// The header with the administrator's token.
    pub fn authorization(&self) -> String {
        let token = std::fs::read_to_string(&self.token_file).unwrap();
        format!("authorization: Bearer {}", token.trim())
    }
}

pub fn shell(line: &str) -> Value {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}
