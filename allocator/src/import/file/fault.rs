//! What can be wrong with a file, and with one line of it.

/// Why a file cannot be read any further. Nothing after the line is looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {detail}")]
pub struct FileFault {
    /// The line where it shows, counted from 1.
    pub line: u64,
    /// What is wrong, and what would be right.
    pub detail: String,
}

impl FileFault {
    /// A fault of a line.
    pub fn new(line: u64, detail: impl Into<String>) -> Self {
        Self { line, detail: detail.into() }
    }
}

/// Why one entry of a file is not a submission. Its neighbours are unaffected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The line on which the entry begins, counted from 1.
    pub line: u64,
    /// What is wrong, without naming the person.
    pub detail: String,
}

/// A text of the file, fit to be shown: cut short, and without characters that a terminal would obey.
pub fn shown(text: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    let more = if text.chars().nth(SHOWN_CHARS).is_some() { "…" } else { "" };
    let cut: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    format!("`{cut}{more}`")
}

/// What one entry of a file came to.
pub type Entry<T> = Result<T, Refusal>;
