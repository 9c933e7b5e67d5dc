//! Reads records of delimited values with CSV quoting: `;` in Pabulib files, `,` in plain CSV.

use std::io::BufRead;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::fault::{Entry, FileFault, RejectedEntry};
use super::lines::{FileIdentity, FileReadError, LINE_MAX_BYTES, Line, LineNumber, Lines};
use super::quotes::{QuoteScan, Quoting};

/// Maximum number of fields in one record.
pub const MAX_FIELDS: usize = 4096;

const OPEN_QUOTE: &str = "has a quote that is not closed";
const STRAY_QUOTE: &str =
    "has a stray quote: write a field that holds a quote in quotes, and the quote twice";

/// A record reader. A record has the same maximum length as a line.
pub struct FileRecords<R> {
    lines: Lines<R>,
    parser: Reader,
    delimiter: u8,
    quoting: Quoting,
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub struct FileRecord<'a> {
    /// The record's first line.
    pub at: LineNumber,
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
    pub fn new(reader: R, delimiter: u8, quoting: Quoting) -> Self {
        Self {
            lines: Lines::new(reader),
            parser: ReaderBuilder::new().delimiter(delimiter).build(),
            delimiter,
            quoting,
            text: vec![0; LINE_MAX_BYTES],
            ends: vec![0; MAX_FIELDS],
        }
    }

    /// Reads the next record, of which a quoted field may span several lines. Skips blank lines. `None` at the end.
    ///
    /// A record of several lines must follow the rules of quoting even with [`Quoting::Lenient`]: one stray quote would
    /// otherwise turn the following records into a field.
    ///
    /// # Errors
    /// When a line cannot be read, the record is too large, or a quote is stray or not closed.
    pub fn next_record(&mut self) -> Result<Option<FileRecord<'_>>, FileReadError> {
        let Some(first) = self.lines.next_non_blank_line()? else { return Ok(None) };
        let at = first.at;
        let mut quotes = QuoteScan::new(self.delimiter);
        let mut filled = FilledBuffers::new(&mut self.parser, &mut self.text, &mut self.ends);
        quotes.line(first.text);
        let mut complete = filled.parse_line(first, at)?;
        let mut lines: u64 = 1;
        while !complete {
            let Some(next) = self.lines.next_line()? else {
                return Err(FileFault::new(at.number, OPEN_QUOTE).into());
            };
            quotes.line(next.text);
            complete = filled.parse_line(next, at)?;
            lines += 1;
        }
        if quotes.is_stray() && (lines > 1 || self.quoting == Quoting::Strict) {
            return Err(FileFault::new(at.number, STRAY_QUOTE).into());
        }
        Ok(Some(filled.record(at)?))
    }

    /// Reads the next record of one line, which has exactly one entry. Skips blank lines. `None` at the end.
    ///
    /// A line with wrong quotes is rejected and affects no other line.
    ///
    /// # Errors
    /// When the line cannot be read, is too large, or the file ends within its quoted field.
    pub fn next_row(&mut self) -> Result<Option<Entry<FileRecord<'_>>>, FileReadError> {
        let Some(line) = self.lines.next_non_blank_line()? else { return Ok(None) };
        let at = line.at;
        let mut quotes = QuoteScan::new(self.delimiter);
        quotes.line(line.text);
        if quotes.is_open() && line.is_cut {
            return Err(FileFault::new(at.number, OPEN_QUOTE).into());
        }
        let fault = match self.quoting {
            _ if quotes.is_open() => Some("has a quote that is not closed on its line"),
            Quoting::Strict if quotes.is_stray() => Some(STRAY_QUOTE),
            Quoting::Strict | Quoting::Lenient => None,
        };
        if let Some(fault) = fault {
            return Ok(Some(Err(RejectedEntry { line: at.number, detail: fault.to_owned() })));
        }
        let mut filled = FilledBuffers::new(&mut self.parser, &mut self.text, &mut self.ends);
        if !filled.parse_line(line, at)? {
            return Err(FileFault::new(at.number, OPEN_QUOTE).into());
        }
        Ok(Some(Ok(filled.record(at)?)))
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

/// The record buffers while lines are parsed into them.
struct FilledBuffers<'a> {
    parser: &'a mut Reader,
    text: &'a mut [u8],
    ends: &'a mut [usize],
    bytes: usize,
    fields: usize,
}

impl<'a> FilledBuffers<'a> {
    fn new(parser: &'a mut Reader, text: &'a mut [u8], ends: &'a mut [usize]) -> Self {
        Self { parser, text, ends, bytes: 0, fields: 0 }
    }

