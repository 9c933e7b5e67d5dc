//! Signing in on a page: with a personal code, or with a one-time code by e-mail. Works without a script.

use maud::{Markup, html};

use crate::texts::Texts;

/// The fault of an address that is none.
pub(super) const EMAIL_FAULT: &str = "email";
/// The fault of a one-time code that is not right.
pub(super) const OTP_FAULT: &str = "otp";

/// What a person needs in order to send or see an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignIn<'a> {
    /// A personal code, entered together with the answer.
    Code(CodeField),
    /// A session, which a one-time code by e-mail opens first.
    Email {
        /// The address for which a code was asked.
        address: Option<&'a str>,
    },
    /// Nothing: the browser has the session of an address.
    EmailSession,
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

/// Renders the forms that ask for a one-time code, and that open a session with it. `hidden` are the fields that lead
/// back to the page. The address is in no URL.
pub(super) fn email_forms(
    path: &str,
    address: Option<&str>,
    fault: Option<&str>,
    hidden: &Markup,
    texts: &Texts,
) -> Markup {
    let ask = email_form(path, address, fault == Some(EMAIL_FAULT), hidden, texts);
    let Some(address) = address else { return ask };
    let address = html! { bdi { (address) } };
    let is_wrong = fault == Some(OTP_FAULT);
    html! {
        p class="notice" role="status" { (texts.markup("email_sent", &[("email", address)])) }
        form id="one-time-code" method="post" action={ (path) "/session" } {
            (hidden)
            p {
                label for="otp" { (texts.text("otp_label")) }
                " "
                input id="otp" name="otp" required maxlength="12" size="8" inputmode="numeric" autocomplete="one-time-code"
                    spellcheck="false" dir="ltr" aria-describedby="otp-hint e-otp" aria-invalid=[is_wrong.then_some("true")];
                " "
                span id="otp-hint" class="hint" { (texts.text("otp_hint")) }
            }
            p class="error" id="e-otp" { @if is_wrong { (texts.text("fault_otp")) } }
            button class="send" { (texts.text("otp_enter")) }
        }
        details open[fault == Some(EMAIL_FAULT)] {
            summary { (texts.text("email_again")) }
            (ask)
        }
    }
}

fn email_form(
    path: &str,
    address: Option<&str>,
    is_wrong: bool,
    hidden: &Markup,
    texts: &Texts,
) -> Markup {
    html! {
        form id="email-address" method="post" action={ (path) "/session" } {
            (hidden)
            p {
                label for="email" { (texts.text("email_label")) }
                " "
                input id="email" name="email" type="email" required maxlength="254" size="30" autocomplete="email"
                    spellcheck="false" dir="ltr" value=[address] aria-describedby="email-hint e-email"
                    aria-invalid=[is_wrong.then_some("true")];
                " "
                span id="email-hint" class="hint" { (texts.text("email_hint")) }
            }
            p class="error" id="e-email" { @if is_wrong { (texts.text("fault_email")) } }
            button { (texts.text("email_send")) }
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
