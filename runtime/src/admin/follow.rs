//! Follows the tokens' file: what it says holds within seconds. A file that is wrong, or is not there, changes nothing: the
//! tokens that were read before hold, and a warning and a metric say so.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::credentials::Credentials;
use super::guard::AdminGuard;
use super::tokens_file::read_text;

/// How often the file is looked at. What holds is at most twice as old: it has to look the same two times, as it may be
/// in the middle of being written.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a look at the file led to.
#[derive(Debug)]
enum Step {
    /// It is what holds.
    Same,
    /// It has changed just now.
    Wait,
    /// It says this, from now on.
    Take(Credentials),
    /// It is wrong: why.
    Wrong(String),
    /// It is wrong still.
    StillWrong,
}

/// What the file was.
struct Followed {
    /// The text that holds.
    held: String,
    /// What was seen last, if that is something else.
    seen: Option<Result<String, String>>,
    /// What was seen last is known to be wrong.
    told: bool,
}

impl Followed {
    fn look(&mut self, now: Result<String, String>) -> Step {
        if now.as_ref() == Ok(&self.held) {
            (self.seen, self.told) = (None, false);
            return Step::Same;
        }
        if self.seen.as_ref() != Some(&now) {
            (self.seen, self.told) = (Some(now), false);
            return Step::Wait;
        }
        if self.told {
            return Step::StillWrong;
        }
        let parsed = now.and_then(|text| {
            let parsed = Credentials::parse(&text).map_err(|faults| faults.to_string())?;
            Ok((text, parsed))
        });
        match parsed {
            Ok((text, credentials)) => {
                (self.held, self.seen) = (text, None);
                Step::Take(credentials)
            }
            Err(fault) => {
                self.told = true;
                Step::Wrong(fault)
            }
        }
    }
}

impl AdminGuard {
    /// Reads the tokens' file again whenever it has changed, until `stop`. Does nothing where none is configured.
    pub async fn follow_tokens_file(self, stop: CancellationToken) {
        let Some((path, held)) = self.tokens_file() else { return };
        let mut followed = Followed { held, seen: None, told: false };
        loop {
            let looked = async {
                sleep(LOOK_INTERVAL).await;
                look(&path).await
            };
            let Some(now) = stop.run_until_cancelled(looked).await else { return };
            match followed.look(now) {
                Step::Same => self.tokens_are_wrong(false),
                Step::Wait | Step::StillWrong => {}
                Step::Take(credentials) => {
                    tracing::info!(
                        credentials = credentials.count(),
                        "the administrators' tokens were read again"
                    );
                    self.tokens_are_wrong(false);
                    self.take(credentials);
                }
                Step::Wrong(fault) => {
                    tracing::warn!(file = %path.display(), fault, "the administrators' tokens of before hold: their file is wrong");
                    self.tokens_are_wrong(true);
                }
            }
        }
    }
}

async fn look(path: &Arc<PathBuf>) -> Result<String, String> {
    let path = Arc::clone(path);
    let read = tokio::task::spawn_blocking(move || read_text(&path)).await;
    read.unwrap_or_else(|error| Err(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn line(name: &str) -> String {
        format!("{name} viewer sha256:{}\n", "0".repeat(64))
    }

    fn followed() -> Followed {
        Followed { held: line("vera"), seen: None, told: false }
    }

    /// What each of these looks leads to.
    fn steps(looks: &[Result<&str, &str>]) -> Vec<String> {
        let mut followed = followed();
        let owned = |look: &Result<&str, &str>| look.map(str::to_owned).map_err(str::to_owned);
        let name = |step| match step {
            Step::Take(credentials) => format!("Take {}", credentials.0[0].0.name()),
            Step::Wrong(_) => "Wrong".to_owned(),
            other => format!("{other:?}"),
        };
        looks.iter().map(|look| name(followed.look(owned(look)))).collect()
    }

    #[test]
    fn a_new_file_holds_once_it_has_stood_still() {
        let (vera, otto) = (line("vera"), line("otto"));
        let half = &otto[..otto.len() / 2];
        let looks = [Ok(&*vera), Ok(half), Ok(&*otto), Ok(&*otto), Ok(&*otto)];
        assert_eq!(steps(&looks), ["Same", "Wait", "Wait", "Take otto", "Same"]);
    }

    #[test]
    fn a_wrong_file_is_told_of_once_and_a_right_one_holds_again() {
        let (vera, otto) = (line("vera"), line("otto"));
        for wrong in [Ok(""), Ok("vera viewer"), Err("no such file")] {
            let looks = [wrong, wrong, wrong, Ok(&*otto), Ok(&*otto)];
            assert_eq!(steps(&looks), ["Wait", "Wrong", "StillWrong", "Wait", "Take otto"]);
            // As it was before.
            assert_eq!(steps(&[wrong, wrong, Ok(&*vera)]), ["Wait", "Wrong", "Same"]);
        }
    }
}
