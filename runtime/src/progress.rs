//! How far something has come, on standard error: a bar on a terminal, now and then a line elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::console;

const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// How far it has come at one moment.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// So much is done.
    pub done: u64,
    /// Of so much.
    pub of: u64,
    /// What else the bar says.
    pub message: String,
    /// What is said where there is no bar.
    pub line: String,
}

/// Shows what `look` sees, given how long it has taken so far, until told to stop. `what` stands before the bar.
pub async fn show(what: &str, stop: CancellationToken, look: impl Fn(Duration) -> Look) {
    let bar = ProgressBar::new(0);
    let template =
        format!("{what}{{wide_bar}} {{human_pos}}/{{human_len}} {{per_sec}} eta {{eta}} {{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    let hidden = bar.is_hidden();
    let mut ticks = interval(if hidden { LINE_INTERVAL } else { BAR_INTERVAL });
    ticks.tick().await;
    let began = Instant::now();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let Look { done, of, message, line } = look(began.elapsed());
        if hidden {
            console::err(&format!("{line}\n"));
        } else {
            bar.set_length(of);
            bar.set_position(done);
            bar.set_message(message);
        }
    }
    bar.finish_and_clear();
}
