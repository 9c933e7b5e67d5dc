//! Asks the operator before results are changed.

use std::io::{self, BufRead, IsTerminal};

use runtime::console;

use super::AnnulmentsCommandError;

/// Whether to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmation {
    Ask,
    Given,
}

/// Asks a question, and returns whether the answer is `yes`.
///
/// # Errors
/// When nobody can be asked.
pub(super) fn confirm(
    question: &str,
    confirmation: Confirmation,
) -> Result<bool, AnnulmentsCommandError> {
    if confirmation == Confirmation::Given {
        return Ok(true);
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(AnnulmentsCommandError::NoTerminal);
    }
    console::err(&format!("{question} Type yes to go on: "));
    let mut answer = String::new();
    let is_read = stdin.lock().read_line(&mut answer).is_ok();
    Ok(is_read && answer.trim() == "yes")
}
