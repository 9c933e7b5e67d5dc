//! A budget's page, with the form, and its page of results.

use maud::{Markup, html};
use schemas::Openness;

use super::document::{Document, link};
use super::embed::{embed_code, results_path};
use super::heading::heading;
use super::history::history;
use super::page_data::page_data;
use super::results::results;
use super::rows::{fault_summary, rows};
use crate::form::{self, Applied, FormFault, FormValues};
use crate::history::History;
use crate::texts::Texts;
use crate::view::{BudgetView, Results};

/// The content of a budget's page.
#[derive(Debug)]
pub struct BudgetPage<'a> {
    /// The texts of the page's language.
    pub texts: &'static Texts,
    /// The budget.
    pub budget: &'a BudgetView,
    /// The results.
    pub results: &'a Results,
    /// The form's values and what is said about them; an empty form at first.
    pub form: FormState<'a>,
    /// The query with the form's values, for the links to the page in other languages.
    pub query: &'a str,
    /// The service's own address, if it is configured.
    pub public_url: Option<&'a str>,
}

/// The state of the form.
#[derive(Debug)]
pub struct FormState<'a> {
    /// The values.
    pub values: &'a FormValues,
    /// Their faults.
    pub faults: &'a [FormFault],
    /// The tool that was applied.
    pub applied: Option<&'a Applied>,
}

/// Renders a budget's page.
pub fn budget_page(page: &BudgetPage<'_>) -> String {
    let BudgetPage { texts, budget, form, .. } = page;
    let path = budget.path();
    let is_closed = matches!(budget.openness, Openness::Closed(_));
    let skip = match is_closed {
        true => ("#results", texts.text("skip_to_results")),
        false => ("#allocation", texts.text("skip_to_form")),
    };
    let document = Document {
        texts,
        page: "budget",
        title: &budget.name.text,
        has_faults: !form.faults.is_empty(),
        path: &path,
        query: page.query,
        canonical: Some(&path),
        public_url: page.public_url,
        data: Some(page_data(budget, page.results, texts)),
        skip,
    };
    document.render(&html! {
        (heading(budget, texts))
        (description(budget))
        @if !is_closed { (fault_summary(budget, form.faults, texts)) (notice(form, texts)) (form_of(page)) }
        p id="announce" class="visually-hidden" role="status" {}
        section id="receipt" class="receipt" hidden {}
        p class="own" { a href=(link(&format!("{path}/mine"), texts.language())) { (texts.text("my_answer")) } }
        details id="results" open[is_closed] {
            summary { (texts.text("results")) }
            (results(budget, page.results, None, texts))
            (results_links(budget, texts))
        }
        (contact(budget, texts))
    })
}

/// Renders the page with a budget's results and their history. The history is empty while results are withheld.
pub fn results_page(
    texts: &'static Texts,
    budget: &BudgetView,
    shown: &Results,
    over_time: &History,
    public_url: Option<&str>,
) -> String {
    let path = results_path(budget);
    let document = Document {
        texts,
        page: "results",
        title: &budget.name.text,
        has_faults: false,
        path: &path,
        query: "",
        canonical: Some(&path),
        public_url,
        data: Some(page_data(budget, shown, texts)),
        skip: ("#results", texts.text("skip_to_results")),
    };
    document.render(&html! {
        (heading(budget, texts))
        (description(budget))
        p id="announce" class="visually-hidden" role="status" {}
        @if budget.openness == Openness::Open {
            p class="take-part" { a href=(link(&budget.path(), texts.language())) { (texts.text("take_part")) } }
        }
        section id="results" {
            h2 { (texts.text("results")) }
            (results(budget, shown, None, texts))
            p class="links" { (api_link(budget, texts)) " " (how_counted_link(texts)) }
        }
        (history(budget, over_time, texts))
        (contact(budget, texts))
        (embed_code(budget, texts, public_url))
    })
}

/// Renders what the question is about, with its lines.
fn description(budget: &BudgetView) -> Markup {
    html! { @if let Some(text) = &budget.description { p class="about" { (text) } } }
}

