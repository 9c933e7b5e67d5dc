//! The page on which a person without a script sends the allocation.

use maud::{Markup, html};
use schemas::SubmissionId;

use super::budget::{heading, hidden_fields};
use super::document::{Document, link};
use super::rows::{percent, swatch};
use crate::form::{self, FormValues};
use crate::texts::Texts;
use crate::view::BudgetView;

/// The content of the confirmation page. The values are a valid allocation.
#[derive(Debug)]
pub struct ConfirmPage<'a> {
    /// The texts of the page's language.
    pub texts: &'static Texts,
    /// The budget.
    pub budget: &'a BudgetView,
    /// The values.
    pub values: &'a FormValues,
    /// The values as fields of the form.
    pub fields: &'a [(String, String)],
    /// The id that makes sending twice one submission.
    pub submission_id: SubmissionId,
    /// The slug of the problem with which sending failed.
    pub fault: Option<&'a str>,
    /// The field for a personal code, where the budget has codes.
    pub code: Option<CodeField>,
}

/// Renders the confirmation page.
pub fn confirm_page(page: &ConfirmPage<'_>) -> String {
    let ConfirmPage { texts, budget, .. } = page;
    let path = budget.path();
    let query = form::query(page.fields, &[]);
    let document = Document {
        texts,
        page: "confirm",
        title: &budget.name.text,
        has_faults: page.fault.is_some(),
        path: &format!("{path}/confirm"),
        query: &query,
        canonical: Some(&path),
        public_url: None,
        data: None,
        skip: ("#confirm", texts.text("skip_to_form")),
    };
    let change = format!("{}&do=check&{query}", link(&path, texts.language()));
    document.render(&html! {
        (heading(budget, texts))
        @if let Some(fault) = page.fault {
            div id="fault-summary" class="fault-summary" tabindex="-1" {
                div role="alert" { p { (fault_text(fault, texts)) } }
            }
        }
        form id="confirm" method="post" action={ (path) "/submit" } {
            h2 { (texts.text("confirm")) }
            ul class="shares" {
                @for (category, value) in budget.categories.iter().zip(page.values.typed()) {
                    @if !value.is_empty() {
                        li { (swatch(category)) (category.name) ": " (percent(value, texts)) }
                    }
                }
            }
            input type="hidden" name="lang" value=(texts.language().tag());
            input type="hidden" name="submission_id" value=(page.submission_id);
            (hidden_fields(page.fields))
            @if let Some(field) = page.code { (code_field(field, texts)) }
            button class="send" { (texts.text("send")) }
            " "
            a href=(change) { (texts.text("change_values")) }
            p class="note" { (texts.text("confirm_note")) }
        }
        @if page.code == Some(CodeField::Optional) { (sign_out(&path, texts)) }
    })
}

/// Whether a personal code has to be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeField {
    /// Nobody has a session.
    Required,
    /// The browser has somebody's session, and the next person at it has a code of their own.
    Optional,
}

/// Renders the field for a personal code. The code is in no address and no page.
pub(super) fn code_field(field: CodeField, texts: &Texts) -> Markup {
    let label = match field {
        CodeField::Required => texts.text("code_label"),
        CodeField::Optional => texts.text("code_of_another"),
    };
    html! {
        p {
            label for="code" { (label) }
            " "
            input id="code" name="code" required[field == CodeField::Required] maxlength="32" size="20" autocomplete="off" autocapitalize="characters"
                spellcheck="false" dir="ltr" aria-describedby="code-hint";
            span id="code-hint" class="hint" { (texts.text("code_hint")) }
        }
    }
}

/// Renders the button that ends the browser's session.
pub(super) fn sign_out(path: &str, texts: &Texts) -> Markup {
    html! {
        form class="sign-out" method="post" action={ (path) "/session/end" } {
            input type="hidden" name="lang" value=(texts.language().tag());
            p { (texts.text("not_you")) " " button { (texts.text("sign_out")) } }
        }
    }
}

/// Says why sending failed, and whether trying again helps.
pub(super) fn fault_text(slug: &str, texts: &Texts) -> Markup {
    let text = match slug {
        "forbidden" => texts.text("problem_cookies"),
        "unauthorized" => texts.text("problem_code"),
        "budget-closed" => texts.text("problem_closed"),
        "in-flight" => texts.text("problem_in_flight"),
        "rate-limited" => texts.text("problem_rate_limited"),
        "key-reused" => texts.text("problem_key_reused"),
        "unavailable" => texts.text("problem_unavailable"),
        _ => texts.text("problem_unknown"),
    };
    html! { (text) }
}
