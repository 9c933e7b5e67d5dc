//! `allocator run` as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A running allocator; killed when it is dropped.
pub struct Running {
    pub child: Child,
    /// The address it says that it runs on.
    pub url: String,
    /// The lines it says to try. Not every test does.
    #[allow(dead_code)]
    pub lines: Vec<String>,
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

/// Starts it and waits for the end of its welcome. A process that ends early closes its output.
pub fn start(data: &Path) -> Running {
    let mut child = command(data).spawn().unwrap();
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
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    Running { child, url, lines }
}

pub fn shell(line: &str) -> Value {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}
