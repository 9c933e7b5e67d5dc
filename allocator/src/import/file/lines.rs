//! Reads a file line by line: numbered, bounded, checked as UTF-8, and hashed on the way.

use std::io::{self, BufRead, Read};

use sha2::{Digest, Sha256};

use super::fault::FileFault;

/// Maximum length of a line, in bytes.
pub const LINE_MAX_BYTES: usize = 1024 * 1024;

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The SHA-256 of a file's content. The same content is the same file under any name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity(pub [u8; 32]);

/// A line reader.
pub struct Lines<R> {
    reader: R,
    number: u64,
    bytes: Vec<u8>,
    text: String,
    hash: Sha256,
}

/// One line, without its line ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Line number, from 1.
    pub number: u64,
    /// The text of the line.
    pub text: &'a str,
}

/// Why the next line cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileReadError {
    /// The content is invalid.
    #[error(transparent)]
    Fault(#[from] FileFault),
    /// The operating system failed to read the content.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl<R: BufRead> Lines<R> {
    /// Starts at the reader's current position.
    pub fn new(reader: R) -> Self {
        Self { reader, number: 0, bytes: Vec::new(), text: String::new(), hash: Sha256::new() }
    }

    /// Reads the next line. `None` at the end.
    ///
    /// # Errors
    /// When the line is too long or not UTF-8, or the file cannot be read.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, FileReadError> {
        Ok(self.advance()?.then_some(Line { number: self.number, text: &self.text }))
    }

    /// Reads the next line that is not blank. `None` at the end.
    ///
    /// # Errors
    /// As [`Lines::next_line`].
    pub fn next_non_blank_line(&mut self) -> Result<Option<Line<'_>>, FileReadError> {
        while self.advance()? {
            if !self.text.trim().is_empty() {
                return Ok(Some(Line { number: self.number, text: &self.text }));
            }
        }
        Ok(None)
    }

    /// The number of the last line read, 0 before the first.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The identity of the content read so far. At the end, the identity of the file.
    pub fn identity(&self) -> FileIdentity {
        FileIdentity(self.hash.clone().finalize().into())
    }

    fn advance(&mut self) -> Result<bool, FileReadError> {
        self.bytes.clear();
        self.text.clear();
        // Two more bytes than a line may have, for its line ending.
        let max_bytes = LINE_MAX_BYTES as u64 + 2;
        if self.reader.by_ref().take(max_bytes).read_until(b'\n', &mut self.bytes)? == 0 {
            return Ok(false);
        }
        self.number += 1;
        self.hash.update(&self.bytes);
        let line = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > LINE_MAX_BYTES {
            let detail = format!("is longer than {LINE_MAX_BYTES} bytes");
            return Err(FileFault::new(self.number, detail).into());
        }
        let text = std::str::from_utf8(line).map_err(|error| {
            let byte = error.valid_up_to() + 1;
            FileFault::new(self.number, format!("is not UTF-8 at byte {byte}"))
        })?;
        let unmarked = (self.number == 1).then(|| text.strip_prefix(BYTE_ORDER_MARK)).flatten();
        self.text.push_str(unmarked.unwrap_or(text));
        Ok(true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u64, String)>, String> {
        let mut lines = Lines::new(bytes);
        let mut seen = Vec::new();
        while let Some(line) = lines.next_line().map_err(|error| error.to_string())? {
            seen.push((line.number, line.text.to_owned()));
        }
        Ok(seen)
    }

    #[test]
    fn any_common_line_ending_is_accepted_and_a_byte_order_mark_is_skipped() {
        let lines = all("\u{feff}a\r\nb\n\nc".as_bytes()).unwrap();
        let expected = [(1, "a"), (2, "b"), (3, ""), (4, "c")];
        assert_eq!(lines, expected.map(|(number, text)| (number, text.to_owned())));
    }

    #[test]
    fn a_line_of_the_maximum_length_is_accepted_and_one_more_byte_is_not() {
        let mut bytes = vec![b'a'; LINE_MAX_BYTES];
        bytes.extend_from_slice(b"\r\nb");
        assert_eq!(all(&bytes).unwrap().len(), 2);
        bytes.insert(0, b'a');
        assert_eq!(all(&bytes).unwrap_err(), "line 1: is longer than 1048576 bytes");
    }

    #[test]
    fn an_endless_line_is_rejected_after_a_bounded_read() {
        let mut lines = Lines::new(io::BufReader::new(io::repeat(b'a')));
        assert!(matches!(lines.next_line(), Err(FileReadError::Fault(FileFault { line: 1, .. }))));
    }

    #[test]
    fn invalid_utf8_is_rejected_with_its_position() {
        assert_eq!(all(b"a\nok\xff").unwrap_err(), "line 2: is not UTF-8 at byte 3");
    }

    #[test]
    fn the_identity_depends_on_the_content_only() {
        let identity = |bytes: &[u8]| {
            let mut lines = Lines::new(bytes);
            while lines.next_non_blank_line().unwrap().is_some() {}
            lines.identity()
        };
        assert_eq!(identity(b"a\n\nb"), identity(b"a\n\nb"));
        assert_ne!(identity(b"a\n\nb"), identity(b"a\nb"));
    }
}
