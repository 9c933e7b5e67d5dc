//! The examples of commands in the documents, for tests that run or parse them.

use std::fs;

use anyhow::{Context, Result};

use crate::process::workspace;

/// Folders with documents for users and operators, from the root of the repository.
const FOLDERS: [&str; 4] = ["", "docs", "docs/operations", "local"];

/// Lists the documents, by their paths from the root of the repository.
///
/// # Errors
/// When a folder cannot be read.
pub fn documents() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(workspace().join(folder))? {
            let name = entry?.file_name().into_string().ok().context("a name that is no UTF-8")?;
            if name.ends_with(".md") {
                let separator = if folder.is_empty() { "" } else { "/" };
                found.push(format!("{folder}{separator}{name}"));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns the commands in the `console` blocks of a document, with their continued lines.
///
/// # Errors
/// When it cannot be read.
pub fn commands(document: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(workspace().join(document))?;
    let blocks = text.split("```console\n").skip(1);
    let mut found = Vec::new();
    for block in blocks.map(|rest| rest.split("```").next().unwrap_or_default()) {
        let block = block.replace("\\\n", " ");
        found.extend(block.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned));
    }
    Ok(found)
}
