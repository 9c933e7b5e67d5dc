//! Faults of a file and of its entries.

/// A fault that makes the rest of the file unreadable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {detail}")]
pub struct FileFault {
    /// Line number, from 1.
    pub line: u64,
    /// What is wrong and what is expected.
    pub detail: String,
}

impl FileFault {
    /// Creates a fault at a line.
    pub fn new(line: u64, detail: impl Into<String>) -> Self {
        Self { line, detail: detail.into() }
    }
}

/// An entry that is not a valid submission. Other entries are unaffected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedEntry {
    /// Number of the entry's first line, from 1.
    pub line: u64,
    /// What is wrong, without the person's id.
    pub detail: String,
}

/// Quotes a text of the file for a message: truncated, with control characters escaped.
pub fn quoted(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    let more = if text.chars().nth(MAX_CHARS).is_some() { "…" } else { "" };
    let cut: String = text.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    format!("`{cut}{more}`")
}

/// One entry of a file, valid or rejected.
pub type Entry<T> = Result<T, RejectedEntry>;
