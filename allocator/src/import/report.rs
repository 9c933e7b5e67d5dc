//! The texts that an import prints at its end.

use std::fmt::Write;
use std::time::Duration;

use super::file::RejectedEntry;
use super::formats::percent::format_percent;
use super::progress::{Counts, per_second};
use super::totals::ImportTotals;

/// The counts of a dry run.
pub fn dry_run(ballots: u64, rejected: u64) -> String {
    format!("{ballots} ballots read, {rejected} refused\n")
}

/// The totals by category, and the number of people.
pub fn people(totals: &ImportTotals) -> String {
    let mut text = String::new();
    let people = totals.people();
    if let Some(width) = totals.totals().map(|(id, _)| id.as_str().len()).max() {
        let _ = writeln!(
            text,
            "{:width$}  {:>18}  {:>9}",
            "category", "total basis points", "average %"
        );
        for (id, total) in totals.totals() {
            // Rounded down; the total next to it is exact.
            let average = format_percent(total / people.max(1));
            let _ = writeln!(text, "{:width$}  {total:>18}  {average:>9}", id.as_str());
        }
    }
    let _ = writeln!(text, "{people} people counted");
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

/// A hint for files that hold equal entries by chance. Empty if no entry was repeated by its content alone.
pub fn repeated_by_content(entries: u64) -> String {
    if entries == 0 {
        return String::new();
    }
    format!(
        "{entries} entries without a person had been counted before, by this file or by one with equal entries; if they \
         are other people than those, import a file of these entries alone with --anonymous-ids file: the others are \
         counted now\n"
    )
}
