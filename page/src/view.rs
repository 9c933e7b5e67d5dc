//! View models: what the pages show of a budget and of its results, in the page's language.

mod budget;
mod text;
mod translator;

use jiff::Timestamp;
use schemas::{Budget, average_ten_thousandths};

use crate::language::Language;

pub use budget::{BudgetView, CategoryView, ReferenceView};
pub use text::BudgetText;

/// Returns a budget's question in a language, as far as it is translated.
pub(crate) fn name_of(budget: &Budget, language: Language) -> String {
    translator::Translator::new(budget, language).name().text
}

/// What a page shows of a budget's results.
#[derive(Debug, Clone)]
pub enum Results {
    /// Nothing before the budget opens.
    NotYet,
    /// The results cannot be read now.
    Unavailable,
    /// The budget's rules hide the results: no number of them is shown.
    Withheld(Withheld),
    /// The results.
    Shown(ShownResults),
}

/// Why results are withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// Until the budget closes.
    AfterClose(Timestamp),
    /// The budget has closed; until every submission that was accepted in time is counted.
    Counting,
    /// Until enough people have taken part.
    MinimumPeople,
    /// Only a newer release knows until when.
    UnknownRule,
}

/// Results that are shown.
#[derive(Debug, Clone)]
pub struct ShownResults {
    /// The number of people.
    pub people: u64,
    /// Whether the budget has closed and everything is counted.
    pub is_final: bool,
    /// Number of people who are annulled.
    pub annulled: u64,
    /// When the newest submission was accepted; `None` before the first.
    pub updated_at: Option<Timestamp>,
    /// The results of each category, in the budget's order.
    pub categories: Vec<CategoryResult>,
    /// The aggregate as the API serves it.
    pub json: String,
}

/// The result of one category.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CategoryResult {
    /// The sum of all shares, in basis points.
    pub total_basis_points: u64,
    /// The median, in tenths of a percent.
    pub median_tenths: u64,
}

impl CategoryResult {
    /// The average share in ten-thousandths of a percent, rounded half up; 0 without people.
    pub fn average(&self, people: u64) -> u64 {
        average_ten_thousandths(self.total_basis_points, people)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_rounded_as_in_the_api() {
        let result = CategoryResult { total_basis_points: 49_664_889, median_tenths: 0 };
        assert_eq!(result.average(32_815), 151_348);
        assert_eq!(result.average(0), 0);
    }
}
