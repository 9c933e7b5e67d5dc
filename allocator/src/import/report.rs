//! What an import prints when it is over.

use std::fmt::Write;
use std::time::Duration;

use super::file::Refusal;
use super::formats::percent::percent;
use super::progress::{Counts, per_second};
use super::survey::Survey;

/// What a file would come to.
pub fn dry_run(survey: &Survey) -> String {
    let mut text = format!("{} ballots read, {} refused\n", survey.ballots, survey.refused);
    if !survey.categories.is_empty() {
        let width = survey.categories.iter().map(|c| c.id.as_str().len()).max().unwrap_or_default();
        let _ = writeln!(
            text,
            "{:width$}  {:>18}  {:>9}",
            "category", "total basis points", "average %"
        );
        for (category, total) in survey.categories.iter().zip(&survey.totals) {
            // Rounded down: the exact number stands beside it.
            let average = percent(total / survey.ballots.max(1));
            let _ = writeln!(text, "{:width$}  {total:>18}  {average:>9}", category.id.as_str());
        }
    }
    text
}

/// What was done.
pub fn summary(entries: u64, counts: Counts, elapsed: Duration) -> String {
    let Counts { accepted, repeated, refused } = counts;
    let rate = per_second(counts.answered(), elapsed);
    let seconds = elapsed.as_secs_f64();
    format!(
        "{entries} entries read: {accepted} accepted, {repeated} repeated, {refused} refused, \
         in {seconds:.1} s ({rate}/s)\n"
    )
}

/// The first refusals, and how many there are.
pub fn refusals(first: &[Refusal], total: u64) -> String {
    let mut text = String::new();
    for Refusal { line, detail } in first {
        let _ = writeln!(text, "line {line}: {detail}");
    }
    let more = total.saturating_sub(first.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "and {more} more");
    }
    text
}
