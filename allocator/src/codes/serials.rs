//! Reads which serial numbers are meant: from an argument, or from a file such as printing makes.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use identity::{CodeKey, MAX_SERIAL, Serial};
use schemas::{SerialSet, SerialSetFault};

/// The first line of a file that printing makes.
const HEADER: &str = "serial,code";
/// Lines that are collected before they are merged, which bounds the memory for a file of single numbers.
const MERGE_INTERVAL: usize = 100_000;

/// Why serial numbers cannot be read. Does not repeat a line, which may have a code.
#[derive(Debug, thiserror::Error)]
pub enum SerialsFault {
    /// The argument is not a list.
    #[error("`--serial`: {0}")]
    Argument(SerialSetFault),
    /// Neither the argument nor the file names a serial number.
    #[error("name serial numbers with `--serial` or `--file`")]
    None,
    /// A number is higher than any serial number.
    #[error("serial numbers end at {MAX_SERIAL}")]
    TooHigh,
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line is neither serial numbers nor a printed line of this budget.
    #[error("{}: line {number} is neither a serial number nor a range nor `serial,code` of this budget", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        number: usize,
    },
}

/// Reads the serial numbers of an argument and of a file.
///
/// # Errors
/// When one of them is invalid, or both name nothing.
pub(super) fn read(
    argument: Option<&str>,
    file: Option<&Path>,
    key: &CodeKey,
) -> Result<SerialSet, SerialsFault> {
    let mut serials: SerialSet = match argument {
        Some(text) => text.parse().map_err(SerialsFault::Argument)?,
        None => SerialSet::default(),
    };
    if let Some(path) = file {
        let failed = |error| SerialsFault::File { path: path.to_owned(), error };
        let lines = BufReader::new(File::open(path).map_err(failed)?).lines();
        serials.extend(&read_lines(lines, key).map_err(|fault| match fault {
            LineFault::Read(error) => failed(error),
            LineFault::Invalid(number) => SerialsFault::Line { path: path.to_owned(), number },
        })?);
    }
    match serials.highest() {
        None => Err(SerialsFault::None),
        Some(highest) if highest > MAX_SERIAL => Err(SerialsFault::TooHigh),
        Some(_) => Ok(serials),
    }
}

#[derive(Debug)]
enum LineFault {
    Read(io::Error),
    Invalid(usize),
}

fn read_lines(
    lines: impl Iterator<Item = io::Result<String>>,
    key: &CodeKey,
) -> Result<SerialSet, LineFault> {
    let (mut serials, mut ranges) = (SerialSet::default(), Vec::new());
    for (index, line) in lines.enumerate() {
        let line = line.map_err(LineFault::Read)?;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || (index == 0 && line == HEADER) {
            continue;
        }
        let read = parse_line(line, key).ok_or(LineFault::Invalid(index + 1))?;
        ranges.extend(read.ranges().iter().cloned());
        if ranges.len() >= MERGE_INTERVAL {
            serials.extend(&ranges.drain(..).collect());
        }
    }
    serials.extend(&ranges.into_iter().collect());
    Ok(serials)
}

/// Parses serial numbers, or a line `serial,code`, whose code must be the serial number's.
fn parse_line(line: &str, key: &CodeKey) -> Option<SerialSet> {
    if let Ok(serials) = line.parse::<SerialSet>() {
        return Some(serials);
    }
    let (serial, code) = line.split_once(',')?;
    let serial: u32 = serial.parse().ok()?;
    let is_its_code = key.verify(code) == Some(Serial::new(serial)?);
    is_its_code.then(|| std::iter::once(serial..=serial).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemas::{BudgetId, PersonSecret};

    use super::*;

    fn key(budget: &str) -> CodeKey {
        let person_secret = PersonSecret::new(&[1; 32]).unwrap();
        CodeKey::new(&person_secret, &BudgetId::parse(budget).unwrap())
    }

    fn lines(text: &str) -> Result<String, usize> {
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        read_lines(lines, &key("parks")).map(|serials| serials.to_string()).map_err(|fault| {
            match fault {
                LineFault::Invalid(number) => number,
                LineFault::Read(error) => panic!("{error}"),
            }
        })
    }

    #[test]
    fn a_printed_file_and_a_list_name_the_same_codes() {
        let printed = |numbers: std::ops::RangeInclusive<u32>, budget: &str| {
            numbers
                .map(|number| {
                    format!("{number},{}\n", key(budget).code(Serial::new(number).unwrap()))
                })
                .collect::<String>()
        };
        assert_eq!(lines(&format!("serial,code\n{}", printed(3..=5, "parks"))).unwrap(), "3-5");
        assert_eq!(lines("# lost letters\n\n4\n3, 5\n 9-12 \r\n").unwrap(), "3-5,9-12");
        assert_eq!(lines("").unwrap(), "");
        // Neither another budget's file, nor one whose columns were mixed up.
        assert_eq!(lines(&printed(3..=3, "roads")), Err(1));
        assert_eq!(lines(&format!("1\n{}", printed(3..=3, "parks").replace("3,", "4,"))), Err(2));
        assert_eq!(lines("1\n2\nserial,code"), Err(3));
        let many: String = (0..250_000).map(|number| format!("{}\n", 2 * number)).collect();
        assert_eq!(lines(&many).unwrap().split(',').count(), 250_000);
    }

    #[test]
    fn nothing_and_numbers_that_are_too_high_are_refused() {
        let read = |argument| read(argument, None, &key("parks"));
        assert!(matches!(read(None), Err(SerialsFault::None)));
        assert!(matches!(read(Some("")), Err(SerialsFault::None)));
        assert!(matches!(read(Some("1-")), Err(SerialsFault::Argument(_))));
        assert!(matches!(read(Some("1-33554432")), Err(SerialsFault::TooHigh)));
        assert_eq!(read(Some("0-33554431")).unwrap().count(), 33_554_432);
    }
}
