//! Texts for a person. A reader that has gone away (`| head`) is no reason to fail.

use std::io::{self, Write};

/// To standard output: what was asked for.
pub fn out(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// To standard error: how it goes, and what went wrong.
pub fn err(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
