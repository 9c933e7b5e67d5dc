//! Parses the tokens file: one credential per line, `NAME ROLE sha256:HEX`. Blank lines and `#` comments are skipped.
//! A line of the role `submitter` may end with `budgets=ID,ID` and `organisation=NAME`.
//!
//! Faults do not repeat a line's text, since it could be a token in the wrong field.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::credentials::{Credentials, LOCAL_NAME, Principal, ServiceAttributes, TokenDigest};
use super::role::Role;

/// Maximum size of the file: about six hundred credentials.
const MAX_FILE_BYTES: u64 = 64 * 1024;
const MAX_NAME_LENGTH: usize = 64;
/// Maximum number of faults printed; a file of another kind has a fault in every line.
const MAX_PRINTED_FAULTS: usize = 20;

/// All faults of a file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TokensFileFaults(Vec<String>);

impl fmt::Display for TokensFileFaults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printed = self.0.get(..MAX_PRINTED_FAULTS).unwrap_or(&self.0);
        out.write_str(&printed.join("; "))?;
        match self.0.len() - printed.len() {
            0 => Ok(()),
            more => write!(out, "; and {more} more"),
        }
    }
}

/// A valid tokens file, as last read.
#[derive(Clone)]
pub struct TokensFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) credentials: Credentials,
}

impl fmt::Debug for TokensFile {
    /// Omits the content.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TokensFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl TokensFile {
    /// Reads a tokens file that may have no credential: then nobody is an administrator.
    ///
    /// # Errors
    /// What is expected, if the file cannot be read or is invalid.
    pub fn open_or_empty(path: PathBuf) -> Result<Self, String> {
        let text = read_text(&path)?;
        let credentials =
            Credentials::parse_or_empty(&text).map_err(|faults| faults.to_string())?;
        Ok(Self { path, text, credentials })
    }

    /// Reads a configured tokens file.
    ///
    /// # Errors
    /// What is expected, if the file cannot be read or is invalid.
    fn open(path: PathBuf) -> Result<Self, String> {
        let text = read_text(&path)?;
        let credentials = Credentials::parse(&text).map_err(|faults| faults.to_string())?;
        Ok(Self { path, text, credentials })
    }

    /// Returns the line of a token, without its end.
    pub fn line(name: &str, role: Role, token: &str) -> String {
        format!("{name} {role} sha256:{}", hex::encode(Sha256::digest(token)))
    }
}

/// Reads the file named by a setting. An empty path means no credentials.
///
/// # Errors
/// What is expected, if the file cannot be read or is invalid.
pub(super) fn read(path: &str) -> Result<Option<TokensFile>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    TokensFile::open(PathBuf::from(path)).map(Some)
}

/// Reads the text of the file.
///
/// # Errors
/// What is expected, if the file cannot be read.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let unreadable = |error| format!("expected a readable text file: {error}");
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    let bytes = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if bytes as u64 > MAX_FILE_BYTES {
        return Err(format!("expected a file of at most {MAX_FILE_BYTES} bytes"));
    }
    Ok(text)
}

impl Credentials {
    /// Parses the text of a tokens file, which must have at least one credential.
    ///
    /// # Errors
    /// All faults, with their lines.
    pub fn parse(text: &str) -> Result<Self, TokensFileFaults> {
        let credentials = Self::parse_or_empty(text)?;
        if credentials.0.is_empty() {
            // Treating an empty file as no file would make every local client an administrator.
            let expected = "expected at least one line NAME ROLE sha256:HEX".to_owned();
            return Err(TokensFileFaults(vec![expected]));
        }
        Ok(credentials)
    }

    /// Parses the text of a tokens file, which may have no credential.
    ///
    /// # Errors
    /// All faults, with their lines.
    pub(super) fn parse_or_empty(text: &str) -> Result<Self, TokensFileFaults> {
        let mut parser = Parser::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                parser.line(index + 1, line);
            }
        }
        if parser.faults.is_empty() {
            Ok(Self(parser.credentials))
        } else {
            Err(TokensFileFaults(parser.faults))
        }
    }
}

