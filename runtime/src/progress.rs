//! Progress display on standard error: a bar on a terminal, a line every two seconds elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::console;

const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// The progress at one moment.
#[derive(Debug, Clone, Default)]
pub struct ProgressUpdate {
    /// Completed amount.
    pub done: u64,
    /// Total amount.
    pub total: u64,
    /// Text after the bar.
    pub message: String,
    /// Line printed where there is no bar.
    pub line: String,
}

/// Shows progress until `stop` is cancelled. `label` precedes the bar; `poll` gets the elapsed time.
pub async fn show(label: &str, stop: CancellationToken, poll: impl Fn(Duration) -> ProgressUpdate) {
    let bar = ProgressBar::new(0);
    let template =
        format!("{label}{{wide_bar}} {{human_pos}}/{{human_len}} {{per_sec}} eta {{eta}} {{msg}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    let hidden = bar.is_hidden();
    let mut ticks = interval(if hidden { LINE_INTERVAL } else { BAR_INTERVAL });
    ticks.tick().await;
    let started = Instant::now();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let ProgressUpdate { done, total, message, line } = poll(started.elapsed());
        if hidden {
            console::err(&format!("{line}\n"));
        } else {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(message);
        }
    }
    bar.finish_and_clear();
}
