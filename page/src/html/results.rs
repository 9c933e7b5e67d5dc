//! The results: one table that is also the chart.

use maud::{Markup, html};

use super::rows::{percent, swatch};
use super::time::{time, time_with};
use crate::texts::Texts;
use crate::view::{BudgetView, CategoryResult, ReferenceView, Results, ShownResults, Withheld};

/// Ten-thousandths of a percent in one percent.
const PERCENT: u64 = 10_000;

/// Renders results, with the person's own shares in basis points where they are known.
pub(super) fn results(
    budget: &BudgetView,
    results: &Results,
    own: Option<&[u16]>,
    texts: &Texts,
) -> Markup {
    match results {
        Results::NotYet => html! { p class="withheld" { (texts.text("results_not_yet")) } },
        Results::Unavailable => {
            html! { p class="withheld" role="note" { (texts.text("results_unavailable")) } }
        }
        Results::Withheld(withheld) => html! {
            p class="withheld" { (withheld_text(*withheld, budget, texts)) }
            (steps_note(budget, texts))
        },
        Results::Shown(shown) => html! {
            p id="people" { (texts.format("people", &[("people", &texts.numbers().whole(shown.people))])) }
            @if shown.annulled > 0 {
                p id="annulled" { (texts.format("annulled", &[("people", &texts.numbers().whole(shown.annulled))])) }
            }
            @if shown.is_final { p id="final" { (texts.text("final_result")) } }
            @if shown.people == 0 && (shown.is_final || budget.publish_step.is_one()) {
                p id="nobody" { (texts.text("nobody_yet")) }
            }
            @if !shown.is_final { (steps_note(budget, texts)) }
            @if let Some(at) = shown.updated_at {
                p class="as-of" { (texts.markup("as_of", &[("time", time_with(at, &budget.zone, texts, Some("as-of")))])) }
            }
            p id="pause-area" {}
            (legend(own.is_some(), budget.reference.is_some(), texts))
            (table(budget, shown, own, texts))
            p class="note" { (texts.text("rounded")) " " (texts.text("median_note")) }
            @if let Some(reference) = &budget.reference { (reference_note(reference, texts)) }
        },
    }
}

fn withheld_text(withheld: Withheld, budget: &BudgetView, texts: &Texts) -> Markup {
    match withheld {
        Withheld::AfterClose(until) => {
            texts.markup("withheld_after_close", &[("time", time(until, &budget.zone, texts))])
        }
        Withheld::Counting => html! { (texts.text("withheld_counting")) },
        Withheld::MinimumPeople => html! { (texts.text("withheld_minimum_people")) },
        Withheld::UnknownRule => html! { (texts.text("withheld_unknown_rule")) },
    }
}

/// Says that results move in steps, where they do: the page's numbers stay although an answer is counted.
fn steps_note(budget: &BudgetView, texts: &Texts) -> Markup {
    let people = texts.numbers().whole(budget.publish_step.get().into());
    html! {
        @if !budget.publish_step.is_one() {
            p id="steps" { (texts.format("moves_in_steps", &[("people", &people)])) }
        }
    }
}

fn legend(with_own: bool, with_reference: bool, texts: &Texts) -> Markup {
    html! {
        p class="legend" {
            span class="key average" { (texts.text("legend_average")) }
            " "
            span class="key you" hidden[!with_own] { (texts.text("legend_you")) }
            @if with_reference { " " span class="key real" { (texts.text("legend_real")) } }
        }
    }
}

/// Says whose spending it is, and where the figures are published.
fn reference_note(reference: &ReferenceView, texts: &Texts) -> Markup {
    let values = [("name", html! { (reference.name) }), ("source", html! { (reference.source) })];
    html! { p class="note reference" { (texts.markup("reference", &values)) } }
}

