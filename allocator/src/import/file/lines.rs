//! Reads a file line by line: numbered, bounded, checked as UTF-8, and hashed on the way.
//!
//! A line ends in LF, CRLF or CR. A file may mix them.

use std::io::{self, BufRead};

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
    ending: LineEnding,
    lone_cr_before: bool,
    bytes: Vec<u8>,
    text: String,
    hash: Sha256,
}

/// One line, without its line ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Where the line is.
    pub at: LineNumber,
    /// The text of the line.
    pub text: &'a str,
    /// Whether the file ends within this line: the line has no ending.
    pub is_cut: bool,
}

/// The place of a line in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineNumber {
    /// Line number, from 1.
    pub number: u64,
    /// Whether an earlier line ends in CR alone. Releases that did not know this ending numbered the line differently.
    pub after_lone_cr: bool,
}

/// How the last line read ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnding {
    /// LF or CRLF.
    Lf,
    /// CR alone.
    LoneCr,
    /// The file ends within the line.
    Missing,
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
    /// The user stopped the import.
    #[error("stopped")]
    Stopped,
}

impl<R: BufRead> Lines<R> {
    /// Starts at the reader's current position.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            number: 0,
            ending: LineEnding::Lf,
            lone_cr_before: false,
            bytes: Vec::new(),
            text: String::new(),
            hash: Sha256::new(),
        }
    }

    /// Reads the next line. `None` at the end.
    ///
    /// # Errors
    /// When the line is too long or not UTF-8, or the file cannot be read.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, FileReadError> {
        Ok(if self.advance()? { Some(self.line()) } else { None })
    }

    /// Reads the next line that is not blank. `None` at the end.
    ///
    /// # Errors
    /// As [`Lines::next_line`].
    pub fn next_non_blank_line(&mut self) -> Result<Option<Line<'_>>, FileReadError> {
        while self.advance()? {
            if !self.text.trim().is_empty() {
                return Ok(Some(self.line()));
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

    fn line(&self) -> Line<'_> {
        let at = LineNumber { number: self.number, after_lone_cr: self.lone_cr_before };
        Line { at, text: &self.text, is_cut: self.ending == LineEnding::Missing }
    }

    fn advance(&mut self) -> Result<bool, FileReadError> {
        self.bytes.clear();
        self.text.clear();
        self.lone_cr_before |= self.ending == LineEnding::LoneCr;
        self.number += 1;
        self.ending = self.read_bytes()?;
        if self.bytes.is_empty() && self.ending == LineEnding::Missing {
            self.number -= 1;
            return Ok(false);
        }
        let text = std::str::from_utf8(&self.bytes).map_err(|error| {
            let byte = error.valid_up_to() + 1;
            FileFault::new(self.number, format!("is not UTF-8 at byte {byte}"))
        })?;
        let unmarked = (self.number == 1).then(|| text.strip_prefix(BYTE_ORDER_MARK)).flatten();
        self.text.push_str(unmarked.unwrap_or(text));
        Ok(true)
    }

    /// Reads and hashes the bytes up to and including a line ending, which is not kept.
    fn read_bytes(&mut self) -> Result<LineEnding, FileReadError> {
        loop {
            let buffer = fill(&mut self.reader)?;
            if buffer.is_empty() {
                return Ok(LineEnding::Missing);
            }
            let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (line, used) = buffer.split_at(end.unwrap_or(buffer.len()));
            let terminator = used.first().copied();
            let consumed = line.len() + usize::from(terminator.is_some());
            self.bytes.extend_from_slice(line);
            self.hash.update(buffer.get(..consumed).unwrap_or(buffer));
            self.reader.consume(consumed);
            if self.bytes.len() > LINE_MAX_BYTES {
                let detail = format!("is longer than {LINE_MAX_BYTES} bytes");
                return Err(FileFault::new(self.number, detail).into());
            }
            match terminator {
                None => {}
                Some(b'\n') => return Ok(LineEnding::Lf),
                // The LF of a CRLF may be in the next buffer.
                Some(_) if fill(&mut self.reader)?.first() == Some(&b'\n') => {
                    self.hash.update(b"\n");
                    self.reader.consume(1);
                    return Ok(LineEnding::Lf);
                }
                Some(_) => return Ok(LineEnding::LoneCr),
            }
        }
    }
}

/// Returns the bytes that can be consumed next; empty at the end of the file.
fn fill<R: BufRead>(reader: &mut R) -> io::Result<&[u8]> {
    loop {
        match reader.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // Filled: this call returns the same bytes. The loop cannot return them, because its borrow would not end.
    reader.fill_buf()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u64, String)>, String> {
        read_all(bytes)
    }

    fn read_all(reader: impl BufRead) -> Result<Vec<(u64, String)>, String> {
        let mut lines = Lines::new(reader);
        let mut seen = Vec::new();
        while let Some(line) = lines.next_line().map_err(|error| error.to_string())? {
            seen.push((line.at.number, line.text.to_owned()));
        }
        Ok(seen)
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_line_endings_may_be_mixed() {
        let lines = all("\u{feff}a\r\nb\n\rc\rd\r\r\ne".as_bytes()).unwrap();
        let expected = [(1, "a"), (2, "b"), (3, ""), (4, "c"), (5, "d"), (6, ""), (7, "e")];
        assert_eq!(lines, expected.map(|(number, text)| (number, text.to_owned())));
    }

    #[test]
    fn lines_after_a_lone_cr_and_a_line_without_ending_are_marked() {
        let mut lines = Lines::new(b"a\r\nb\rc\nd".as_slice());
        let mut marks = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            marks.push((line.at.after_lone_cr, line.is_cut));
        }
        assert_eq!(marks, [(false, false), (false, false), (true, false), (true, true)]);
    }

    proptest! {
        #[test]
        fn lf_crlf_and_cr_give_the_same_lines_in_buffers_of_any_size(
            lines in prop::collection::vec("[a-c\u{e9}]{0,4}", 0..8),
            ending in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            ended in any::<bool>(),
            buffer_bytes in 1..9_usize,
        ) {
            let expected = all(lines.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes());
            let mut text = lines.join(ending);
            let must_end = lines.last().is_some_and(String::is_empty);
            if !lines.is_empty() && (ended || must_end) {
                text.push_str(ending);
            }
            let reader = io::BufReader::with_capacity(buffer_bytes, text.as_bytes());
            prop_assert_eq!(read_all(reader), expected);
        }
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
