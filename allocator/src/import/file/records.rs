//! Reads records of delimited values with CSV quoting: `;` in Pabulib files, `,` in plain CSV.

use std::io::BufRead;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::fault::FileFault;
use super::lines::{FileIdentity, FileReadError, LINE_MAX_BYTES, Lines};

/// Maximum number of fields in one record.
pub const MAX_FIELDS: usize = 4096;

/// A record reader. A quoted field may span several lines; a record has the same maximum length as a line.
pub struct FileRecords<R> {
    lines: Lines<R>,
    parser: Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub struct FileRecord<'a> {
    /// Number of the record's first line, from 1.
    pub line: u64,
    text: &'a str,
    ends: &'a [usize],
}

impl<'a> FileRecord<'a> {
    /// The number of fields, at least one.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// A field, without its quotes and surrounding blanks.
    pub fn field(&self, index: usize) -> Option<&'a str> {
        let begin = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.text.get(begin..*self.ends.get(index)?).map(str::trim)
    }

    /// All fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let record = *self;
        (0..record.len()).filter_map(move |index| record.field(index))
    }
}

impl<R: BufRead> FileRecords<R> {
    /// Starts at the reader's current position.
    pub fn new(reader: R, delimiter: u8) -> Self {
        Self {
            lines: Lines::new(reader),
            parser: ReaderBuilder::new().delimiter(delimiter).build(),
            text: vec![0; LINE_MAX_BYTES],
            ends: vec![0; MAX_FIELDS],
        }
    }

    /// Reads the next record and skips blank lines. `None` at the end.
    ///
    /// # Errors
    /// When a line cannot be read, the record is too large, or a quote is not closed.
    pub fn next_record(&mut self) -> Result<Option<FileRecord<'_>>, FileReadError> {
        let Some(first) = self.lines.next_non_blank_line()? else { return Ok(None) };
        let line = first.number;
        let mut filled = FilledBuffers::default();
        let mut complete = filled.parse_line(
            &mut self.parser,
            first.text,
            &mut self.text,
            &mut self.ends,
            line,
        )?;
        while !complete {
            let Some(next) = self.lines.next_line()? else {
                return Err(FileFault::new(line, "has a quote that is not closed").into());
            };
            complete = filled.parse_line(
                &mut self.parser,
                next.text,
                &mut self.text,
                &mut self.ends,
                line,
            )?;
        }
        let bytes = self.text.get(..filled.bytes).unwrap_or_default();
        let text = std::str::from_utf8(bytes).map_err(|_| FileFault::new(line, "is not UTF-8"))?;
        let ends = self.ends.get(..filled.fields).unwrap_or_default();
        Ok(Some(FileRecord { line, text, ends }))
    }

    /// The number of the last line read, 0 before the first.
    pub fn line(&self) -> u64 {
        self.lines.number()
    }

    /// The identity of the content read so far. At the end, the identity of the file.
    pub fn identity(&self) -> FileIdentity {
        self.lines.identity()
    }
}

/// The used parts of the record buffers.
#[derive(Default)]
struct FilledBuffers {
    bytes: usize,
    fields: usize,
}

impl FilledBuffers {
    /// Parses one more line of the record that starts on line `first_line`. Returns whether the record is complete.
    fn parse_line(
        &mut self,
        parser: &mut Reader,
        line: &str,
        text: &mut [u8],
        ends: &mut [usize],
        first_line: u64,
    ) -> Result<bool, FileFault> {
        for part in [line.as_bytes(), b"\n"] {
            let free_text = text.get_mut(self.bytes..).unwrap_or_default();
            let free_ends = ends.get_mut(self.fields..).unwrap_or_default();
            let (result, _, bytes, fields) = parser.read_record(part, free_text, free_ends);
            self.bytes += bytes;
            self.fields += fields;
            match result {
                ReadRecordResult::Record => return Ok(true),
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    let detail = format!(
                        "starts a record of more than {LINE_MAX_BYTES} bytes or {MAX_FIELDS} fields"
                    );
                    return Err(FileFault::new(first_line, detail));
                }
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Result<Vec<(u64, Vec<String>)>, String> {
        let mut records = FileRecords::new(text.as_bytes(), b';');
        let mut seen = Vec::new();
        while let Some(record) = records.next_record().map_err(|error| error.to_string())? {
            seen.push((record.line, record.fields().map(str::to_owned).collect()));
        }
        Ok(seen)
    }

    fn record(line: u64, fields: &[&str]) -> (u64, Vec<String>) {
        (line, fields.iter().map(|field| (*field).to_owned()).collect())
    }

    #[test]
    fn quoted_fields_may_hold_delimiters_quotes_and_line_breaks() {
        let text = "a; b ;c\r\n\r\n\"x;y\";\"say \"\"no\"\"\";\"two\r\nlines\"\nlast;;";
        let expected = [
            record(1, &["a", "b", "c"]),
            record(3, &["x;y", "say \"no\"", "two\nlines"]),
            record(5, &["last", "", ""]),
        ];
        assert_eq!(all(text).unwrap(), expected);
    }

    #[test]
    fn an_unclosed_quote_is_rejected_at_its_first_line() {
        assert_eq!(all("a\nb;\"c\nd\n").unwrap_err(), "line 2: has a quote that is not closed");
    }

    #[test]
    fn a_record_over_many_lines_has_the_maximum_length_of_a_line() {
        let text = format!("a;\"{}", "0123456789\n".repeat(LINE_MAX_BYTES / 10));
        assert!(all(&text).unwrap_err().starts_with("line 1: starts a record of more than"));
    }

    #[test]
    fn a_record_with_too_many_fields_is_rejected() {
        assert_eq!(all(&";".repeat(MAX_FIELDS - 1)).unwrap().len(), 1);
        assert!(all(&";".repeat(MAX_FIELDS)).unwrap_err().contains("4096 fields"));
    }

    proptest! {
        #[test]
        fn no_text_panics_the_reader(text in "[a;\"\r\n é]{0,60}") {
            let _ = all(&text);
        }

        #[test]
        fn quoted_fields_round_trip(fields in prop::collection::vec("[a;\"é,]{1,8}", 1..6)) {
            let quoted: Vec<_> =
                fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
            prop_assert_eq!(all(&quoted.join(";")).unwrap(), vec![(1, fields)]);
        }
    }
}
