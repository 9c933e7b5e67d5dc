//! Checks the quotes of a record. The CSV parser reports no fault in them: it reads a misplaced quote as it can.

/// How strictly the quotes of a record are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quoting {
    /// A stray quote is a fault.
    Strict,
    /// A stray quote is text as long as the record is on one line. Names in published Pabulib files have such quotes.
    Lenient,
}

/// Follows the quotes of one record, line by line.
#[derive(Debug, Clone, Copy)]
pub struct QuoteScan {
    delimiter: u8,
    state: State,
    stray: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte of a field.
    FieldStart,
    /// In a field without quotes.
    Unquoted,
    /// In a quoted field.
    Quoted,
    /// After a quote in a quoted field, which either closes the field or is the first of a doubled one.
    Closed,
}

impl QuoteScan {
    /// Starts before a record.
    pub fn new(delimiter: u8) -> Self {
        Self { delimiter, state: State::FieldStart, stray: false }
    }

    /// Scans the record's next line, which has no line ending.
    pub fn line(&mut self, line: &str) {
        for byte in line.bytes() {
            self.state = match (self.state, byte) {
                (State::Quoted, b'"') => State::Closed,
                (State::Quoted, _) | (State::Closed | State::FieldStart, b'"') => State::Quoted,
                (_, byte) if byte == self.delimiter => State::FieldStart,
                (State::Closed, _) | (State::Unquoted, b'"') => {
                    self.stray = true;
                    State::Unquoted
                }
                (State::FieldStart | State::Unquoted, _) => State::Unquoted,
            };
        }
    }

    /// Whether the record goes on in the next line.
    pub fn is_open(&self) -> bool {
        self.state == State::Quoted
    }

    /// Whether a quote is neither at the beginning nor at the end of its field, and not doubled within quotes.
    pub fn is_stray(&self) -> bool {
        self.stray
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use csv_core::{ReadRecordResult, ReaderBuilder};
    use proptest::prelude::*;

    fn scan(line: &str) -> (bool, bool) {
        let mut quotes = QuoteScan::new(b',');
        quotes.line(line);
        (quotes.is_open(), quotes.is_stray())
    }

    #[test]
    fn a_quote_is_stray_unless_it_encloses_a_field_or_is_doubled_within_one() {
        for line in ["", "a,b", "\"a\",b", "a,\"b,c\"", "\"\"", "\"a \"\"b\"\"\",c", "\"\"\"\""] {
            assert_eq!(scan(line), (false, false), "{line}");
        }
        for line in ["a\"", "a\"b,c", " \"a\"", "\"a\" ,b", "\"a\"b", "\"\"a", "a,\"b\"\"\"c"] {
            assert_eq!(scan(line), (false, true), "{line}");
        }
        for line in ["\"", "\"a,b", "a,\"b\"\"", "\"a\",\"b"] {
            assert_eq!(scan(line), (true, false), "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_record_is_open_where_the_csv_parser_waits_for_more(line in "[a\",\u{e9} ]{1,20}") {
            let mut parser = ReaderBuilder::new().build();
            let (mut text, mut ends) = ([0; 100], [0; 100]);
            parser.read_record(line.as_bytes(), &mut text, &mut ends);
            let (result, ..) = parser.read_record(b"\n", &mut text, &mut ends);
            prop_assert_eq!(scan(&line).0, result != ReadRecordResult::Record);
        }
    }
}
