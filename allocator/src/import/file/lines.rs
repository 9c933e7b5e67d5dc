//! A file's lines: numbered, bounded, UTF-8, and fingerprinted on the way.

use std::io::{self, BufRead, Read};

use sha2::{Digest, Sha256};

use super::fault::FileFault;

/// The longest line taken, in bytes.
pub const LINE_MAX_BYTES: usize = 1024 * 1024;

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// A file's content, by its SHA-256: the same content is the same file, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity(pub [u8; 32]);

/// Reads line by line.
pub struct Lines<R> {
    reader: R,
    number: u64,
    bytes: Vec<u8>,
    text: String,
    hash: Sha256,
}

/// One line, without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Counted from 1.
    pub number: u64,
    /// Its text.
    pub text: &'a str,
}

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The content is not what it should be.
    #[error(transparent)]
    Fault(#[from] FileFault),
    /// The system does not give the content.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl<R: BufRead> Lines<R> {
    /// Begins at the reader's place.
    pub fn new(reader: R) -> Self {
        Self { reader, number: 0, bytes: Vec::new(), text: String::new(), hash: Sha256::new() }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// When the line is too long or not UTF-8, or the file cannot be read.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        Ok(self.advance()?.then_some(Line { number: self.number, text: &self.text }))
    }

    /// The next line that is more than blanks; `None` at the end.
    ///
    /// # Errors
    /// As [`Lines::next_line`].
    pub fn next_filled_line(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        while self.advance()? {
            if !self.text.trim().is_empty() {
                return Ok(Some(Line { number: self.number, text: &self.text }));
            }
        }
        Ok(None)
    }

    /// The number of the line read last; 0 before the first.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The identity of what was read so far; the file's, at its end.
    pub fn identity(&self) -> FileIdentity {
        FileIdentity(self.hash.clone().finalize().into())
    }

    fn advance(&mut self) -> Result<bool, ReadError> {
        self.bytes.clear();
        self.text.clear();
        // Two more than a line may have, for its end.
        let most = LINE_MAX_BYTES as u64 + 2;
        if self.reader.by_ref().take(most).read_until(b'\n', &mut self.bytes)? == 0 {
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
            let place = error.valid_up_to() + 1;
            FileFault::new(self.number, format!("is not UTF-8: see its byte {place}"))
        })?;
        let marked = (self.number == 1).then(|| text.strip_prefix(BYTE_ORDER_MARK)).flatten();
        self.text.push_str(marked.unwrap_or(text));
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
    fn lines_end_in_any_usual_way_and_a_byte_order_mark_is_no_text() {
        let lines = all("\u{feff}a\r\nb\n\nc".as_bytes()).unwrap();
        let expected = [(1, "a"), (2, "b"), (3, ""), (4, "c")];
        assert_eq!(lines, expected.map(|(number, text)| (number, text.to_owned())));
    }

    #[test]
    fn a_line_of_the_largest_size_is_taken_and_one_byte_more_is_not() {
        let mut bytes = vec![b'a'; LINE_MAX_BYTES];
        bytes.extend_from_slice(b"\r\nb");
        assert_eq!(all(&bytes).unwrap().len(), 2);
        bytes.insert(0, b'a');
        assert_eq!(all(&bytes).unwrap_err(), "line 1: is longer than 1048576 bytes");
    }

    #[test]
    fn an_endless_line_is_refused_after_a_bounded_read() {
        let mut lines = Lines::new(io::BufReader::new(io::repeat(b'a')));
        assert!(matches!(lines.next_line(), Err(ReadError::Fault(FileFault { line: 1, .. }))));
    }

    #[test]
    fn bytes_that_are_no_utf8_are_refused_with_their_place() {
        assert_eq!(all(b"a\nok\xff").unwrap_err(), "line 2: is not UTF-8: see its byte 3");
    }

    #[test]
    fn the_identity_is_of_the_content_and_nothing_else() {
        let identity = |bytes: &[u8]| {
            let mut lines = Lines::new(bytes);
            while lines.next_filled_line().unwrap().is_some() {}
            lines.identity()
        };
        assert_eq!(identity(b"a\n\nb"), identity(b"a\n\nb"));
        assert_ne!(identity(b"a\n\nb"), identity(b"a\nb"));
    }
}
