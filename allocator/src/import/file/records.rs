//! Records of separated values with CSV quoting: `;` in Pabulib files, `,` in plain CSV.

use std::io::BufRead;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::fault::FileFault;
use super::lines::{FileIdentity, LINE_MAX_BYTES, Lines, ReadError};

/// The most fields that one record may have.
pub const FIELDS_MAX: usize = 4096;

/// Reads record by record. A quoted field may go over several lines; the whole record is bounded as a line is.
pub struct Records<R> {
    lines: Lines<R>,
    parser: Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The line on which it begins, counted from 1.
    pub line: u64,
    text: &'a str,
    ends: &'a [usize],
}

impl<'a> Record<'a> {
    /// How many fields it has; at least one.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// A field, without its quotes and the blanks around it.
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

impl<R: BufRead> Records<R> {
    /// Begins at the reader's place.
    pub fn new(reader: R, delimiter: u8) -> Self {
        Self {
            lines: Lines::new(reader),
            parser: ReaderBuilder::new().delimiter(delimiter).build(),
            text: vec![0; LINE_MAX_BYTES],
            ends: vec![0; FIELDS_MAX],
        }
    }

    /// The next record; blank lines are none. `None` at the end.
    ///
    /// # Errors
    /// When a line cannot be read, the record is too large, or its quotes never end.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        let Some(first) = self.lines.next_filled_line()? else { return Ok(None) };
        let line = first.number;
        let mut written = Written::default();
        let mut whole =
            written.take(&mut self.parser, first.text, &mut self.text, &mut self.ends, line)?;
        while !whole {
            let Some(next) = self.lines.next_line()? else {
                return Err(FileFault::new(line, "has a quote that is not closed").into());
            };
            whole =
                written.take(&mut self.parser, next.text, &mut self.text, &mut self.ends, line)?;
        }
        let bytes = self.text.get(..written.bytes).unwrap_or_default();
        let text = std::str::from_utf8(bytes).map_err(|_| FileFault::new(line, "is not UTF-8"))?;
        let ends = self.ends.get(..written.fields).unwrap_or_default();
        Ok(Some(Record { line, text, ends }))
    }

    /// The number of the line read last; 0 before the first.
    pub fn line(&self) -> u64 {
        self.lines.number()
    }

    /// The identity of what was read so far; the file's, at its end.
    pub fn identity(&self) -> FileIdentity {
        self.lines.identity()
    }
}

/// How much of a record's buffers is filled.
#[derive(Default)]
struct Written {
    bytes: usize,
    fields: usize,
}

impl Written {
    /// Takes one more line of the record that begins on line `begin`; says whether the record is whole.
    fn take(
        &mut self,
        parser: &mut Reader,
        line: &str,
        text: &mut [u8],
        ends: &mut [usize],
        begin: u64,
    ) -> Result<bool, FileFault> {
        for part in [line.as_bytes(), b"\n"] {
            let room = text.get_mut(self.bytes..).unwrap_or_default();
            let places = ends.get_mut(self.fields..).unwrap_or_default();
            let (result, _, bytes, fields) = parser.read_record(part, room, places);
            self.bytes += bytes;
            self.fields += fields;
            match result {
                ReadRecordResult::Record => return Ok(true),
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    let detail = format!(
                        "begins a record of more than {LINE_MAX_BYTES} bytes or {FIELDS_MAX} fields"
                    );
                    return Err(FileFault::new(begin, detail));
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
        let mut records = Records::new(text.as_bytes(), b';');
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
    fn quotes_hide_separators_quotes_and_line_ends() {
        let text = "a; b ;c\r\n\r\n\"x;y\";\"say \"\"no\"\"\";\"two\r\nlines\"\nlast;;";
        let expected = [
            record(1, &["a", "b", "c"]),
            record(3, &["x;y", "say \"no\"", "two\nlines"]),
            record(5, &["last", "", ""]),
        ];
        assert_eq!(all(text).unwrap(), expected);
    }

    #[test]
    fn quotes_that_never_end_are_refused_where_they_begin() {
        assert_eq!(all("a\nb;\"c\nd\n").unwrap_err(), "line 2: has a quote that is not closed");
    }

    #[test]
    fn a_record_over_many_lines_is_bounded_as_a_line_is() {
        let text = format!("a;\"{}", "0123456789\n".repeat(LINE_MAX_BYTES / 10));
        assert!(all(&text).unwrap_err().starts_with("line 1: begins a record of more than"));
    }

    #[test]
    fn a_record_of_too_many_fields_is_refused() {
        assert_eq!(all(&";".repeat(FIELDS_MAX - 1)).unwrap().len(), 1);
        assert!(all(&";".repeat(FIELDS_MAX)).unwrap_err().contains("4096 fields"));
    }

    proptest! {
        #[test]
        fn no_text_panics_the_reader(text in "[a;\"\r\n é]{0,60}") {
            let _ = all(&text);
        }

        #[test]
        fn what_is_quoted_is_read_back(fields in prop::collection::vec("[a;\"é,]{1,8}", 1..6)) {
            let quoted: Vec<_> =
                fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
            prop_assert_eq!(all(&quoted.join(";")).unwrap(), vec![(1, fields)]);
        }
    }
}
