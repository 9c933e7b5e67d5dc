//! View models: what the pages show of a budget and of its results, in the page's language.

use std::sync::LazyLock;

use jiff::Timestamp;
use schemas::{Budget, DEFAULT_BUDGET, IdentityRule, Openness, ResultsVisibility, default_budgets};
use serde::Serialize;

use crate::language::Language;
use crate::texts::Texts;

/// A budget as a page shows it.
#[derive(Debug, Clone)]
pub struct BudgetView {
    /// The budget's id.
    pub id: String,
    /// Its question.
    pub name: String,
    /// Its categories.
    pub categories: Vec<CategoryView>,
    /// When it opens.
    pub opens_at: Option<Timestamp>,
    /// When it closes.
    pub closes_at: Option<Timestamp>,
    /// When its results are visible.
    pub results: ResultsVisibility,
    /// Who the person of an answer is.
    pub identity: IdentityRule,
    /// Whether it takes submissions now.
    pub openness: Openness,
}

/// A category as a page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CategoryView {
    /// The category's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    #[serde(skip)]
    pub description: Option<String>,
    /// Its colour, `#rrggbb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
}

impl BudgetView {
    /// Shows a budget at `now`. The default budget's own names are translated, where nobody has changed them.
    pub fn new(budget: &Budget, language: Language, now: Timestamp) -> Self {
        let texts = Texts::of(language);
        let default = default_of(budget);
        let translated = |current: &str, default: Option<&str>, key: &str| {
            let translation = texts.find(key).filter(|_| default == Some(current));
            translation.unwrap_or(current).to_owned()
        };
        let categories = budget.categories.iter().map(|category| {
            let id = category.id.as_str();
            let original = default.and_then(|default| {
                default.categories.iter().find(|original| original.id == category.id)
            });
            let name = original.map(|original| original.name.as_str());
            let description = original.and_then(|original| original.description.as_deref());
            CategoryView {
                id: id.to_owned(),
                name: translated(&category.name, name, &format!("taxes.{id}")),
                description: category.description.as_deref().map(|current| {
                    translated(current, description, &format!("taxes.{id}.description"))
                }),
                // A definition of another release may have another form of colour.
                color: category.color.clone().filter(|color| is_hexadecimal_color(color)),
            }
        });
        Self {
            id: budget.id.as_str().to_owned(),
            name: translated(
                &budget.name,
                default.map(|default| default.name.as_str()),
                "taxes.name",
            ),
            categories: categories.collect(),
            opens_at: budget.opens_at,
            closes_at: budget.closes_at,
            results: budget.results,
            identity: budget.identity,
            openness: budget.openness(now),
        }
    }

    /// The budget's state, for the page's script and for caches.
    pub fn state(&self) -> &'static str {
        match self.openness {
            Openness::NotYet(_) => "not-yet",
            Openness::Open => "open",
            Openness::Closed(_) => "closed",
        }
    }

    /// Whether the page's form can be sent now.
    pub fn takes_answers(&self) -> bool {
        let comes_from_elsewhere =
            matches!(self.identity, IdentityRule::Token | IdentityRule::Unrecognized);
        self.openness == Openness::Open && !comes_from_elsewhere
    }

    /// The path of the budget's page.
    pub fn path(&self) -> String {
        format!("/budgets/{}", self.id)
    }
}

/// Returns the default definition of a budget, if it has one.
fn default_of(budget: &Budget) -> Option<&'static Budget> {
    static DEFAULTS: LazyLock<Vec<Budget>> =
        LazyLock::new(|| default_budgets().unwrap_or_default());
    let default = DEFAULTS.iter().find(|default| default.id == budget.id);
    default.filter(|default| default.id.as_str() == DEFAULT_BUDGET)
}

fn is_hexadecimal_color(color: &str) -> bool {
    color.strip_prefix('#').is_some_and(|digits| {
        digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
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
        if people == 0 {
            return 0;
        }
        let people = u128::from(people);
        let average = (u128::from(self.total_basis_points) * 200 + people) / (people * 2);
        u64::try_from(average).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn view(budget: &Budget, language: Language) -> BudgetView {
        BudgetView::new(budget, language, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn only_the_default_budgets_own_names_are_translated() {
        let mut budget = default_budgets().unwrap().remove(0);
        let german = view(&budget, Language::De);
        assert_eq!(
            (german.categories[6].name.as_str(), german.categories[8].name.as_str()),
            ("Gesundheit", "Bildung")
        );
        assert_ne!(german.name, budget.name);
        budget.categories[6].name = "Clinics".to_owned();
        budget.categories[6].color = Some("red\"".to_owned());
        let changed = view(&budget, Language::De);
        assert_eq!(
            (changed.categories[6].name.as_str(), changed.categories[8].name.as_str()),
            ("Clinics", "Bildung")
        );
        assert_eq!(changed.categories[6].color, None);
        budget.id = schemas::BudgetId::parse("other").unwrap();
        assert_eq!(view(&budget, Language::De).categories[8].name, "Education");
    }

    #[test]
    fn the_default_budgets_english_texts_are_its_definition() {
        let budget = default_budgets().unwrap().remove(0);
        let english = view(&budget, Language::En);
        assert_eq!(english.name, budget.name);
        for (shown, category) in english.categories.iter().zip(&budget.categories) {
            assert_eq!((&shown.name, &shown.description), (&category.name, &category.description));
        }
    }

    #[test]
    fn averages_are_rounded_as_in_the_api() {
        let result = CategoryResult { total_basis_points: 49_664_889, median_tenths: 0 };
        assert_eq!(result.average(32_815), 151_348);
        assert_eq!(result.average(0), 0);
    }
}
