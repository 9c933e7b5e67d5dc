//! The history of a budget's results: a small line for each category, and the same numbers as a table.
//!
//! All lines have the same scales. Start, end and change stand beside each line as text, so the line itself is
//! decoration.

use maud::{Markup, html};

use super::rows::{percent, swatch};
use super::time::time;
use crate::history::{History, HistoryPoint};
use crate::texts::Texts;
use crate::view::BudgetView;

/// Ten-thousandths of a percent in one percent.
const PERCENT: u64 = 10_000;
/// Units of the drawing, of which both axes have this many.
const UNITS: u64 = 1_000;

/// Renders the history; nothing without a line.
pub(super) fn history(budget: &BudgetView, history: &History, texts: &Texts) -> Markup {
    let Some((first, last)) = history.ends() else { return html! {} };
    let scale = history.largest_average().div_ceil(10 * PERCENT).max(1) * 10 * PERCENT;
    html! {
        section id="history" {
            h2 { (texts.text("history")) }
            p class="note" {
                (texts.markup("history_span", &[("from", time(first.at, &budget.zone, texts)), ("to", time(last.at, &budget.zone, texts))]))
            }
            ul class="lines" {
                @for (index, category) in budget.categories.iter().enumerate() {
                    li {
                        span class="name" { (swatch(category)) (category.name) }
                        (line(history, (first, last), index, scale))
                        span class="change" { (change(average(first, index), average(last, index), texts)) }
                    }
                }
            }
            details {
                summary { (texts.text("history_days")) }
                (days(budget, history, texts))
            }
            p class="links" {
                a href={ "/v1/budgets/" (budget.id) "/history?format=csv" } { (texts.text("history_data")) }
            }
        }
    }
}

fn average(point: &HistoryPoint, category: usize) -> u64 {
    point.averages.get(category).copied().unwrap_or_default()
}

/// Draws one category's line. Geometry is in attributes, since the security policy forbids `style`.
fn line(
    history: &History,
    (first, last): (&HistoryPoint, &HistoryPoint),
    category: usize,
    scale: u64,
) -> Markup {
    let seconds = |point: &HistoryPoint| {
        u64::try_from(point.at.as_second() - first.at.as_second()).unwrap_or_default()
    };
    let span = seconds(last).max(1);
    let corners: Vec<String> = history
        .points()
        .iter()
        .map(|point| {
            let x = seconds(point) * UNITS / span;
            let y = UNITS - average(point, category).min(scale) * UNITS / scale;
            format!("{x},{y}")
        })
        .collect();
    html! {
        svg class="line" aria-hidden="true" focusable="false" width="100%" height="36"
            viewBox={ "0 0 " (UNITS) " " (UNITS) } preserveAspectRatio="none" {
            polyline points=(corners.join(" ")) vector-effect="non-scaling-stroke" {}
        }
    }
}

/// Says from where to where an average went.
fn change(start: u64, end: u64, texts: &Texts) -> String {
    let write = |value: u64| texts.numbers().decimals(value, 4, 1);
    let sign = match start.cmp(&end) {
        std::cmp::Ordering::Less => "+",
        std::cmp::Ordering::Equal => "",
        std::cmp::Ordering::Greater => "\u{2212}",
    };
    let difference = format!("{sign}{}", write(start.abs_diff(end)));
    let (start, end) = (percent(write(start), texts), percent(write(end), texts));
    texts.format("history_change", &[("start", &start), ("end", &end), ("change", &difference)])
}

/// Renders a row for each day, newest first.
fn days(budget: &BudgetView, history: &History, texts: &Texts) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="group" aria-label=(texts.text("history_days")) {
            table class="days" {
                thead {
                    tr {
                        th scope="col" { (texts.text("history_until")) }
                        th scope="col" { (texts.text("history_people")) }
                        @for category in &budget.categories { th scope="col" { (category.name) } }
                    }
                }
                tbody {
                    @for point in history.days() {
                        tr {
                            th scope="row" { (time(point.at, &budget.zone, texts)) }
                            td { (texts.numbers().whole(point.people)) }
                            @for index in 0..budget.categories.len() {
                                td { (percent(texts.numbers().decimals(average(point, index), 4, 1), texts)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
