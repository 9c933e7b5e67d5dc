//! Writes command output. A closed pipe (`| head`) is not an error.

use std::io::{self, Write};

/// Writes results to standard output.
pub fn out(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes progress and errors to standard error.
pub fn err(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
