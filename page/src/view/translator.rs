//! Chooses each text of a definition in the page's language.
//!
//! In this order: the definition's own text, if it is in that language; its translation; for the default budget, the
//! translation of this release, where nobody has changed the text; the definition's own text in its language.

use std::sync::LazyLock;

use schemas::{
    Budget, Category, DEFAULT_BUDGET, Reference, TranslatedCategory, Translation, default_budgets,
};

use super::text::BudgetText;
use crate::language::Language;

/// Translates the texts of one budget.
pub(super) struct Translator<'a> {
    budget: &'a Budget,
    is_own_language: bool,
    translation: Option<&'a Translation>,
    default: Option<DefaultTexts>,
}

/// The default budget as this release defines it.
struct DefaultTexts {
    budget: &'static Budget,
    translation: Option<&'static Translation>,
}

impl<'a> Translator<'a> {
    pub fn new(budget: &'a Budget, language: Language) -> Self {
        let own = budget.presentation.language.as_deref();
        Self {
            budget,
            is_own_language: own.and_then(Language::of_tag) == Some(language),
            translation: translation(budget, language),
            default: default_of(budget)
                .map(|budget| DefaultTexts { budget, translation: translation(budget, language) }),
        }
    }

    /// The budget's name.
    pub fn name(&self) -> BudgetText {
        let translated = |it: &'a Translation| it.name.as_deref();
        let default = self.default.as_ref().filter(|it| it.budget.name == self.budget.name);
        let default = default.and_then(|it| it.translation?.name.as_deref());
        self.choose(&self.budget.name, self.translation.and_then(translated).or(default))
    }

    /// The budget's description.
    pub fn description(&self) -> Option<BudgetText> {
        let own = non_empty(self.budget.presentation.description.as_deref())?;
        Some(self.choose(own, self.translation.and_then(|it| it.description.as_deref())))
    }

    /// A category's name.
    pub fn category_name(&self, category: &Category) -> BudgetText {
        let translated = self.category(category).and_then(|it| it.name.as_deref());
        let default = self.default_category(category, |original| original.name == category.name);
        let default = default.and_then(|it| it.name.as_deref());
        self.choose(&category.name, translated.or(default))
    }

    /// A category's description.
    pub fn category_description(&self, category: &Category) -> Option<BudgetText> {
        let own = non_empty(category.description.as_deref())?;
        let translated = self.category(category).and_then(|it| it.description.as_deref());
        let default = self
            .default_category(category, |original| original.description.as_deref() == Some(own));
        let default = default.and_then(|it| it.description.as_deref());
        Some(self.choose(own, translated.or(default)))
    }

    /// The name and the source of a reference.
    pub fn reference(&self, reference: &Reference) -> (BudgetText, BudgetText) {
        let translation = self.translation.and_then(|it| it.reference.as_ref());
        let name = translation.and_then(|it| it.name.as_deref());
        let source = translation.and_then(|it| it.source.as_deref());
        (self.choose(&reference.name, name), self.choose(&reference.source, source))
    }

    fn category(&self, category: &Category) -> Option<&'a TranslatedCategory> {
        self.translation?.categories.get(&category.id)
    }

    /// Returns this release's translation of a category, if its original is still what the definition has.
    fn default_category(
        &self,
        category: &Category,
        is_original: impl Fn(&Category) -> bool,
    ) -> Option<&'static TranslatedCategory> {
        let default = self.default.as_ref()?;
        let original = default.budget.categories.iter().find(|it| it.id == category.id)?;
        default.translation.filter(|_| is_original(original))?.categories.get(&category.id)
    }

    fn choose(&self, own: &str, translated: Option<&str>) -> BudgetText {
        match translated.filter(|text| !self.is_own_language && !text.is_empty()) {
            Some(text) => BudgetText { text: text.to_owned(), language: None },
            None => BudgetText {
                text: own.to_owned(),
                language: self
                    .budget
                    .presentation
                    .language
                    .clone()
                    .filter(|_| !self.is_own_language),
            },
        }
    }
}

fn non_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// Returns the translation for a language, or the first one for a region of it.
fn translation(budget: &Budget, language: Language) -> Option<&Translation> {
    let translations = &budget.presentation.translations;
    translations.get(language.tag()).or_else(|| {
        let mut translations = translations.iter();
        translations.find_map(|(tag, it)| (Language::of_tag(tag) == Some(language)).then_some(it))
    })
}

/// Returns the default definition of a budget, if it has one.
fn default_of(budget: &Budget) -> Option<&'static Budget> {
    static DEFAULTS: LazyLock<Vec<Budget>> =
        LazyLock::new(|| default_budgets().unwrap_or_default());
    let default = DEFAULTS.iter().find(|default| default.id == budget.id);
    default.filter(|default| default.id.as_str() == DEFAULT_BUDGET)
}
