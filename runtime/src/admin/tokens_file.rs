//! Reads the tokens' file: one line a credential, `NAME ROLE sha256:HEX`. Blank lines and lines that begin with `#` are
//! skipped. No fault repeats what a line holds: it could be a token in the wrong place.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::credentials::{Credentials, LOCAL, Principal, TokenDigest};
use super::role::Role;

/// The most bytes of the file: some six hundred credentials.
const FILE_MAX_BYTES: u64 = 64 * 1024;
/// A line has more bytes than that: there are never more credentials than places.
const LINE_MIN_BYTES: u64 = 64;
/// As many credentials as there can ever be.
pub(super) const CREDENTIALS_MAX: usize = (FILE_MAX_BYTES / LINE_MIN_BYTES) as usize;
const NAME_MAX: usize = 64;
/// Faults that are told of; a file that is no tokens' file at all has one in every line.
const TOLD_MAX: usize = 20;

/// Everything that is wrong with a file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TokensFileFaults(Vec<String>);

impl fmt::Display for TokensFileFaults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.0.get(..TOLD_MAX).unwrap_or(&self.0);
        out.write_str(&told.join("; "))?;
        match self.0.len() - told.len() {
            0 => Ok(()),
            more => write!(out, "; and {more} more"),
        }
    }
}

/// A file that is right, as it was read last.
#[derive(Clone)]
pub struct TokensFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) credentials: Credentials,
}

impl fmt::Debug for TokensFile {
    /// Nothing of what it holds.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TokensFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Reads the file of a setting; no path, no credentials.
///
/// # Errors
/// What would be right, when the file cannot be read or is not right.
pub(super) fn read(path: &str) -> Result<Option<TokensFile>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(path);
    let text = read_text(&path)?;
    let credentials = Credentials::parse(&text).map_err(|faults| faults.to_string())?;
    Ok(Some(TokensFile { path, text, credentials }))
}

/// What the file holds.
///
/// # Errors
/// What would be right, when it cannot be read.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let cannot = |error| format!("expected a file of text that can be read: {error}");
    let mut text = String::new();
    let file = File::open(path).map_err(cannot)?;
    let bytes = file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text).map_err(cannot)?;
    if bytes as u64 > FILE_MAX_BYTES {
        return Err(format!("expected a file of at most {FILE_MAX_BYTES} bytes"));
    }
    Ok(text)
}

impl Credentials {
    /// Reads the text of a tokens' file.
    ///
    /// # Errors
    /// Every fault, with its line; or that there is no credential.
    pub fn parse(text: &str) -> Result<Self, TokensFileFaults> {
        let read = Self::parse_any(text)?;
        if read.0.is_empty() {
            // Taken for none at all, it would let in whoever is on this machine.
            let expected = "expected at least one line NAME ROLE sha256:HEX".to_owned();
            return Err(TokensFileFaults(vec![expected]));
        }
        Ok(read)
    }

    /// Reads the text of a tokens' file, which may have no credential.
    ///
    /// # Errors
    /// Every fault, with its line.
    pub(super) fn parse_any(text: &str) -> Result<Self, TokensFileFaults> {
        let mut reading = Reading::default();
        for (place, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                reading.line(place + 1, line);
            }
        }
        if reading.faults.is_empty() {
            Ok(Self(reading.credentials))
        } else {
            Err(TokensFileFaults(reading.faults))
        }
    }
}

#[derive(Default)]
struct Reading {
    credentials: Vec<(Principal, TokenDigest)>,
    /// The line of each of them.
    lines: Vec<usize>,
    faults: Vec<String>,
}

impl Reading {
    fn line(&mut self, number: usize, line: &str) {
        let mut words = line.split_whitespace();
        let (Some(name), Some(role), Some(digest), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return self.fault(number, "expected three words: NAME ROLE sha256:HEX");
        };
        let before = self.faults.len();
        if !is_name(name) {
            self.fault(
                number,
                "expected a name of 1 to 64 letters, digits and `._@-`, other than `local`",
            );
        }
        let role = role.parse::<Role>();
        if role.is_err() {
            self.fault(number, "expected a role: viewer, operator or admin");
        }
        let digest = digest.strip_prefix("sha256:").and_then(TokenDigest::parse);
        if digest.is_none() {
            self.fault(
                number,
                "expected `sha256:` and the 64 hexadecimal digits of the token's SHA-256, never the token itself",
            );
        }
        let same = |other: &(Principal, TokenDigest)| *other.0.name == *name;
        self.taken(number, "the name", same);
        self.taken(number, "the token", |other| Some(&other.1) == digest.as_ref());
        if let (Ok(role), Some(digest), true) = (role, digest, self.faults.len() == before) {
            let place = self.credentials.len();
            let principal = Principal { name: Arc::from(name), role, place };
            self.credentials.push((principal, digest));
            self.lines.push(number);
        }
    }

