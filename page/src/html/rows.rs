//! The rows of the form: one category each.

use maud::{Markup, html};

use crate::form::{FormFault, FormValues};
use crate::number::NumberFault;
use crate::texts::Texts;
use crate::view::{BudgetText, BudgetView, CategoryView};

/// Descriptions with more characters are folded.
const DESCRIPTION_UNFOLDED_MAX_CHARS: usize = 120;

/// Renders the rows. Faulty fields have their text and `aria-invalid`.
pub(super) fn rows(
    budget: &BudgetView,
    values: &FormValues,
    faults: &[FormFault],
    texts: &Texts,
) -> Markup {
    html! {
        ol class="rows" {
            @for (index, category) in budget.categories.iter().enumerate() {
                @let typed = values.typed().get(index).map_or("", String::as_str);
                (row(category, typed, fault_at(index, faults), texts))
            }
        }
    }
}

fn row(category: &CategoryView, typed: &str, fault: Option<NumberFault>, texts: &Texts) -> Markup {
    let id = &category.id;
    let described_by = match category.description {
        Some(_) => format!("d-{id} e-{id}"),
        None => format!("e-{id}"),
    };
    html! {
        li class="row" data-category=(id) {
            (swatch(category))
            label for={ "c-" (id) } { (category.name) }
            @if let Some(description) = &category.description { (describe(id, description, texts)) }
            span class="value" {
                input type="text" id={ "c-" (id) } name={ "c." (id) } value=(typed) inputmode="decimal" autocomplete="off"
                    enterkeyhint="next" aria-describedby=(described_by) aria-invalid=[fault.map(|_| "true")];
                span class="unit" { "%" }
            }
            span class="controls" {}
            p class="error" id={ "e-" (id) } {
                @if let Some(fault) = fault { (fault_text(&category.name, fault, texts)) }
            }
        }
    }
}

/// Writes a number with a percent sign.
pub(super) fn percent(number: impl AsRef<str>, texts: &Texts) -> String {
    texts.format("percent", &[("value", number.as_ref())])
}

/// Renders the category's colour: decoration, in an attribute since the security policy forbids `style`.
pub(super) fn swatch(category: &CategoryView) -> Markup {
    html! {
        span class="swatch" aria-hidden="true" {
            @if let Some(color) = &category.color {
                svg width="16" height="16" viewBox="0 0 16 16" {
                    rect x="1" y="1" width="14" height="14" rx="3" fill=(color) {}
                }
            }
        }
    }
}

fn describe(id: &str, description: &BudgetText, texts: &Texts) -> Markup {
    if description.text.chars().count() <= DESCRIPTION_UNFOLDED_MAX_CHARS {
        return html! { p class="description" id={ "d-" (id) } { (description) } };
    }
    html! {
        details class="description" {
            summary { (texts.text("description")) }
            p id={ "d-" (id) } { (description) }
        }
    }
}

fn fault_at(index: usize, faults: &[FormFault]) -> Option<NumberFault> {
    faults.iter().find_map(|fault| match fault {
        FormFault::Field(field, fault) if *field == index => Some(*fault),
        _ => None,
    })
}

fn fault_text(category: &BudgetText, fault: NumberFault, texts: &Texts) -> Markup {
    let name = [("category", html! { (category) })];
    match fault {
        NumberFault::NotANumber => texts.markup("fault_not_a_number", &name),
        NumberFault::Range => texts.markup("fault_range", &name),
        NumberFault::Decimals => texts.markup("fault_decimals", &name),
    }
}

/// Renders the summary of all faults, above the form; hidden without faults.
pub(super) fn fault_summary(budget: &BudgetView, faults: &[FormFault], texts: &Texts) -> Markup {
    if faults.is_empty() {
        return html! { div id="fault-summary" class="fault-summary" tabindex="-1" hidden {} };
    }
    let first = budget.categories.first().map_or("", |category| category.id.as_str());
    let numbers = texts.numbers();
    let percent = |basis_points: u32| html! { (numbers.percent(basis_points.into())) };
    let line = |fault: &FormFault| match *fault {
        FormFault::Field(index, fault) => {
            let Some(category) = budget.categories.get(index) else { return (first, html! {}) };
            (category.id.as_str(), fault_text(&category.name, fault, texts))
        }
        FormFault::Left(left) => (first, texts.markup("fault_left", &[("left", percent(left))])),
        FormFault::Over(sum) => {
            let over = sum.saturating_sub(crate::arithmetic::WHOLE);
            (first, texts.markup("fault_over", &[("sum", percent(sum)), ("over", percent(over))]))
        }
    };
    html! {
        div id="fault-summary" class="fault-summary" tabindex="-1" {
            div role="alert" {
                h2 { (texts.text("faults")) }
                ul {
                    @for fault in faults {
                        @let (id, text) = line(fault);
                        li { a href={ "#c-" (id) } { (text) } }
                    }
                }
            }
        }
    }
}
