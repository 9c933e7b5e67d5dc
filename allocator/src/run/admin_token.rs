//! The administrator's token that the first start makes: `admin.token` in the data directory, for its owner alone, and
//! its digest in `admin.tokens`, to which the operator may add others.
//!
//! A client on the same machine is not an administrator without the token: behind a proxy on this machine, every client
//! would be one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use runtime::admin::{Role, TokensFile};
use runtime::random::{NoRandomBits, random_128_bits};
use storage::private_files;

/// The file of the token, in the data directory.
pub const TOKEN_FILE: &str = "admin.token";
/// The file of the digests, in the data directory.
const TOKENS_FILE: &str = "admin.tokens";
/// The name of the first administrator, as in the log.
const FIRST_ADMINISTRATOR: &str = "admin";
const COMMENT: &str =
    "# Administrators, one in each line: NAME ROLE sha256:HEX. Read again when it changes.";

/// Why there is no administrator's token.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// A file cannot be read or written.
    #[error("the administrator's token in {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The digests are invalid.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is expected.
        reason: String,
    },
    /// A token cannot be made.
    #[error(transparent)]
    Random(#[from] NoRandomBits),
}

/// Reads the tokens file of a data directory. Makes it, and a token, if it does not exist.
///
/// # Errors
/// When a file cannot be read, written or understood.
pub fn ensure(dir: &Path) -> Result<TokensFile, AdminTokenError> {
    let path = dir.join(TOKENS_FILE);
    if !path.exists() {
        let token = first_token(dir)?;
        let line = TokensFile::line(FIRST_ADMINISTRATOR, Role::Admin, &token);
        create(&path, &format!("{COMMENT}\n{line}\n"))?;
    }
    private_files::close_file(&path);
    private_files::close_file(&dir.join(TOKEN_FILE));
    TokensFile::open_or_empty(path.clone())
        .map_err(|reason| AdminTokenError::Invalid { path, reason })
}

/// Returns the token of an interrupted first start, or a new one.
fn first_token(dir: &Path) -> Result<String, AdminTokenError> {
    let path = dir.join(TOKEN_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(AdminTokenError::Io { path, source }),
    }
    let token = hex::encode([random_128_bits()?, random_128_bits()?].concat());
    create(&path, &format!("{token}\n"))?;
    Ok(token)
}

fn create(path: &Path, text: &str) -> Result<(), AdminTokenError> {
    private_files::create_whole(path, text)
        .map_err(|source| AdminTokenError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(dir: &Path, name: &str) -> String {
        std::fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn a_token_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        ensure(dir.path()).unwrap();
        let token = read(dir.path(), TOKEN_FILE);
        let tokens = read(dir.path(), TOKENS_FILE);
        assert_eq!(token.trim().len(), 64);
        assert!(!tokens.contains(token.trim()));
        let line = TokensFile::line("admin", Role::Admin, token.trim());
        assert_eq!(tokens.lines().last(), Some(&*line));
        for name in [TOKEN_FILE, TOKENS_FILE] {
            let mode = dir.path().join(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        ensure(dir.path()).unwrap();
        assert_eq!(read(dir.path(), TOKEN_FILE), token);
        assert_eq!(read(dir.path(), TOKENS_FILE), tokens);
    }

    #[test]
    fn an_interrupted_first_start_is_completed_with_its_token() {
        let dir = tempfile::tempdir().unwrap();
        ensure(dir.path()).unwrap();
        let tokens = read(dir.path(), TOKENS_FILE);
        std::fs::remove_file(dir.path().join(TOKENS_FILE)).unwrap();
        ensure(dir.path()).unwrap();
        assert_eq!(read(dir.path(), TOKENS_FILE), tokens);
    }

    #[test]
    fn other_administrators_replace_the_first_one_and_wrong_lines_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let line = TokensFile::line("alice", Role::Viewer, &"a".repeat(40));
        std::fs::write(dir.path().join(TOKENS_FILE), line).unwrap();
        ensure(dir.path()).unwrap();
        assert!(!dir.path().join(TOKEN_FILE).exists(), "a token that nobody needs");
        std::fs::write(dir.path().join(TOKENS_FILE), "# nobody\n").unwrap();
        ensure(dir.path()).unwrap();
        std::fs::write(dir.path().join(TOKENS_FILE), "alice").unwrap();
        assert!(matches!(ensure(dir.path()), Err(AdminTokenError::Invalid { .. })));
    }
}
