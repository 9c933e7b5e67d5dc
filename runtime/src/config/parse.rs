//! Parsers for [`Key`](super::Key). Each error states what is expected and does not repeat the text.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Upper bound of every duration: a year. Far beyond any use, and far from overflowing a clock.
const MAX_DURATION_MS: u64 = 365 * 24 * 60 * 60 * 1000;

fn number<T: FromStr>(text: &str, expected: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| expected.to_owned())
}

/// Parses an optional text; empty means none.
///
/// # Errors
/// None.
pub fn optional_text(text: &str) -> Result<Option<String>, String> {
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Parses a switch.
///
/// # Errors
/// If it is neither `true` nor `false`.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Parses a text that is not blank.
///
/// # Errors
/// If it is empty or blank.
pub fn non_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("expected a text that is not empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// Parses an address with a port, for example `127.0.0.1:8000` or `[::1]:8000`.
///
/// # Errors
/// If it is a host name, or the port is missing.
pub fn socket_addr(text: &str) -> Result<SocketAddr, String> {
    number(text, "expected address:port, for example 127.0.0.1:8000")
}

/// Parses a file system path, without checking that it exists.
///
/// # Errors
/// If it is empty.
pub fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected a path".to_owned()) } else { Ok(PathBuf::from(text)) }
}

/// Parses an optional path; empty means none.
///
/// # Errors
/// None.
pub fn optional_path(text: &str) -> Result<Option<PathBuf>, String> {
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// Parses a whole number of milliseconds, 0 to a year.
///
/// # Errors
/// If it is not such a number.
pub fn duration_ms(text: &str) -> Result<Duration, String> {
    let expected = "expected a whole number of milliseconds, at most a year";
    match number(text, expected)? {
        ms if ms <= MAX_DURATION_MS => Ok(Duration::from_millis(ms)),
        _ => Err(expected.to_owned()),
    }
}

/// Parses a whole number of milliseconds, 1 to a year.
///
/// # Errors
/// If it is not such a number.
pub fn positive_duration_ms(text: &str) -> Result<Duration, String> {
    match duration_ms(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => {
            Err("expected a whole number of milliseconds, at least 1 and at most a year".to_owned())
        }
    }
}

/// Parses a whole number from 0 to 65,535, for example a port.
///
/// # Errors
/// If it is not such a number.
pub fn u16(text: &str) -> Result<u16, String> {
    number(text, "expected a whole number from 0 to 65535")
}

/// Parses a whole number, at least 1.
///
/// # Errors
/// If it is not such a number.
pub fn positive_u64(text: &str) -> Result<u64, String> {
    number::<NonZeroU64>(text, "expected a whole number, at least 1").map(NonZeroU64::get)
}

/// Parses a whole number from 1 to 4,294,967,295.
///
/// # Errors
/// If it is not such a number.
pub fn positive_u32(text: &str) -> Result<u32, String> {
    number::<NonZeroU32>(text, "expected a whole number from 1 to 4294967295").map(NonZeroU32::get)
}

/// Parses a whole number, at least 1.
///
/// # Errors
/// If it is not such a number.
pub fn positive_usize(text: &str) -> Result<usize, String> {
    number::<NonZeroUsize>(text, "expected a whole number, at least 1").map(NonZeroUsize::get)
}

/// Parses a comma-separated list of one or more non-empty texts.
///
/// # Errors
/// If an item is empty.
pub fn list(text: &str) -> Result<Vec<String>, String> {
    let items: Vec<String> = text.split(',').map(|item| item.trim().to_owned()).collect();
    if items.iter().any(String::is_empty) {
        Err("expected one or more texts separated by commas, none of them empty".to_owned())
    } else {
        Ok(items)
    }
}
