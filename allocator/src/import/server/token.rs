//! The token that an import sends: a service's for batches, an administrator's to create a budget.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::HeaderValue;

use super::super::error::ImportError;

/// Where `allocator run` puts the token of its first start, by default.
const RUN_TOKEN_FILE: &str = "data/admin.token";

/// A token, and where it was found if no argument named the file.
#[derive(Debug, Clone)]
pub struct Token {
    pub(super) header: HeaderValue,
    found_in: Option<PathBuf>,
}

impl Token {
    /// Returns what a user can do who did not choose the token that the server refuses; `None` if an argument named its
    /// file.
    pub(super) fn how_to_replace(&self) -> Option<String> {
        let file = self.found_in.as_ref()?.display();
        Some(format!(
            "the token is of {file}, which may be another server's: pass the file of this server's token as --token-file"
        ))
    }
}

/// Reads the token of the file that is named, or else of an `allocator run` in the current directory, for a server on
/// this machine. `None` if there is neither.
///
/// # Errors
/// When the file cannot be read or does not hold one token.
pub async fn find_token(named: Option<&Path>, server: &str) -> Result<Option<Token>, ImportError> {
    let found_in = if named.is_none() { default_token_file(server) } else { None };
    match named.or(found_in.as_deref()) {
        Some(path) => Ok(Some(Token { header: read_token(path).await?, found_in })),
        None => Ok(None),
    }
}

/// Returns the token file of an `allocator run` in the current directory, for a server on this machine.
fn default_token_file(server: &str) -> Option<PathBuf> {
    let file = PathBuf::from(RUN_TOKEN_FILE);
    (is_this_machine(server) && file.is_file()).then_some(file)
}

/// Reads the token of a file, which may be a pipe.
async fn read_token(path: &Path) -> Result<HeaderValue, ImportError> {
    let invalid =
        |what: &str| ImportError::Usage(format!("--token-file {}: {what}", path.display()));
    let text =
        tokio::fs::read_to_string(path).await.map_err(|error| invalid(&error.to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid("must hold one token of visible ASCII characters"));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| invalid("must hold one token of visible ASCII characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_this_machine(server: &str) -> bool {
    let Ok(url) = Url::parse(server) else { return false };
    url.host_str().is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_did_not_choose_the_token_is_told_its_file() {
        let token = |found_in| Token { header: HeaderValue::from_static("Bearer x"), found_in };
        assert_eq!(token(None).how_to_replace(), None);
        let hint = token(Some(RUN_TOKEN_FILE.into())).how_to_replace().unwrap_or_default();
        assert!(hint.contains("data/admin.token") && hint.contains("--token-file"), "{hint}");
    }

    #[test]
    fn the_token_of_this_machine_is_sent_to_no_other() {
        for here in ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000/x"] {
            assert!(is_this_machine(here), "{here}");
        }
        for elsewhere in
            ["http://localhost.example", "http://192.0.2.1", "https://town.example", "?"]
        {
            assert!(!is_this_machine(elsewhere), "{elsewhere}");
        }
    }
}