    /// Two credentials are two people or programs: by the log they must be told apart.
    fn taken(
        &mut self,
        number: usize,
        what: &str,
        same: impl Fn(&(Principal, TokenDigest)) -> bool,
    ) {
        if let Some(place) = self.credentials.iter().position(same) {
            let line = self.lines.get(place).copied().unwrap_or_default();
            self.fault(number, &format!("{what} is that of line {line}"));
        }
    }

    fn fault(&mut self, number: usize, expected: &str) {
        self.faults.push(format!("line {number}: {expected}"));
    }
}

fn is_name(text: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(fit) && text != LOCAL
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    /// `printf %s 0123456789abcdef0123456789abcdef | sha256sum`
    const DIGEST: &str = "3eb1bd439947eb762998e566ccc2e099c791118b2f40579cc4f7da2b5061b7f9";

    fn other(last: char) -> String {
        let (start, _) = DIGEST.split_at(63);
        format!("{start}{last}")
    }

    #[test]
    fn a_file_is_one_credential_a_line_between_comments_and_blanks() {
        let text = format!(
            "# who, what, token\n\n  alice  operator\tsha256:{DIGEST}  \nci@town viewer sha256:{}\r\n",
            other('0').to_uppercase()
        );
        let credentials = Credentials::parse(&text).unwrap();
        let alice = credentials.bearer_of(TOKEN.as_bytes()).unwrap();
        assert_eq!((alice.name(), alice.role(), alice.place), ("alice", Role::Operator, 0));
        assert_eq!(credentials.count(), 2);
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_line_and_without_what_stands_there() {
        let upper = DIGEST.to_uppercase();
        let text = format!(
            "alice operator sha256:{DIGEST}\n\
             {TOKEN} hunter2hunter2\n\
             \n\
             local viewer sha256:{}\n\
             b/d root {TOKEN}\n\
             alice viewer sha256:{}\n\
             carol admin sha256:{upper}\n\
             dan admin sha256:{TOKEN}\n",
            other('0'),
            other('1'),
        );
        let faults = Credentials::parse(&text).unwrap_err();
        let told = faults.to_string();
        let lines: Vec<&str> =
            told.split("; ").map(|fault| fault.split(": ").next().unwrap()).collect();
        assert_eq!(
            lines,
            ["line 2", "line 4", "line 5", "line 5", "line 5", "line 6", "line 7", "line 8"]
        );
        assert!(told.contains("line 6: the name is that of line 1"), "{told}");
        assert!(told.contains("line 7: the token is that of line 1"), "{told}");
        for held in [TOKEN, DIGEST, &upper, "hunter2", "root", "b/d"] {
            assert!(!told.contains(held) && !format!("{faults:?}").contains(held), "{held}");
        }
    }

    #[test]
    fn a_file_without_a_credential_is_refused_and_a_file_of_something_else_told_of_in_short() {
        for empty in ["", "\n# nobody yet\n"] {
            assert!(Credentials::parse(empty).unwrap_err().to_string().contains("at least one"));
        }
        let told = Credentials::parse(&"secret\n".repeat(1_000)).unwrap_err().to_string();
        assert!(told.ends_with("; and 980 more") && !told.contains("secret"), "{told}");
    }

    #[test]
    fn credentials_print_names_and_roles_and_nothing_of_a_token() {
        let printed =
            format!("{:?}", Credentials::parse(&format!("alice admin sha256:{DIGEST}")).unwrap());
        assert!(printed.contains("alice") && printed.contains("Admin"));
        // 0x3e, its first byte.
        assert!(!printed.contains(DIGEST) && !printed.contains("62"), "{printed}");
    }

    #[test]
    fn the_file_of_a_setting_is_bounded_and_must_be_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let read_of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(path.to_str().unwrap())
        };
        let line = format!("alice admin sha256:{DIGEST}\n");
        assert_eq!(read_of(line.as_bytes()).unwrap().unwrap().credentials.count(), 1);
        assert!(read_of(&[0xff, 0xfe]).is_err());
        assert!(read_of(&vec![b'#'; 64 * 1024 + 1]).unwrap_err().contains("at most"));
        assert!(read(directory.path().join("none").to_str().unwrap()).is_err());
        assert!(read("").unwrap().is_none());
    }
}
