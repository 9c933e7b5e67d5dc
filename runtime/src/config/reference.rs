//! The configuration reference as a Markdown table.

use std::fmt::Write;

use super::KeyDoc;

/// Renders a Markdown table of the keys, in the given order: key, default, unit, meaning.
pub fn reference(keys: &[&[KeyDoc]]) -> String {
    let mut table = String::from("| key | default | unit | meaning |\n|---|---|---|---|\n");
    for key in keys.iter().copied().flatten() {
        let default = match key.default {
            None => "*required*".to_owned(),
            Some("") => "*empty*".to_owned(),
            Some(text) => format!("`{}`", cell(text)),
        };
        let secret = if key.secret { " (secret)" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| `{}` | {default} | {} | {}{secret} |",
            key.name,
            cell(key.unit),
            cell(key.doc)
        );
    }
    table
}

/// Escapes a text for a table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
