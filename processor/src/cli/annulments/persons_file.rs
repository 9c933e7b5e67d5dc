//! Reads person keys from a file: one in hexadecimal in each line. Blank lines and lines beginning with `#` are
//! skipped.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use schemas::{PersonKey, PersonKeys};

/// File name that means standard input.
pub(super) const STDIN: &str = "-";
/// Maximum length of a line, in bytes.
const MAX_LINE_BYTES: u64 = 1_024;

/// Why a file cannot be read. Does not repeat a line.
#[derive(Debug, thiserror::Error)]
pub(super) enum PersonsFileFault {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line is no key.
    #[error("{}: line {number} is not a person's key of 32 hexadecimal digits", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        number: usize,
    },
}

/// Reads the keys of a file, sorted and each once.
///
/// # Errors
/// When the file cannot be read, or a line is no key.
pub(super) fn read(path: &Path) -> Result<Vec<PersonKey>, PersonsFileFault> {
    let failed = |error| PersonsFileFault::Read { path: path.to_owned(), error };
    let keys = if path.as_os_str() == STDIN {
        read_lines(io::stdin().lock())
    } else {
        read_lines(BufReader::new(File::open(path).map_err(failed)?))
    };
    keys.map_err(|fault| match fault {
        LineFault::Read(error) => failed(error),
        LineFault::Invalid(number) => PersonsFileFault::Line { path: path.to_owned(), number },
    })
}

#[derive(Debug)]
enum LineFault {
    Read(io::Error),
    Invalid(usize),
}

fn read_lines(mut input: impl BufRead) -> Result<Vec<PersonKey>, LineFault> {
    let (mut keys, mut line) = (Vec::new(), Vec::new());
    for number in 1.. {
        line.clear();
        let bytes = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if bytes.map_err(LineFault::Read)? == 0 {
            break;
        }
        let text = line.trim_ascii();
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let key = std::str::from_utf8(text).ok().and_then(|text| PersonKeys::parse_key(text).ok());
        keys.push(key.ok_or(LineFault::Invalid(number))?);
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Result<usize, usize> {
        match read_lines(text.as_bytes()) {
            Ok(keys) => Ok(keys.len()),
            Err(LineFault::Invalid(number)) => Err(number),
            Err(LineFault::Read(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn a_file_has_any_number_of_keys_and_each_counts_once() {
        let key = "00112233445566778899aabbccddeeff";
        let text = format!("# from the signals\n\n{key}\r\n  {}  \n{key}", key.to_uppercase());
        assert_eq!(lines(&text), Ok(1));
        let many: String = (0..5_000).map(|number| format!("{number:032x}\n")).collect();
        assert_eq!(lines(&many), Ok(5_000));
        assert_eq!(lines(""), Ok(0));
    }

    #[test]
    fn a_line_that_is_no_key_is_named_by_its_number() {
        let key = "00112233445566778899aabbccddeeff";
        for wrong in ["x", &key[1..], &format!("{key} {key}"), "\u{fffd}", &"0".repeat(5_000)] {
            assert_eq!(lines(&format!("{key}\n\n{wrong}\n")), Err(3), "{wrong}");
        }
    }
}
