//! Counts the outcomes of a file's entries, and the people whom they leave counted; displays the progress of an import.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use runtime::progress::{self, ProgressUpdate};
use tokio_util::sync::CancellationToken;

use super::file::RejectedEntry;
use super::server::ItemOutcome;
use super::totals::{Effect, ImportTotals};

/// Maximum number of rejected entries kept for printing.
const MAX_PRINTED_REJECTED: usize = 20;

/// Counts entries by outcome.
#[derive(Debug, Default)]
pub struct ImportProgress {
    accepted: AtomicU64,
    repeated: AtomicU64,
    rejected: AtomicU64,
    repeated_by_content: AtomicU64,
    first_rejected: Mutex<Vec<RejectedEntry>>,
    totals: Mutex<ImportTotals>,
}

/// What is left of an entry after it was sent.
pub struct SentEntry {
    /// Number of the entry's first line, from 1.
    pub line: u64,
    /// The entry's effect if it is accepted. `None` for a repeat of an earlier entry.
    pub effect: Option<Effect>,
    /// Whether the submission id is derived from the allocation alone.
    pub is_named_by_content: bool,
}

/// A snapshot of the counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Appended to the log by this import.
    pub accepted: u64,
    /// Already in the log before.
    pub repeated: u64,
    /// Rejected by the parser or by the server.
    pub rejected: u64,
}

impl Counts {
    /// The number of entries with a final outcome.
    pub fn total(&self) -> u64 {
        self.accepted + self.repeated + self.rejected
    }
}

impl ImportProgress {
    /// Starts with an empty totals.
    pub fn new(totals: ImportTotals) -> Self {
        Self { totals: Mutex::new(totals), ..Self::default() }
    }

    /// Counts the outcome of an entry. The entries of one person must come in the order of the file.
    pub fn record(&self, entry: SentEntry, outcome: ItemOutcome) {
        match outcome {
            ItemOutcome::Accepted => _ = self.accepted.fetch_add(1, Ordering::Relaxed),
            ItemOutcome::Repeated => {
                self.repeated.fetch_add(1, Ordering::Relaxed);
                let by_content = u64::from(entry.is_named_by_content);
                self.repeated_by_content.fetch_add(by_content, Ordering::Relaxed);
            }
            ItemOutcome::Rejected(detail) => {
                return self.reject(RejectedEntry { line: entry.line, detail });
            }
        }
        if let Some(effect) = entry.effect {
            self.totals.lock().apply(effect);
        }
    }

    /// Counts a rejected entry.
    pub fn reject(&self, entry: RejectedEntry) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first_rejected.lock();
        // Responses arrive in any order. The kept entries are those of the first lines of the file.
        let index = first.partition_point(|other| other.line <= entry.line);
        first.insert(index, entry);
        first.truncate(MAX_PRINTED_REJECTED);
    }

    /// Takes a snapshot of the counts.
    pub fn counts(&self) -> Counts {
        Counts {
            accepted: self.accepted.load(Ordering::Relaxed),
            repeated: self.repeated.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }

    /// The number of repeated entries whose submission id is derived from their allocation alone.
    pub fn repeated_by_content(&self) -> u64 {
        self.repeated_by_content.load(Ordering::Relaxed)
    }

    /// Reads the people and totals that are left counted.
    pub fn with_totals<T>(&self, read: impl FnOnce(&ImportTotals) -> T) -> T {
        read(&self.totals.lock())
    }

    /// The rejected entries of the first lines.
    pub fn first_rejected(&self) -> Vec<RejectedEntry> {
        self.first_rejected.lock().clone()
    }

    /// Displays the counts on standard error until `stop` is cancelled.
    pub async fn show(&self, entries: u64, stop: CancellationToken) {
        progress::show("", stop, |elapsed| {
            let counts = self.counts();
            let (done, rejected) = (counts.total(), counts.rejected);
            let rate = per_second(done, elapsed);
            let message = if rejected > 0 { format!("{rejected} rejected") } else { String::new() };
            let line = format!("{done} of {entries} done, {rejected} rejected, {rate}/s");
            ProgressUpdate { done, total: entries, message, line }
        })
        .await;
    }
}

/// Computes a rate per second, rounded down.
pub fn per_second(count: u64, elapsed: Duration) -> u64 {
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1000) / ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_rejected_entries_are_those_of_the_first_lines_in_any_order_of_responses() {
        let progress = ImportProgress::default();
        for line in (1..=100).rev() {
            let entry = SentEntry { line, effect: None, is_named_by_content: false };
            progress.record(entry, ItemOutcome::Rejected("no".to_owned()));
        }
        let lines: Vec<u64> = progress.first_rejected().iter().map(|entry| entry.line).collect();
        assert_eq!(lines, (1..=MAX_PRINTED_REJECTED as u64).collect::<Vec<_>>());
        assert_eq!(progress.counts(), Counts { rejected: 100, ..Counts::default() });
    }
}
