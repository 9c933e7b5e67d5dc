//! A budget's name, and whether it is open.

use maud::{Markup, html};
use schemas::Openness;

use super::time::time;
use crate::texts::Texts;
use crate::view::BudgetView;

/// Renders the question and whether the budget is open.
pub(super) fn heading(budget: &BudgetView, texts: &Texts) -> Markup {
    html! {
        h1 { (budget.name) }
        p class="state" id="state" { (state(budget, texts)) }
    }
}

/// Describes whether the budget is open.
pub(super) fn state(budget: &BudgetView, texts: &Texts) -> Markup {
    match (budget.openness, budget.closes_at) {
        (Openness::NotYet(at), _) => {
            texts.markup("state_opens", &[("time", time(at, &budget.zone, texts))])
        }
        (Openness::Open, Some(at)) => {
            texts.markup("state_open_until", &[("time", time(at, &budget.zone, texts))])
        }
        (Openness::Open, None) => html! { (texts.text("state_open")) },
        (Openness::Closed(at), _) => {
            texts.markup("state_closed", &[("time", time(at, &budget.zone, texts))])
        }
    }
}
