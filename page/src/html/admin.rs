//! The administrators' page: a frame around what its script shows. In English alone.
//!
//! It has no data: the script reads everything from `/v1/admin`, with the administrator's token.

use maud::{DOCTYPE, html};

use crate::assets::Assets;

/// Renders the page.
pub fn admin_page() -> String {
    let folder = Assets::embedded().folder();
    let page = html! {
        (DOCTYPE)
        html lang="en" dir="ltr" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { "Administration" }
                link rel="stylesheet" href={ (folder) "page.css" };
                link rel="stylesheet" href={ (folder) "admin.css" };
                link rel="icon" href={ (folder) "icon.svg" } type="image/svg+xml";
                script type="module" src={ (folder) "admin.js" } {}
            }
            body data-page="admin" {
                a class="skip" href="#admin" { "Skip to the content" }
                header class="site" {
                    a href="/budgets" { "All questions" }
                    span id="administrator" {}
                }
                main {
                    h1 { "Administration" }
                    nav id="sections" class="sections" aria-label="Sections" hidden {}
                    p id="announce" class="visually-hidden" role="status" {}
                    div id="admin" {
                        noscript { p class="notice" { "This page needs JavaScript. Without it, use the HTTP API, or the commands of " code { "processor" } "." } }
                    }
                }
            }
        }
    };
    page.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_no_inline_code_and_says_that_it_needs_a_script() {
        let page = admin_page();
        assert!(page.contains("<noscript>") && page.contains("This page needs JavaScript."));
        assert!(!page.contains("style=") && !page.contains(" onclick"), "{page}");
        assert_eq!(page.matches("<script").count(), 1);
    }
}
