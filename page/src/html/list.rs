//! The list of all budgets.

use maud::{Markup, html};
use schemas::Openness;

use super::document::{Document, link};
use super::heading::state;
use crate::texts::Texts;
use crate::view::BudgetView;

/// Renders the list: open budgets, then those that open soon, then closed ones.
pub fn list_page(texts: &'static Texts, budgets: &[BudgetView]) -> String {
    let document = Document {
        texts,
        page: "list",
        title: texts.text("all_budgets"),
        has_faults: false,
        path: "/budgets",
        query: "",
        canonical: Some("/budgets"),
        public_url: None,
        data: None,
        skip: ("#budgets", texts.text("skip_to_list")),
    };
    document.render(&html! {
        h1 { (texts.text("all_budgets")) }
        div id="budgets" { (groups(texts, budgets)) }
    })
}

/// A group of budgets in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Open,
    NotYet,
    Closed,
}

impl Group {
    fn of(openness: Openness) -> Self {
        match openness {
            Openness::Open => Self::Open,
            Openness::NotYet(_) => Self::NotYet,
            Openness::Closed(_) => Self::Closed,
        }
    }
}

/// Renders the groups that have budgets.
pub(super) fn groups(texts: &Texts, budgets: &[BudgetView]) -> Markup {
    let groups = [
        (texts.text("list_open"), Group::Open),
        (texts.text("list_not_yet"), Group::NotYet),
        (texts.text("list_closed"), Group::Closed),
    ];
    html! {
        @if budgets.is_empty() { p { (texts.text("list_empty")) } }
        @for (title, group) in groups {
            @let members = budgets.iter().filter(|budget| Group::of(budget.openness) == group);
            @if members.clone().next().is_some() {
                h2 { (title) }
                ul class="budgets" {
                    @for budget in members {
                        li {
                            a href=(link(&budget.path(), texts.language())) { (budget.name) }
                            " " span class="state" { (state(budget, texts)) }
                        }
                    }
                }
            }
        }
    }
}
