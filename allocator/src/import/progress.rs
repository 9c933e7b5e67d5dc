//! What became of a file's entries so far, and how it is shown: a bar on a terminal, now and then a line elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use runtime::progress::{self, Look};
use tokio_util::sync::CancellationToken;

use super::file::Refusal;
use super::server::ItemOutcome;
use super::survey::REFUSALS_SHOWN;

/// Counts entries by what became of them.
#[derive(Debug, Default)]
pub struct Progress {
    accepted: AtomicU64,
    repeated: AtomicU64,
    refused: AtomicU64,
    first_refusals: Mutex<Vec<Refusal>>,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Are in the log since this import sent them.
    pub accepted: u64,
    /// Were there before.
    pub repeated: u64,
    /// Are no submissions, for the reader or for the server.
    pub refused: u64,
}

impl Counts {
    /// How many entries have a final answer.
    pub fn answered(&self) -> u64 {
        self.accepted + self.repeated + self.refused
    }
}

impl Progress {
    /// Counts what the server said to the entry on a line.
    pub fn note(&self, line: u64, outcome: ItemOutcome) {
        match outcome {
            ItemOutcome::Accepted => _ = self.accepted.fetch_add(1, Ordering::Relaxed),
            ItemOutcome::Repeated => _ = self.repeated.fetch_add(1, Ordering::Relaxed),
            ItemOutcome::Refused(detail) => self.refuse(Refusal { line, detail }),
        }
    }

    /// Counts an entry that is no submission.
    pub fn refuse(&self, refusal: Refusal) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first_refusals.lock().unwrap_or_else(PoisonError::into_inner);
        // Answers come in no order; the first lines of the file are the ones to show.
        let place = first.partition_point(|other| other.line <= refusal.line);
        first.insert(place, refusal);
        first.truncate(REFUSALS_SHOWN);
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        Counts {
            accepted: self.accepted.load(Ordering::Relaxed),
            repeated: self.repeated.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// The refusals of the lowest lines.
    pub fn first_refusals(&self) -> Vec<Refusal> {
        self.first_refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows the counts on standard error until told to stop.
    pub async fn show(&self, entries: u64, stop: CancellationToken) {
        progress::show("", stop, |elapsed| {
            let counts = self.counts();
            let (answered, refused) = (counts.answered(), counts.refused);
            let rate = per_second(answered, elapsed);
            let message = if refused > 0 { format!("{refused} refused") } else { String::new() };
            let line = format!("{answered} of {entries} answered, {refused} refused, {rate}/s");
            Look { done: answered, of: entries, message, line }
        })
        .await;
    }
}

/// A rate, as a whole number.
pub fn per_second(count: u64, elapsed: Duration) -> u64 {
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1000) / ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusals_kept_are_those_of_the_first_lines_whatever_the_order_of_answers() {
        let progress = Progress::default();
        for line in (1..=100).rev() {
            progress.note(line, ItemOutcome::Refused("no".to_owned()));
        }
        let lines: Vec<u64> =
            progress.first_refusals().iter().map(|refusal| refusal.line).collect();
        assert_eq!(lines, (1..=REFUSALS_SHOWN as u64).collect::<Vec<_>>());
        assert_eq!(progress.counts(), Counts { refused: 100, ..Counts::default() });
    }
}
