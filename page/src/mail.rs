//! The mail with a one-time code: plain text in the reader's language, without links.

use schemas::Budget;

use crate::language::Language;
use crate::texts::Texts;
use crate::view;

/// Maximum number of characters of a budget's question in a mail.
const MAX_NAME_CHARS: usize = 200;

/// The texts of a mail.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeMail {
    /// The subject, one line.
    pub subject: String,
    /// The text.
    pub body: String,
}

impl std::fmt::Debug for CodeMail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CodeMail(hidden)")
    }
}

/// Writes the mail with a one-time code for a budget.
pub fn code_mail(budget: &Budget, language: Language, code: &str) -> CodeMail {
    let texts = Texts::of(language);
    let name = one_line(&view::name_of(budget, language));
    let budget = [("budget", name.as_str())];
    let paragraphs = [
        texts.format("mail_intro", &budget),
        code.to_owned(),
        texts.text("mail_valid").to_owned(),
        texts.text("mail_ignore").to_owned(),
    ];
    CodeMail {
        subject: texts.format("mail_subject", &budget),
        body: paragraphs.join("\n\n") + "\n",
    }
}

/// Removes what could begin another line or header, or hide a part of the text.
fn one_line(text: &str) -> String {
    let is_mark = |c: char| matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let visible = text.chars().map(|c| if c.is_control() || is_mark(c) { ' ' } else { c });
    visible.take(MAX_NAME_CHARS).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemas::default_budgets;

    use super::*;

    #[test]
    fn a_mail_has_the_code_and_the_question_in_each_language_and_no_link() {
        let budget = default_budgets().unwrap().remove(0);
        for language in Language::ALL {
            let mail = code_mail(&budget, language, "012345");
            let name = view::name_of(&budget, language);
            assert!(mail.subject.contains(&name) && mail.body.contains(&name), "{language:?}");
            assert_eq!(mail.body.matches("012345").count(), 1, "{language:?}");
            assert!(!mail.subject.contains("012345"), "{language:?}");
            assert!(!mail.body.contains("://") && !mail.body.contains("www."), "{language:?}");
            assert!(!format!("{mail:?}").contains("012345"));
        }
    }

    #[test]
    fn a_question_stays_one_line_of_bounded_length() {
        let mut budget = default_budgets().unwrap().remove(0);
        budget.id = schemas::BudgetId::parse("other").unwrap();
        budget.name = format!("a\r\nBcc: b@example.org\u{2028}\u{202e}{}", "x".repeat(1_000));
        let mail = code_mail(&budget, Language::En, "012345");
        assert!(!mail.subject.contains(['\r', '\n', '\u{2028}', '\u{202e}']));
        assert!(mail.subject.chars().count() < MAX_NAME_CHARS + 50);
    }
}
