//! The page on which a person without a script sends the allocation.

use maud::{Markup, html};
use schemas::{IdentityRule, SubmissionId};

use super::budget::hidden_fields;
use super::document::{Document, link};
use super::heading::heading;
use super::rows::{percent, swatch};
use super::sign_in::{
    CodeField, EMAIL_FAULT, OTP_FAULT, SignIn, code_field, email_forms, sign_out,
};
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
    /// What the person needs in order to send, where a cookie of the browser does not suffice.
    pub sign_in: Option<SignIn<'a>>,
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
        (fault_summary(page.fault, budget.identity, texts))
        @if let Some(SignIn::Email { address }) = page.sign_in {
            section id="confirm" {
                (answer(page))
                p { a href=(change) { (texts.text("change_values")) } }
                (email_forms(&path, address, page.fault, &hidden(page), texts))
            }
        } @else {
            form id="confirm" method="post" action={ (path) "/submit" } {
                (answer(page))
                (hidden(page))
                @if let Some(SignIn::Code(field)) = page.sign_in { (code_field(field, texts)) }
                button class="send" { (texts.text("send")) }
                " "
                a href=(change) { (texts.text("change_values")) }
                p class="note" { (texts.text("confirm_note")) }
            }
        }
        @if let Some(SignIn::EmailSession | SignIn::Code(CodeField::Optional)) = page.sign_in {
            (sign_out(&path, texts))
        }
    })
}

fn answer(page: &ConfirmPage<'_>) -> Markup {
    let ConfirmPage { texts, budget, .. } = page;
    html! {
        h2 { (texts.text("confirm")) }
        ul class="shares" {
            @for (category, value) in budget.categories.iter().zip(page.values.typed()) {
                @if !value.is_empty() {
                    li { (swatch(category)) (category.name) ": " (percent(value, texts)) }
                }
            }
        }
    }
}

fn hidden(page: &ConfirmPage<'_>) -> Markup {
    html! {
        input type="hidden" name="lang" value=(page.texts.language().tag());
        input type="hidden" name="submission_id" value=(page.submission_id);
        (hidden_fields(page.fields))
    }
}

/// Renders why sending failed, and whether trying again helps. A fault of a field stands beside it instead.
pub(super) fn fault_summary(slug: Option<&str>, identity: IdentityRule, texts: &Texts) -> Markup {
    let slug = slug.filter(|slug| ![EMAIL_FAULT, OTP_FAULT].contains(slug));
    let Some(slug) = slug else { return html! {} };
    html! {
        div id="fault-summary" class="fault-summary" tabindex="-1" {
            div role="alert" { p { (fault_text(slug, identity, texts)) } }
        }
    }
}

fn fault_text<'t>(slug: &str, identity: IdentityRule, texts: &'t Texts) -> &'t str {
    match slug {
        "forbidden" => texts.text("problem_cookies"),
        "unauthorized" if identity == IdentityRule::Email => texts.text("problem_email"),
        "unauthorized" => texts.text("problem_code"),
        "budget-closed" => texts.text("problem_closed"),
        "budget-full" => texts.text("problem_full"),
        "in-flight" => texts.text("problem_in_flight"),
        "rate-limited" => texts.text("problem_rate_limited"),
        "key-reused" => texts.text("problem_key_reused"),
        "unavailable" => texts.text("problem_unavailable"),
        _ => texts.text("problem_unknown"),
    }
}
