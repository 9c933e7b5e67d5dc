//! Reloads the tokens file when it changes, within seconds.
//!
//! While the file is invalid or missing, the previous credentials stay in use; a warning and a metric report it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::credentials::Credentials;
use super::guard::AdminGuard;
use super::tokens_file::read_text;

/// Interval for reading the file. A change takes effect after two equal reads, since the file may be half written.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Timeout of one read.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What to do after a read.
#[derive(Debug)]
enum Step {
    /// The file equals the credentials in use.
    Unchanged,
    /// The file changed since the last read.
    AwaitStable,
    /// The file has new valid credentials.
    Apply(Credentials),
    /// The file is invalid; the fault.
    Invalid(String),
    /// The file is invalid, and this was reported.
    StillInvalid,
}

/// The file's state as of the last reads.
struct TokensFileState {
    /// The text of the credentials in use.
    active: String,
    /// The last read, if it differs from the active text.
    candidate: Option<Result<String, String>>,
    /// Whether the candidate was reported as invalid.
    reported: bool,
}

impl TokensFileState {
    fn observe(&mut self, read: Result<String, String>) -> Step {
        if read.as_ref() == Ok(&self.active) {
            (self.candidate, self.reported) = (None, false);
            return Step::Unchanged;
        }
        if self.candidate.as_ref() != Some(&read) {
            (self.candidate, self.reported) = (Some(read), false);
            return Step::AwaitStable;
        }
        if self.reported {
            return Step::StillInvalid;
        }
        let parsed = read.and_then(|text| {
            // A reload may revoke the last credential: then no client is an administrator.
            let parsed = Credentials::parse_or_empty(&text).map_err(|faults| faults.to_string())?;
            Ok((text, parsed))
        });
        match parsed {
            Ok((text, credentials)) => {
                (self.active, self.candidate) = (text, None);
                Step::Apply(credentials)
            }
            Err(fault) => {
                self.reported = true;
                Step::Invalid(fault)
            }
        }
    }
}

impl AdminGuard {
    /// Reloads the tokens file whenever it changes, until `stop`. Does nothing if none is configured.
    pub async fn reload_tokens_file(self, stop: CancellationToken) {
        let Some((path, active)) = self.tokens_file() else { return };
        let mut state = TokensFileState { active, candidate: None, reported: false };
        let mut pending_read = None;
        loop {
            let read = async {
                sleep(POLL_INTERVAL).await;
                read_with_timeout(&path, &mut pending_read).await
            };
            let Some(read) = stop.run_until_cancelled(read).await else { return };
            match state.observe(read) {
                Step::Unchanged => self.set_tokens_file_wrong(false),
                Step::AwaitStable | Step::StillInvalid => {}
                Step::Apply(credentials) => {
                    tracing::info!(
                        credentials = credentials.count(),
                        "administrator tokens reloaded"
                    );
                    self.set_tokens_file_wrong(false);
                    self.replace_credentials(credentials);
                }
                Step::Invalid(fault) => {
                    tracing::warn!(
                        file = %path.display(),
                        error = fault,
                        "tokens file is invalid, keeping the previous administrator tokens"
                    );
                    self.set_tokens_file_wrong(true);
                }
            }
        }
    }
}

/// Reads the file. After a timeout the next call awaits the same read, so that at most one read is pending.
async fn read_with_timeout(
    path: &Arc<PathBuf>,
    pending_read: &mut Option<JoinHandle<Result<String, String>>>,
) -> Result<String, String> {
    let path = Arc::clone(path);
    let read =
        pending_read.get_or_insert_with(|| tokio::task::spawn_blocking(move || read_text(&path)));
    let Ok(finished) = timeout(READ_TIMEOUT, read).await else {
        return Err(format!(
            "expected a file that can be read within {} s",
            READ_TIMEOUT.as_secs()
        ));
    };
    *pending_read = None;
    finished.unwrap_or_else(|error| Err(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn line(name: &str) -> String {
        format!("{name} viewer sha256:{}\n", "0".repeat(64))
    }

    fn initial_state() -> TokensFileState {
        TokensFileState { active: line("vera"), candidate: None, reported: false }
    }

    /// Returns the step after each read.
    fn steps(reads: &[Result<&str, &str>]) -> Vec<String> {
        let mut state = initial_state();
        let owned = |read: &Result<&str, &str>| read.map(str::to_owned).map_err(str::to_owned);
        let name = |step| match step {
            Step::Apply(credentials) => {
                let names: Vec<&str> = credentials.0.iter().map(|(who, _)| who.name()).collect();
                format!("Apply {}", names.join(" "))
            }
            Step::Invalid(_) => "Invalid".to_owned(),
            other => format!("{other:?}"),
        };
        reads.iter().map(|read| name(state.observe(owned(read)))).collect()
    }

    #[test]
    fn a_changed_file_applies_after_two_equal_reads() {
        let (vera, otto) = (line("vera"), line("otto"));
        let half = &otto[..otto.len() / 2];
        let reads = [Ok(&*vera), Ok(half), Ok(&*otto), Ok(&*otto), Ok(&*otto)];
        assert_eq!(
            steps(&reads),
            ["Unchanged", "AwaitStable", "AwaitStable", "Apply otto", "Unchanged"]
        );
    }

    #[test]
    fn the_last_credential_can_be_revoked() {
        assert_eq!(steps(&[Ok(""), Ok(""), Ok("")]), ["AwaitStable", "Apply ", "Unchanged"]);
    }

    #[test]
    fn an_invalid_file_is_reported_once_and_a_valid_one_applies_again() {
        let (vera, otto) = (line("vera"), line("otto"));
        for invalid in [Ok("vera viewer"), Err("no such file")] {
            let reads = [invalid, invalid, invalid, Ok(&*otto), Ok(&*otto)];
            assert_eq!(
                steps(&reads),
                ["AwaitStable", "Invalid", "StillInvalid", "AwaitStable", "Apply otto"]
            );
            // The previous text is restored.
            assert_eq!(
                steps(&[invalid, invalid, Ok(&*vera)]),
                ["AwaitStable", "Invalid", "Unchanged"]
            );
        }
    }
}
