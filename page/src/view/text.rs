//! A text of a definition, in the language in which it is written.

use maud::{Markup, Render, html};

/// A text of a definition. Renders isolated from the direction of the text around it, and marked by its language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetText {
    /// The text.
    pub text: String,
    /// Its language as a BCP 47 tag, where it is known and not the page's.
    pub language: Option<String>,
}

impl Render for BudgetText {
    fn render(&self) -> Markup {
        html! { bdi lang=[self.language.as_deref()] { (self.text) } }
    }
}
