//! The texts that an import prints at its end.

use std::fmt::Write;
use std::time::Duration;

use super::file::RejectedEntry;
use super::formats::percent::format_percent;
use super::progress::{Counts, per_second};
use super::scan::FileScan;

/// The totals of a file, by category.
pub fn dry_run(scan: &FileScan) -> String {
    let mut text = format!("{} ballots read, {} refused\n", scan.ballots, scan.rejected);
    if !scan.categories.is_empty() {
        let width = scan.categories.iter().map(|c| c.id.as_str().len()).max().unwrap_or_default();
        let _ = writeln!(
            text,
            "{:width$}  {:>18}  {:>9}",
            "category", "total basis points", "average %"
        );
        for (category, total) in scan.categories.iter().zip(&scan.totals) {
            // Rounded down; the total next to it is exact.
            let average = format_percent(total / scan.ballots.max(1));
            let _ = writeln!(text, "{:width$}  {total:>18}  {average:>9}", category.id.as_str());
        }
    }
    text
}

/// The counts and the rate of a finished import.
pub fn summary(entries: u64, counts: Counts, elapsed: Duration) -> String {
    let Counts { accepted, repeated, rejected } = counts;
    let rate = per_second(counts.total(), elapsed);
    let seconds = elapsed.as_secs_f64();
    format!(
        "{entries} entries read: {accepted} accepted, {repeated} repeated, {rejected} refused, \
         in {seconds:.1} s ({rate}/s)\n"
    )
}

/// The first rejected entries, and the number of the others.
pub fn rejected_entries(first: &[RejectedEntry], total: u64) -> String {
    let mut text = String::new();
    for RejectedEntry { line, detail } in first {
        let _ = writeln!(text, "line {line}: {detail}");
    }
    let more = total.saturating_sub(first.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "and {more} more");
    }
    text
}
