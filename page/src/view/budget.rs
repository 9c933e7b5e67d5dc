//! A budget as a page shows it: in the page's language as far as it is translated.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemas::{
    Budget, CategoryOrder, IdentityRule, Openness, PublishStep, Reference, ResultsVisibility,
    time_zone,
};

use super::text::BudgetText;
use super::translator::Translator;
use crate::arithmetic::WHOLE;
use crate::language::Language;

/// A budget as a page shows it.
#[derive(Debug, Clone)]
pub struct BudgetView {
    /// The budget's id.
    pub id: String,
    /// Its question.
    pub name: BudgetText,
    /// What the question is about.
    pub description: Option<BudgetText>,
    /// Its categories.
    pub categories: Vec<CategoryView>,
    /// The order of the form's categories, where a script shows it.
    pub order: CategoryOrder,
    /// Real spending, to compare the results with.
    pub reference: Option<ReferenceView>,
    /// Whom people can ask.
    pub contact: Option<String>,
    /// The time zone of times.
    pub zone: TimeZone,
    /// When it opens.
    pub opens_at: Option<Timestamp>,
    /// When it closes.
    pub closes_at: Option<Timestamp>,
    /// When its results are visible.
    pub results: ResultsVisibility,
    /// How many people must have changed before its results move.
    pub publish_step: PublishStep,
    /// Who the person of an answer is.
    pub identity: IdentityRule,
    /// Whether it takes submissions now.
    pub openness: Openness,
}

/// A category as a page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CategoryView {
    /// The category's id.
    pub id: String,
    /// Its name.
    pub name: BudgetText,
    /// Its description.
    pub description: Option<BudgetText>,
    /// Its colour, `#rrggbb`.
    pub color: Option<String>,
}

/// Real spending as a page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceView {
    /// Whose spending, and when.
    pub name: BudgetText,
    /// Where the figures are published.
    pub source: BudgetText,
    /// Shares in basis points, in the budget's order.
    pub shares: Vec<u16>,
}

