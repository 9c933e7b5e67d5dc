//! Where the public keys of an identity provider come from: a file or a URL, bounded in size and time.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use super::jwks::{KeySet, MAX_KEY_SET_BYTES};
use crate::http_client;

/// Timeout of one read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A file or a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyLocation {
    File(PathBuf),
    Url(Url),
}

/// Reads a set of keys.
#[derive(Debug, Clone)]
pub(super) enum KeySource {
    File(PathBuf),
    Url(Client, Url),
}

impl KeySource {
    /// Prepares reading. Redirects are not followed, so that the keys come from where they were configured.
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new(location: &KeyLocation) -> Result<Self, reqwest::Error> {
        Ok(match location {
            KeyLocation::File(path) => Self::File(path.clone()),
            KeyLocation::Url(url) => {
                let client = http_client::builder()
                    .timeout(READ_TIMEOUT)
                    .redirect(Policy::none())
                    .build()?;
                Self::Url(client, url.clone())
            }
        })
    }

    /// Reads the keys.
    ///
    /// # Errors
    /// Why they cannot be read, for the log.
    pub async fn read(&self) -> Result<KeySet, String> {
        let json = match self {
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path));
                let read = tokio::time::timeout(READ_TIMEOUT, read).await;
                read.map_err(|_| "reading the file timed out".to_owned())?
                    .map_err(|error| error.to_string())??
            }
            Self::Url(client, url) => download(client, url.clone()).await?,
        };
        KeySet::parse(&json).map_err(|fault| fault.to_string())
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut json = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_KEY_SET_BYTES as u64 + 1)
        .read_to_end(&mut json)
        .map_err(|error| error.to_string())?;
    within_limit(json)
}

async fn download(client: &Client, url: Url) -> Result<Vec<u8>, String> {
    let text = |error: reqwest::Error| error.without_url().to_string();
    let mut response = client.get(url).send().await.map_err(text)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(format!("the answer has the status {}", response.status()));
    }
    let mut json = Vec::new();
    while json.len() <= MAX_KEY_SET_BYTES
        && let Some(chunk) = response.chunk().await.map_err(text)?
    {
        json.extend_from_slice(&chunk);
    }
    within_limit(json)
}

fn within_limit(json: Vec<u8>) -> Result<Vec<u8>, String> {
    if json.len() > MAX_KEY_SET_BYTES {
        return Err(format!("has more than {MAX_KEY_SET_BYTES} bytes"));
    }
    Ok(json)
}
