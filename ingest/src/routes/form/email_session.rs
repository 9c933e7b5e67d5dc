//! `POST /budgets/{budget}/session` where persons are known by e-mail: an address asks for a one-time code, and a code
//! opens the session of the address that the browser has asked it for.

use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use identity::cookie;
use identity::email::{EmailAddress, OneTimeCode};
use runtime::problem::{Problem, ProblemKind};
use schemas::Budget;

use super::form_post::FormPost;
use super::redirect::to_sign_in;
use crate::routes::session::{code_requested, language, redeem, set_cookies};
use crate::service::IngestService;

/// What the posted form asks for, and the fault of the field that is wrong.
enum Step {
    Ask(EmailAddress),
    Enter(EmailAddress, OneTimeCode),
    Faulty { field: &'static str, detail: &'static str },
}

impl Step {
    /// Reads the form. A code is for the address beside it, or for that of the cookie.
    fn of(post: &FormPost) -> Self {
        let typed = post.form.email.as_ref().map(|email| EmailAddress::parse(email.reveal()));
        let address = match typed {
            Some(typed) => typed.ok(),
            None => cookie::email(post.presented.cookies()),
        };
        let Some(address) = address else {
            return Self::Faulty { field: "email", detail: "must be an e-mail address" };
        };
        match post.form.otp.as_ref().map(|otp| OneTimeCode::parse(otp.reveal())) {
            None => Self::Ask(address),
            Some(Some(otp)) => Self::Enter(address, otp),
            Some(None) => Self::Faulty { field: "otp", detail: "must be six digits" },
        }
    }
}

/// Takes one step of signing in, and goes back to the page that the form stands on.
pub(super) async fn open(
    service: &IngestService,
    budget: &Budget,
    post: &FormPost,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    // A session of a forgotten budget would be worth nothing.
    if let Err(problem) = service.persons(budget) {
        return Ok(refuse(budget, post, problem.kind().slug(), problem));
    }
    let secure = cookie::is_https(headers);
    match Step::of(post) {
        Step::Ask(address) => {
            let language = language(post.form.lang.as_deref(), headers);
            let kept = cookie::set_email(budget, &address, secure);
            let sent = match service.require_email() {
                Ok(email) => email.send_code(budget, address, language).await,
                Err(problem) => Err(problem),
            };
            if let Err(problem) = sent {
                return Ok(refuse(budget, post, problem.kind().slug(), problem));
            }
            let mut response = match post.wants_json {
                true => code_requested(),
                false => to_sign_in(budget, &post.form, None),
            };
            set_cookies(&mut response, &[kept])?;
            Ok(response)
        }
        Step::Enter(address, otp) => {
            match redeem(service, budget, (&address, &otp), &post.presented, headers).await {
                Ok(opened) => {
                    let mut response = to_sign_in(budget, &post.form, None);
                    set_cookies(&mut response, &opened.cookies)?;
                    set_cookies(&mut response, &[cookie::clear_email(budget, secure)])?;
                    Ok(response)
                }
                Err(problem) if problem.kind() == ProblemKind::Unauthorized => {
                    Ok(refuse(budget, post, "otp", problem))
                }
                Err(problem) => Ok(refuse(budget, post, problem.kind().slug(), problem)),
            }
        }
        Step::Faulty { field, detail } => {
            let problem = Problem::new(ProblemKind::Malformed).fault(format!("/{field}"), detail);
            Ok(refuse(budget, post, field, problem))
        }
    }
}

/// Goes back to the page with the fault, or tells a script the problem.
fn refuse(budget: &Budget, post: &FormPost, fault: &str, problem: Problem) -> Response {
    match post.wants_json {
        true => problem.into_response(),
        false => to_sign_in(budget, &post.form, Some(fault)),
    }
}