/// Renders the table. Explicit roles keep it a table where the style sheet stacks it.
fn table(budget: &BudgetView, shown: &ShownResults, own: Option<&[u16]>, texts: &Texts) -> Markup {
    let real = budget.reference.as_ref().map(|reference| reference.shares.as_slice());
    let share = |shares: Option<&[u16]>, index: usize| shares?.get(index).copied();
    let rows: Vec<Row> = (0..budget.categories.len())
        .map(|index| Row::new(shown, index, share(own, index), share(real, index)))
        .collect();
    let scale = scale(&rows);
    html! {
        table id="averages" role="table" class=[real.map(|_| "with-real")] data-scale=(scale) {
            caption class="visually-hidden" { (texts.text("table_caption")) }
            thead role="rowgroup" {
                tr role="row" {
                    th class="name" scope="col" role="columnheader" { (texts.text("column_category")) }
                    th class="bar" aria-hidden="true" {}
                    th class="average" scope="col" role="columnheader" { (texts.text("column_average")) }
                    th class="median" scope="col" role="columnheader" { (texts.text("column_median")) }
                    th class="you" scope="col" role="columnheader" hidden[own.is_none()] { (texts.text("column_you")) }
                    @if real.is_some() { th class="real" scope="col" role="columnheader" { (texts.text("column_real")) } }
                }
            }
            tbody role="rowgroup" {
                @for (category, row) in budget.categories.iter().zip(&rows) {
                    tr role="row" data-category=(category.id) {
                        th class="name" scope="row" role="rowheader" { (swatch(category)) (category.name) }
                        td class="bar" aria-hidden="true" { (row.bar(scale)) }
                        td class="average" role="cell" { (percent(texts.numbers().decimals(row.average, 4, 1), texts)) }
                        td class="median" role="cell" { (percent(texts.numbers().decimals(row.result.median_tenths, 1, 1), texts)) }
                        td class="you" role="cell" hidden[own.is_none()] {
                            @if let Some(own) = row.own { (percent(texts.numbers().percent(own.into()), texts)) }
                        }
                        @if let Some(real) = row.real {
                            td class="real" role="cell" { (percent(texts.numbers().percent(real.into()), texts)) }
                        }
                    }
                }
            }
        }
    }
}

/// The numbers of one row.
struct Row {
    result: CategoryResult,
    /// In ten-thousandths of a percent.
    average: u64,
    /// In basis points.
    own: Option<u16>,
    /// Real spending, in basis points.
    real: Option<u16>,
}

impl Row {
    fn new(shown: &ShownResults, index: usize, own: Option<u16>, real: Option<u16>) -> Self {
        let result = shown.categories.get(index).copied().unwrap_or_default();
        Self { result, average: result.average(shown.people), own, real }
    }

    fn largest(&self) -> u64 {
        let shares = [self.own, self.real].map(Option::unwrap_or_default);
        shares.map(in_units_of_average).into_iter().fold(self.average, u64::max)
    }

    /// Draws the bar. Geometry is in attributes, since the security policy forbids `style`.
    fn bar(&self, scale: u64) -> Markup {
        html! {
            svg class="bar-chart" aria-hidden="true" focusable="false" width="100%" height="24" {
                rect class="average" y="2" height="12" width=(of_scale(self.average, scale)) {}
                @if let Some(real) = self.real {
                    rect class="real" x=(of_scale(in_units_of_average(real), scale)) width="3" height="16" {}
                }
                @if let Some(own) = self.own {
                    svg class="you-marker" x=(of_scale(in_units_of_average(own), scale)) y="15" overflow="visible" {
                        path class="you" d="M-5 7L0 0L5 7z" {}
                    }
                }
            }
        }
    }
}

/// Converts basis points to ten-thousandths of a percent.
fn in_units_of_average(basis_points: u16) -> u64 {
    u64::from(basis_points) * (PERCENT / 100)
}

/// Returns the percent at the end of the bars: the largest number, rounded up to a multiple of 10.
fn scale(rows: &[Row]) -> u64 {
    let largest = rows.iter().map(Row::largest).max();
    largest.unwrap_or_default().div_ceil(10 * PERCENT).max(1) * 10
}

/// Writes a length as a percentage of the bar's width, with two decimals.
fn of_scale(value: u64, scale: u64) -> String {
    // A hundredth of a percent of the width.
    let hundredths = value.saturating_mul(10_000) / (scale * PERCENT);
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}
