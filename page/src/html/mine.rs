//! The page with a person's own answer: what is counted, the receipt, change and withdrawal.

use maud::{Markup, html};
use schemas::{Openness, SubmissionId};

use super::confirm::fault_summary;
use super::document::{Document, link};
use super::heading::heading;
use super::results::results;
use super::rows::percent;
use super::sign_in::{CodeField, code_field, email_forms, sign_out};
use crate::form::{self, FormValues};
use crate::texts::Texts;
use crate::view::{BudgetView, Results};

/// The content of a person's own page.
#[derive(Debug)]
pub struct MinePage<'a> {
    /// The texts of the page's language.
    pub texts: &'static Texts,
    /// The budget.
    pub budget: &'a BudgetView,
    /// The results, next to which the own shares are shown.
    pub results: &'a Results,
    /// What is known of the person.
    pub state: MineState,
    /// The id that makes withdrawing twice one withdrawal.
    pub submission_id: SubmissionId,
    /// Whether the browser has a session, which can be ended.
    pub has_session: bool,
    /// The slug of the problem with which a withdrawal failed.
    pub fault: Option<&'a str>,
    /// The query of this page, for its other languages and for checking again.
    pub query: &'a str,
}

/// What is known of the person.
#[derive(Debug)]
pub enum MineState {
    /// The browser has no cookie of the budget: nobody has taken part with it.
    Nobody,
    /// The person has to enter a personal code first.
    AsksCode,
    /// The budget's persons are forgotten.
    Forgotten,
    /// The person has to sign in with a one-time code first.
    AsksEmail {
        /// The address for which a code was asked.
        address: Option<String>,
    },
    /// Nothing of the person is counted.
    NotCounted,
    /// The withdrawal with this receipt is counted.
    Withdrawn {
        /// Its receipt.
        receipt: String,
    },
    /// The submission or withdrawal with this receipt is stored, but not counted yet.
    Stored {
        /// Its receipt.
        receipt: String,
    },
    /// The person's allocation is counted.
    Counted(OwnAllocation),
}

/// A counted allocation.
#[derive(Debug)]
pub struct OwnAllocation {
    /// Shares in basis points, in the budget's order.
    pub shares: Vec<u16>,
    /// The receipt of its submission.
    pub receipt: String,
}

/// Renders a person's own page.
pub fn mine_page(page: &MinePage<'_>) -> String {
    let MinePage { texts, budget, .. } = page;
    let path = format!("{}/mine", budget.path());
    let document = Document {
        texts,
        page: "mine",
        title: &budget.name.text,
        has_faults: page.fault.is_some(),
        path: &path,
        query: page.query,
        canonical: None,
        public_url: None,
        data: None,
        skip: ("#receipt", texts.text("skip_to_answer")),
    };
    let own = match &page.state {
        MineState::Counted(own) => Some(own.shares.as_slice()),
        _ => None,
    };
    document.render(&html! {
        (heading(budget, texts))
        (fault_summary(page.fault, budget.identity, texts))
        section id="receipt" class="receipt" {
            h2 { (texts.text("my_answer")) }
            (progress(page))
        }
        @if let MineState::Counted(own) = &page.state { (shares(budget, own, texts)) (actions(page, own)) }
        @if !matches!(page.state, MineState::Counted(_)) && budget.takes_answers() {
            p { a href=(link(&budget.path(), texts.language())) { (texts.text("take_part")) } }
        }
        @if page.has_session { (sign_out(&budget.path(), texts)) }
        section id="results" {
            h2 { (texts.text("results")) }
            (results(budget, page.results, own, texts))
        }
    })
}

/// Renders the three steps of a submission: sent, stored, counted.
fn progress(page: &MinePage<'_>) -> Markup {
    let MinePage { texts, budget, .. } = page;
    let (receipt, counted) = match &page.state {
        MineState::Nobody => return html! { p { (texts.text("mine_nobody")) } },
        MineState::AsksCode => return code_form(page),
        MineState::Forgotten => return html! { p { (texts.text("mine_forgotten")) } },
        MineState::AsksEmail { address } => {
            let hidden = html! { input type="hidden" name="lang" value=(texts.language().tag()); };
            return email_forms(&budget.path(), address.as_deref(), page.fault, &hidden, texts);
        }
        MineState::NotCounted => return html! { p { (texts.text("mine_not_counted")) } },
        MineState::Withdrawn { receipt } => (receipt, texts.text("mine_withdrawn")),
        MineState::Counted(own) => (&own.receipt, texts.text("mine_counted")),
        MineState::Stored { receipt } => {
            let again = link(&format!("{}/mine", budget.path()), texts.language());
            return html! {
                ol class="progress" {
                    (done(texts.text("mine_sent")))
                    (done_with_receipt(receipt, texts))
                    li class="pending" { (texts.text("mine_being_counted")) }
                }
                p { a href={ (again) "&" (page.query) } { (texts.text("check_again")) } }
            };
        }
    };
    html! {
        ol class="progress" {
            (done(texts.text("mine_sent")))
            (done_with_receipt(receipt, texts))
            (done(counted))
        }
    }
}

/// Renders the form that opens a session with a personal code.
fn code_form(page: &MinePage<'_>) -> Markup {
    let MinePage { texts, budget, .. } = page;
    html! {
        form method="post" action={ (budget.path()) "/session" } {
            input type="hidden" name="lang" value=(texts.language().tag());
            (code_field(CodeField::Required, texts))
            button { (texts.text("code_show")) }
        }
    }
}

fn done(text: &str) -> Markup {
    html! { li class="done" { span aria-hidden="true" { "✓ " } (text) } }
}

fn done_with_receipt(receipt: &str, texts: &Texts) -> Markup {
    let receipt = html! { code class="receipt-text" { bdi { (receipt) } } };
    html! {
        li class="done" {
            span aria-hidden="true" { "✓ " }
            (texts.markup("mine_stored", &[("receipt", receipt)]))
        }
    }
}

fn shares(budget: &BudgetView, own: &OwnAllocation, texts: &Texts) -> Markup {
    html! {
        ul class="shares" {
            @for (category, share) in budget.categories.iter().zip(&own.shares) {
                li { (category.name) ": " (percent(texts.numbers().percent((*share).into()), texts)) }
            }
        }
    }
}

/// Renders change and withdrawal, which are possible while the budget is open.
fn actions(page: &MinePage<'_>, own: &OwnAllocation) -> Markup {
    let MinePage { texts, budget, .. } = page;
    if budget.openness != Openness::Open {
        return html! { p class="note" { (texts.text("no_more_changes")) } };
    }
    let values = FormValues::of_shares(&own.shares, texts.numbers());
    let ids = budget.categories.iter().map(|category| category.id.clone());
    let fields: Vec<(String, String)> = ids.zip(values.typed().iter().cloned()).collect();
    let change = form::query(&fields, &[("do", "check")]);
    html! {
        p class="actions" {
            a href={ (link(&budget.path(), texts.language())) "&" (change) } { (texts.text("change")) }
        }
        details class="withdraw" {
            summary { (texts.text("withdraw")) }
            form method="post" action={ (budget.path()) "/withdraw" } {
                p { (texts.text("withdraw_question")) }
                input type="hidden" name="lang" value=(texts.language().tag());
                input type="hidden" name="submission_id" value=(page.submission_id);
                button { (texts.text("withdraw_yes")) }
            }
        }
    }
}
