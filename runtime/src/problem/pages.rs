//! The HTML pages behind a problem's `type`: what the kind means and what to do.

use std::fmt::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::{CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use sha2::{Digest, Sha256};

use super::{Problem, ProblemKind};

const STYLE: &str =
    "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}";

/// Nothing but the style of these pages, by its digest.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    // Base64 is always valid in a header.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// Builds the routes `GET /problems`, the index, and `GET /problems/{slug}`, one page per kind.
pub fn pages() -> Router {
    Router::new()
        .route("/problems", get(async || respond(index())))
        .route("/problems/{slug}", get(page))
}

async fn page(Path(slug): Path<String>) -> Response {
    match ProblemKind::ALL.iter().find(|kind| kind.slug() == slug) {
        Some(kind) => respond(describe(*kind)),
        None => Problem::new(ProblemKind::NotFound)
            .detail("unknown kind of problem; /problems lists all kinds")
            .into_response(),
    }
}

fn respond(content: String) -> Response {
    let mut response = Html(content).into_response();
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    let no_sniffing = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, no_sniffing);
    response
}

fn index() -> String {
    let mut list = String::from("<h1>Problems</h1>\n<ul>\n");
    for kind in ProblemKind::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(
            list,
            "<li>{} <a href=\"/problems/{slug}\">{slug}</a>: {}</li>",
            kind.status().as_u16(),
            kind.title(),
            slug = kind.slug()
        );
    }
    list.push_str("</ul>");
    document("Problems", &list)
}

fn describe(kind: ProblemKind) -> String {
    let body = format!(
        "<h1>{}</h1>\n<p>Status {} &middot; <code>{}</code></p>\n<p>{}</p>\n<p><a href=\"/problems\">All problems</a></p>",
        kind.title(),
        kind.status().as_u16(),
        kind.slug(),
        with_code(kind.advice())
    );
    document(kind.title(), &body)
}

/// Converts backquoted text of the catalogue to `<code>`.
fn with_code(text: &str) -> String {
    text.split('`')
        .enumerate()
        .map(|(index, piece)| match index % 2 {
            0 => piece.to_owned(),
            _ => format!("<code>{piece}</code>"),
        })
        .collect()
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n\
         <main>{body}</main>\n</html>\n"
    )
}