impl BudgetView {
    /// Shows a budget at `now`.
    pub fn new(budget: &Budget, language: Language, now: Timestamp) -> Self {
        let presentation = &budget.presentation;
        let translator = Translator::new(budget, language);
        let categories = budget.categories.iter().map(|category| CategoryView {
            id: category.id.as_str().to_owned(),
            name: translator.category_name(category),
            description: translator.category_description(category),
            // A definition of another release may have another form of colour.
            color: category.color.clone().filter(|color| is_hexadecimal_color(color)),
        });
        let reference = presentation.reference.as_ref();
        Self {
            id: budget.id.as_str().to_owned(),
            name: translator.name(),
            description: translator.description(),
            categories: categories.collect(),
            order: presentation.order,
            reference: reference.and_then(|reference| {
                let (name, source) = translator.reference(reference);
                Some(ReferenceView { name, source, shares: shares(budget, reference)? })
            }),
            contact: presentation.contact.clone(),
            zone: presentation.time_zone.as_deref().and_then(time_zone).unwrap_or(TimeZone::UTC),
            opens_at: budget.opens_at,
            closes_at: budget.closes_at,
            results: budget.results,
            publish_step: budget.publish_step(),
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

/// Returns the shares of a reference in the budget's order; `None` if they are not those of these categories, as in a
/// definition of another release.
fn shares(budget: &Budget, reference: &Reference) -> Option<Vec<u16>> {
    let share = |id| reference.percent.get(id).map_or(0, |share| share.basis_points());
    let shares: Vec<u16> = budget.categories.iter().map(|category| share(&category.id)).collect();
    (shares.iter().copied().map(u32::from).sum::<u32>() == WHOLE).then_some(shares)
}

fn is_hexadecimal_color(color: &str) -> bool {
    color.strip_prefix('#').is_some_and(|digits| {
        digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use maud::Render;
    use schemas::{Translation, default_budgets};

    use super::*;

    fn view(budget: &Budget, language: Language) -> BudgetView {
        BudgetView::new(budget, language, Timestamp::UNIX_EPOCH)
    }

    fn default_budget() -> Budget {
        default_budgets().unwrap().remove(0)
    }

    fn marked(text: &str, language: &str) -> BudgetText {
        BudgetText { text: text.to_owned(), language: Some(language.to_owned()) }
    }

    #[test]
    fn the_default_budget_is_complete_in_every_language() {
        let budget = default_budget();
        let english = view(&budget, Language::En);
        for language in Language::ALL {
            let view = view(&budget, language);
            let reference = view.reference.unwrap();
            let texts = view.categories.iter().flat_map(|category| {
                [&category.name].into_iter().chain(category.description.as_ref())
            });
            let mut texts: Vec<&BudgetText> = texts.collect();
            texts.extend([&view.name, &reference.name, &reference.source]);
            assert_eq!(texts.len(), 23);
            assert!(texts.iter().all(|text| text.language.is_none()), "{language:?}");
            assert_eq!(view.name == english.name, language == Language::En);
            assert_eq!(reference.shares.iter().map(|share| u32::from(*share)).sum::<u32>(), WHOLE);
        }
    }

    /// The default definition as earlier releases have stored it.
    fn earlier_default_budget() -> Budget {
        Budget { presentation: Default::default(), ..default_budget() }
    }

    #[test]
    fn the_default_budget_of_an_earlier_release_is_translated_where_nobody_has_changed_it() {
        let mut budget = earlier_default_budget();
        budget.categories[6].name = "Clinics".to_owned();
        budget.categories[6].color = Some("red\"".to_owned());
        let german = view(&budget, Language::De);
        let name = |index: usize| german.categories[index].name.text.as_str();
        assert_eq!((name(6), name(8)), ("Clinics", "Bildung"));
        assert_eq!((&german.categories[6].color, &german.reference), (&None, &None));
        assert_ne!(german.name.text, budget.name);
        budget.id = schemas::BudgetId::parse("other").unwrap();
        assert_eq!(view(&budget, Language::De).categories[8].name.text, "Education");
    }

    #[test]
    fn a_text_without_a_translation_is_shown_and_marked_in_the_definitions_language() {
        let mut budget =
            Budget { id: schemas::BudgetId::parse("parcs").unwrap(), ..default_budget() };
        budget.presentation.language = Some("fr".to_owned());
        budget.presentation.description = Some("Tout.".to_owned());
        let german = Translation { name: Some("Parks".to_owned()), ..Translation::default() };
        budget.presentation.translations = [("de-AT".to_owned(), german)].into();
        let shown = view(&budget, Language::De);
        assert_eq!(shown.name, BudgetText { text: "Parks".to_owned(), language: None });
        assert_eq!(shown.description, Some(marked("Tout.", "fr")));
        assert_eq!(shown.categories[6].name, marked("Health", "fr"));
        assert_eq!(view(&budget, Language::Pl).name, marked(&budget.name, "fr"));
        assert_eq!(view(&budget, Language::Fr).name.language, None);
        assert_eq!(marked("<b>", "fr").render().0, "<bdi lang=\"fr\">&lt;b&gt;</bdi>");
    }

    #[test]
    fn an_exact_translation_is_preferred_to_a_regional_one() {
        let mut budget = default_budget();
        for (tag, name) in [("de-AT", "Österreich"), ("de", "Deutsch"), ("des", "Desano")] {
            let translation = Translation { name: Some(name.into()), ..Translation::default() };
            budget.presentation.translations.insert(tag.to_owned(), translation);
        }
        assert_eq!(view(&budget, Language::De).name.text, "Deutsch");
        budget.presentation.translations.remove("de");
        assert_eq!(view(&budget, Language::De).name.text, "Österreich");
    }

    #[test]
    fn a_reference_or_time_zone_that_does_not_fit_is_not_shown() {
        let mut budget = default_budget();
        budget.presentation.time_zone = Some("Mars/Olympus".to_owned());
        budget.categories.pop();
        let shown = view(&budget, Language::En);
        assert_eq!((shown.reference, shown.zone), (None, TimeZone::UTC));
    }
}