    /// Parses one more line of the record that starts at `first`. Returns whether the record is complete.
    ///
    /// # Errors
    /// When the record is too large, or ends before its line does: the rest of the line would be lost.
    fn parse_line(&mut self, line: Line<'_>, first: LineNumber) -> Result<bool, FileFault> {
        for part in [line.text.as_bytes(), b"\n"] {
            let free_text = self.text.get_mut(self.bytes..).unwrap_or_default();
            let free_ends = self.ends.get_mut(self.fields..).unwrap_or_default();
            let (result, consumed, bytes, fields) =
                self.parser.read_record(part, free_text, free_ends);
            self.bytes += bytes;
            self.fields += fields;
            match result {
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    let detail = format!(
                        "starts a record of more than {LINE_MAX_BYTES} bytes or {MAX_FIELDS} fields"
                    );
                    return Err(FileFault::new(first.number, detail));
                }
                _ if consumed < part.len() => {
                    let detail = format!("ends a record at byte {consumed} and goes on");
                    return Err(FileFault::new(line.at.number, detail));
                }
                ReadRecordResult::Record => return Ok(true),
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
            }
        }
        Ok(false)
    }

    fn record(self, at: LineNumber) -> Result<FileRecord<'a>, FileFault> {
        let bytes = self.text.get(..self.bytes).unwrap_or_default();
        let text =
            std::str::from_utf8(bytes).map_err(|_| FileFault::new(at.number, "is not UTF-8"))?;
        let ends = self.ends.get(..self.fields).unwrap_or_default();
        Ok(FileRecord { at, text, ends })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Result<Vec<(u64, Vec<String>)>, String> {
        let mut records = FileRecords::new(text.as_bytes(), b';', Quoting::Lenient);
        let mut seen = Vec::new();
        while let Some(record) = records.next_record().map_err(|error| error.to_string())? {
            seen.push((record.at.number, record.fields().map(str::to_owned).collect()));
        }
        Ok(seen)
    }

    /// A row's line, and its fields or why it is rejected.
    type Row = (u64, Result<Vec<String>, String>);

    fn rows(text: &str, quoting: Quoting) -> Result<Vec<Row>, String> {
        let mut records = FileRecords::new(text.as_bytes(), b';', quoting);
        let mut seen = Vec::new();
        while let Some(row) = records.next_row().map_err(|error| error.to_string())? {
            seen.push(match row {
                Ok(row) => (row.at.number, Ok(row.fields().map(str::to_owned).collect())),
                Err(rejected) => (rejected.line, Err(rejected.detail)),
            });
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
    fn a_record_of_several_lines_must_not_have_a_stray_quote() {
        let stray = all("a;\"b\nc;d\n\"e;f\";g\n").unwrap_err();
        assert!(stray.starts_with("line 1: has a stray quote"), "{stray}");
        assert_eq!(all("a;\"b\" c;d\"").unwrap(), [record(1, &["a", "b c", "d\""])]);
    }

    #[test]
    fn a_row_with_wrong_quotes_is_rejected_alone() {
        let text = "a;\"b\n\"c;d\"\n\"e\"\"f\";g\nh\";i\n\"j\"k;l\n";
        let open = "has a quote that is not closed on its line";
        let whole = [
            (1, Err(open.to_owned())),
            (2, Ok(vec!["c;d".to_owned()])),
            (3, Ok(vec!["e\"f".to_owned(), "g".to_owned()])),
        ];
        let strict = rows(text, Quoting::Strict).unwrap();
        assert_eq!(strict[..3], whole);
        assert_eq!(
            strict[3..],
            [(4, Err(STRAY_QUOTE.to_owned())), (5, Err(STRAY_QUOTE.to_owned()))]
        );
        let lenient = rows(text, Quoting::Lenient).unwrap();
        assert_eq!(lenient[..3], whole);
        assert_eq!(lenient[4], (5, Ok(vec!["jk".to_owned(), "l".to_owned()])));
    }

    #[test]
    fn a_file_that_ends_within_a_quoted_field_is_a_fault() {
        for quoting in [Quoting::Strict, Quoting::Lenient] {
            let fault = rows("a;b\nc;\"d", quoting).unwrap_err();
            assert_eq!(fault, "line 2: has a quote that is not closed");
            assert!(rows("a;b\nc;\"d\n", quoting).unwrap()[1].1.is_err());
        }
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
        fn every_line_that_is_not_blank_is_a_row_of_its_own(text in "[a;\"\r\n ]{0,60}") {
            let lines: Vec<u64> = text
                .replace("\r\n", "\n")
                .split(['\r', '\n'])
                .zip(1..)
                .filter(|(line, _)| !line.trim().is_empty())
                .map(|(_, number)| number)
                .collect();
            for quoting in [Quoting::Strict, Quoting::Lenient] {
                if let Ok(rows) = rows(&text, quoting) {
                    prop_assert_eq!(rows.iter().map(|(line, _)| *line).collect::<Vec<_>>(), lines.clone());
                }
            }
        }

        #[test]
        fn quoted_fields_round_trip(fields in prop::collection::vec("[a;\"é,]{1,8}", 1..6)) {
            let quoted: Vec<_> =
                fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
            prop_assert_eq!(all(&quoted.join(";")).unwrap(), vec![(1, fields)]);
        }
    }
}
