//! The pages of errors: an address without a page, and a service that cannot answer now.

use maud::{Markup, html};

use super::document::Document;
use super::list::groups;
use crate::texts::Texts;
use crate::view::BudgetView;

/// Renders the page of an unknown budget, with the budgets that there are.
pub fn not_found_page(texts: &'static Texts, budgets: &[BudgetView]) -> String {
    problem_page(
        texts,
        texts.text("not_found"),
        "/budgets",
        "",
        &html! {
            p { (texts.text("not_found_text")) }
            (groups(texts, budgets))
        },
    )
}

/// Renders the page of a service that cannot answer now, with a link to try it again.
pub fn unavailable_page(texts: &'static Texts, path: &str, query: &str) -> String {
    let again = match query {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    };
    problem_page(
        texts,
        texts.text("unavailable"),
        path,
        query,
        &html! {
            p { (texts.text("unavailable_text")) }
            p { a href=(again) { (texts.text("try_again")) } }
        },
    )
}

fn problem_page(
    texts: &'static Texts,
    title: &str,
    path: &str,
    query: &str,
    main: &Markup,
) -> String {
    let document = Document {
        texts,
        page: "problem",
        title,
        has_faults: false,
        path,
        query,
        canonical: None,
        public_url: None,
        data: None,
        skip: ("#problem", texts.text("skip_to_list")),
    };
    document.render(&html! {
        h1 id="problem" { (title) }
        (main)
    })
}
