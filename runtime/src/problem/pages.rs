//! The HTML pages behind a problem's `type`: what the kind means and what to do.

use std::fmt::Write;

use axum::Router;
use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use super::{Problem, ProblemKind};

/// Builds the routes `GET /problems`, the index, and `GET /problems/{slug}`, one page per kind.
pub fn pages() -> Router {
    Router::new()
        .route("/problems", get(async || Html(index())))
        .route("/problems/{slug}", get(page))
}

async fn page(Path(slug): Path<String>) -> Response {
    match ProblemKind::ALL.iter().find(|kind| kind.slug() == slug) {
        Some(kind) => Html(describe(*kind)).into_response(),
        None => Problem::new(ProblemKind::NotFound)
            .detail("unknown kind of problem; /problems lists all kinds")
            .into_response(),
    }
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
         <style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}}</style>\n\
         <main>{body}</main>\n</html>\n"
    )
}
