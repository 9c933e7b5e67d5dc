//! `allocator run` as a process of its own. Not every test looks at all of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use serde_json::Value;

/// A running allocator; killed when it is dropped.
pub struct Running {
    pub child: Child,
    /// The address it says that it runs on.
    pub url: String,
    /// The lines it says to try.
    pub lines: Vec<String>,
    /// Ends with the process, and gives what it wrote to its log after its welcome.
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
    // Not in a folder that may have settings of its own.
    command.current_dir(data).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn start(data: &Path) -> Running {
    start_with(data, &[])
}

/// Starts it with some settings and waits for the end of its welcome. A process that ends early closes its output.
pub fn start_with(data: &Path, settings: &[&str]) -> Running {
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let mut child = command(data).args(settings).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut url, mut lines) = (String::new(), Vec::new());
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).unwrap() == 0 {
            let mut why = String::new();
            child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!("it ended before it was ready: {why}");
        }
        if let Some((_, rest)) = line.split_once("runs on ") {
            url = rest.split(',').next().unwrap().trim().to_owned();
        }
        if line.trim_start().starts_with("curl ") {
            lines.push(line.trim().to_owned());
        }
        if line.starts_with("Ctrl-C") {
            break;
        }
    }
    // Its log must find a reader.
    let log = thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        text
    });
    Running { child, url, lines, log: Some(log) }
}

pub fn shell(line: &str) -> Value {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}