#[derive(Default)]
struct Parser {
    credentials: Vec<(Principal, TokenDigest)>,
    /// The line number of each credential.
    lines: Vec<usize>,
    faults: Vec<String>,
}

impl Parser {
    fn line(&mut self, number: usize, line: &str) {
        let mut words = line.split_whitespace();
        let (Some(name), Some(role), Some(digest)) = (words.next(), words.next(), words.next())
        else {
            return self.fault(number, "expected three words: NAME ROLE sha256:HEX");
        };
        let faults_before = self.faults.len();
        if !is_name(name) {
            self.fault(
                number,
                "expected a name of 1 to 64 letters, digits and `._@-`, other than `local`",
            );
        }
        let role = role.parse::<Role>();
        if role.is_err() {
            self.fault(number, "expected a role: submitter, viewer, operator or admin");
        }
        let digest = digest.strip_prefix("sha256:").and_then(TokenDigest::parse);
        if digest.is_none() {
            self.fault(
                number,
                "expected `sha256:` and the 64 hexadecimal digits of the token's SHA-256, never the token itself",
            );
        }
        let service = parse_attributes(words);
        match &service {
            Err(expected) => self.fault(number, expected),
            // Ignored, they would limit nothing.
            Ok(service)
                if *service != ServiceAttributes::default() && role != Ok(Role::Submitter) =>
            {
                self.fault(
                    number,
                    "`budgets=` and `organisation=` are for the role submitter alone",
                );
            }
            Ok(_) => {}
        }
        let same = |other: &(Principal, TokenDigest)| *other.0.name == *name;
        self.reject_duplicate(number, "the name", same);
        self.reject_duplicate(number, "the token", |other| Some(&other.1) == digest.as_ref());
        let is_valid = self.faults.len() == faults_before;
        if let (Ok(role), Some(digest), Ok(service), true) = (role, digest, service, is_valid) {
            let slot = self.credentials.len();
            let principal = Principal { name: Arc::from(name), role, service, slot };
            self.credentials.push((principal, digest));
            self.lines.push(number);
        }
    }

    /// Rejects a name or token used in an earlier line, since the log must distinguish administrators.
    fn reject_duplicate(
        &mut self,
        number: usize,
        what: &str,
        same: impl Fn(&(Principal, TokenDigest)) -> bool,
    ) {
        if let Some(index) = self.credentials.iter().position(same) {
            let line = self.lines.get(index).copied().unwrap_or_default();
            self.fault(number, &format!("{what} is already used in line {line}"));
        }
    }

    fn fault(&mut self, number: usize, expected: &str) {
        self.faults.push(format!("line {number}: {expected}"));
    }
}

/// Parses the words after the digest. An unknown one is a fault: it might limit what the token is for.
fn parse_attributes<'a>(
    words: impl Iterator<Item = &'a str>,
) -> Result<ServiceAttributes, &'static str> {
    let mut service = ServiceAttributes::default();
    for word in words {
        match word.split_once('=') {
            Some(("budgets", ids))
                if service.budgets.is_none() && ids.split(',').all(has_name_characters) =>
            {
                service.budgets = Some(ids.split(',').map(str::to_owned).collect());
            }
            Some(("organisation", name))
                if service.organisation.is_none() && has_name_characters(name) =>
            {
                service.organisation = Some(name.into());
            }
            _ => {
                return Err(
                    "after the digest, only `budgets=ID,ID` and `organisation=NAME` are allowed, each at most once",
                );
            }
        }
    }
    Ok(service)
}

fn is_name(text: &str) -> bool {
    has_name_characters(text) && text != LOCAL_NAME
}