/// Renders whom people can ask.
fn contact(budget: &BudgetView, texts: &Texts) -> Markup {
    let Some(contact) = &budget.contact else { return html! {} };
    let contact = html! { bdi { (contact) } };
    html! { p class="contact" { (texts.markup("contact", &[("contact", contact)])) } }
}

fn form_of(page: &BudgetPage<'_>) -> Markup {
    let BudgetPage { texts, budget, form, .. } = page;
    let path = budget.path();
    let (is_open, can_be_sent) = (budget.openness == Openness::Open, budget.takes_answers());
    // The script opens the form to whoever comes with a token.
    let needs_token = (is_open && !can_be_sent).then_some("");
    html! {
        @if needs_token.is_some() { p class="notice" id="answers-elsewhere" { (texts.text("answers_elsewhere")) } }
        form id="allocation" method="get" action={ (path) "/confirm" } autocomplete="off" novalidate {
            input type="hidden" name="lang" value=(texts.language().tag());
            // The first submit button of the form is the one that Enter presses: it must never send.
            @if is_open {
                button class="default-submit" name="do" value="check" formaction=(path) tabindex="-1" aria-hidden="true" {
                    (texts.text("check"))
                }
            }
            fieldset disabled[!can_be_sent] {
                legend { (budget.name) " " span class="hint" { (texts.text("form_hint")) } }
                (rows(budget, form.values, form.faults, texts))
            }
            @if is_open {
                div class="tools" data-needs-token=[needs_token] hidden[!can_be_sent] {
                    button name="do" value="share" formaction=(path) { (texts.text("tool_share")) }
                    " "
                    button name="do" value="scale" formaction=(path) { (texts.text("tool_scale")) }
                }
                div class="bar" id="bar" data-needs-token=[needs_token] hidden[!can_be_sent] {
                    output id="left" class="left" { (left_text(form.values.left(), texts)) }
                    span class="unsent" {}
                    span class="meter" aria-hidden="true" {}
                    button class="send" id="send" { (texts.text("send")) }
                }
            }
        }
    }
}

fn left_text(left: i64, texts: &Texts) -> String {
    let percent = texts.numbers().percent(left.unsigned_abs());
    match left {
        0 => texts.text("left_nothing").to_owned(),
        1.. => texts.format("left", &[("left", &percent)]),
        _ => texts.format("too_much", &[("over", &percent)]),
    }
}

/// Says what a tool did.
fn notice(form: &FormState<'_>, texts: &Texts) -> Markup {
    let Some(applied) = form.applied else { return html! {} };
    let text = match applied.shared {
        Some(shared) if shared.basis_points == 0 => texts.text("shared_nothing").to_owned(),
        Some(shared) => texts.format(
            "shared",
            &[
                ("percent", &texts.numbers().percent(shared.basis_points)),
                ("count", &shared.categories.to_string()),
            ],
        ),
        None if applied.scaled => texts.text("scaled").to_owned(),
        None if form.faults.is_empty() => texts.text("checked").to_owned(),
        None => return html! {},
    };
    html! { p class="notice" role="status" { (text) } }
}

fn results_links(budget: &BudgetView, texts: &Texts) -> Markup {
    let path = results_path(budget);
    html! {
        p class="links" {
            a href=(link(&path, texts.language())) { (texts.text("results_alone")) }
            " "
            (api_link(budget, texts))
            " "
            (how_counted_link(texts))
        }
    }
}

/// Renders the link to the part of the footer that explains the counting.
fn how_counted_link(texts: &Texts) -> Markup {
    html! { a href="#how-counted" { (texts.text("how_counted")) } }
}

fn api_link(budget: &BudgetView, texts: &Texts) -> Markup {
    html! { a href={ "/v1/budgets/" (budget.id) "/aggregate" } { (texts.text("results_data")) } }
}

/// Renders the hidden fields that carry values through a form.
pub(super) fn hidden_fields(fields: &[(String, String)]) -> Markup {
    html! {
        @for (category, value) in fields {
            input type="hidden" name={ (form::FIELD) (category) } value=(value);
        }
    }
}