fn has_name_characters(text: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    (1..=MAX_NAME_LENGTH).contains(&text.len()) && text.bytes().all(is_valid)
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
    fn a_file_has_one_credential_per_line_between_comments_and_blanks() {
        let text = format!(
            "# who, what, token\n\n  alice  operator\tsha256:{DIGEST}  \nci@town viewer sha256:{}\r\n",
            other('0').to_uppercase()
        );
        let credentials = Credentials::parse(&text).unwrap();
        let alice = credentials.find_by_token(TOKEN.as_bytes()).unwrap();
        assert_eq!((alice.name(), alice.role(), alice.slot), ("alice", Role::Operator, 0));
        let line = TokensFile::line("alice", Role::Operator, TOKEN);
        assert_eq!(line, format!("alice operator sha256:{DIGEST}"));
        assert_eq!(credentials.count(), 2);
    }

    #[test]
    fn all_faults_are_reported_with_their_lines_and_without_the_text() {
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
        let printed = faults.to_string();
        let lines: Vec<&str> =
            printed.split("; ").map(|fault| fault.split(": ").next().unwrap()).collect();
        assert_eq!(
            lines,
            ["line 2", "line 4", "line 5", "line 5", "line 5", "line 6", "line 7", "line 8"]
        );
        assert!(printed.contains("line 6: the name is already used in line 1"), "{printed}");
        assert!(printed.contains("line 7: the token is already used in line 1"), "{printed}");
        for secret in [TOKEN, DIGEST, &upper, "hunter2", "root", "b/d"] {
            assert!(
                !printed.contains(secret) && !format!("{faults:?}").contains(secret),
                "{secret}"
            );
        }
    }

    #[test]
    fn a_submitters_line_may_name_its_budgets_and_organisation_and_others_may_not() {
        let parse = |role: &str, attributes: &str| {
            Credentials::parse(&format!("load {role} sha256:{DIGEST}{attributes}"))
        };
        let service = |attributes: &str| {
            let credentials = parse("submitter", attributes).unwrap();
            credentials.find_by_token(TOKEN.as_bytes()).unwrap().service().clone()
        };
        assert_eq!(service(""), ServiceAttributes::default());
        let both = service("  organisation=town.example\tbudgets=parks,roads-2 ");
        assert_eq!(both.organisation.as_deref(), Some("town.example"));
        assert_eq!(both.budgets.as_deref(), Some(&["parks".to_owned(), "roads-2".to_owned()][..]));
        assert_eq!(service(" budgets=parks").organisation, None);
        for wrong in [
            "budgets",
            "budgets=",
            "budgets=a,,b",
            "budgets=a budgets=b",
            "budget=a",
            "organisation=",
            "organisation=a organisation=a",
            "organisation=a/b",
            TOKEN,
        ] {
            let fault = parse("submitter", &format!(" {wrong}")).unwrap_err().to_string();
            assert!(
                fault.contains("after the digest, only") && !fault.contains(TOKEN),
                "{wrong}: {fault}"
            );
        }
        for role in ["viewer", "operator", "admin"] {
            let fault = parse(role, " budgets=parks").unwrap_err().to_string();
            assert!(fault.contains("submitter alone"), "{fault}");
        }
    }

    #[test]
    fn a_file_without_credentials_is_rejected_and_the_fault_list_is_bounded() {
        for empty in ["", "\n# none yet\n"] {
            assert!(Credentials::parse(empty).unwrap_err().to_string().contains("at least one"));
        }
        let printed = Credentials::parse(&"secret\n".repeat(1_000)).unwrap_err().to_string();
        assert!(printed.ends_with("; and 980 more") && !printed.contains("secret"), "{printed}");
    }

    #[test]
    fn printed_credentials_have_names_and_roles_but_no_digests() {
        let printed =
            format!("{:?}", Credentials::parse(&format!("alice admin sha256:{DIGEST}")).unwrap());
        assert!(printed.contains("alice") && printed.contains("Admin"));
        // 62 is 0x3e, the first byte of the digest.
        assert!(!printed.contains(DIGEST) && !printed.contains("62"), "{printed}");
    }

    #[test]
    fn the_configured_file_is_bounded_and_must_be_text() {
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
