//! Parses how a budget is presented: the optional texts, translations and reference of a definition.

use std::borrow::Cow;
use std::collections::BTreeMap;

use runtime::problem::member_pointer;
use schemas::{
    CategoryId, CategoryOrder, MAX_CATEGORIES, MAX_TRANSLATIONS, Presentation, Reference, Share,
    TranslatedCategory, TranslatedReference, Translation,
};
use serde_json::value::RawValue;

use super::definition::{DefinitionParser, REFERENCE_SHARES, placeholder};
use super::json::{json_type, parse_any_members, parse_known_members};
use super::percentage::parse_basis_points;

type Member<'a> = Option<&'a RawValue>;

impl DefinitionParser {
    /// Parses `description`, `language`, `translations`, `time_zone`, `reference`, `order` and `contact`.
    pub(super) fn presentation(&mut self, members: [Member<'_>; 7]) -> Presentation {
        let [description, language, translations, time_zone, reference, order, contact] = members;
        let translations = self.entries(translations, "/translations", MAX_TRANSLATIONS);
        Presentation {
            description: self.optional_string(description, "/description"),
            language: self.optional_string(language, "/language"),
            translations: translations
                .into_iter()
                .map(|(tag, value)| {
                    let pointer = member_pointer("/translations", &tag);
                    (tag.into_owned(), self.translation(value, &pointer))
                })
                .collect(),
            time_zone: self.optional_string(time_zone, "/time_zone"),
            reference: reference.map(|value| self.reference(value)),
            order: self.choice(
                order,
                "/order",
                [("fixed", CategoryOrder::Fixed), ("shuffled", CategoryOrder::Shuffled)],
            ),
            contact: self.optional_string(contact, "/contact"),
        }
    }

    fn reference(&mut self, value: &RawValue) -> Reference {
        const POINTER: &str = "/reference";
        let [name, source, percent] = self.members(value, POINTER, ["name", "source", "percent"]);
        let percent = self.required(percent, REFERENCE_SHARES);
        Reference {
            name: self.text(name, "/reference/name").unwrap_or_else(placeholder),
            source: self.text(source, "/reference/source").unwrap_or_else(placeholder),
            percent: self.shares(percent),
        }
    }

    fn shares(&mut self, value: Member<'_>) -> BTreeMap<CategoryId, Share> {
        let mut shares = BTreeMap::new();
        for (name, value) in self.entries(value, REFERENCE_SHARES, MAX_CATEGORIES) {
            let pointer = member_pointer(REFERENCE_SHARES, &name);
            let share = match json_type(value) {
                "a number" => parse_basis_points(value.get())
                    .map_err(|fault| self.faults.invalid(&*pointer, fault.to_string()))
                    .ok(),
                found => {
                    let detail = format!("must be a number, not {found}");
                    self.faults.malformed(&*pointer, detail);
                    None
                }
            };
            let share = share.and_then(|basis_points| Share::of_basis_points(basis_points).ok());
            self.has_unreadable_share |= share.is_none();
            if let (Some(id), Some(share)) = (self.category_key(&name, pointer), share) {
                shares.insert(id, share);
            }
        }
        shares
    }

    fn translation(&mut self, value: &RawValue, pointer: &str) -> Translation {
        let names = ["name", "description", "reference", "categories"];
        let [name, description, reference, categories] = self.members(value, pointer, names);
        let categories_pointer = format!("{pointer}/categories");
        let mut translated = BTreeMap::new();
        for (id, value) in self.entries(categories, &categories_pointer, MAX_CATEGORIES) {
            let pointer = member_pointer(&categories_pointer, &id);
            let [name, description] = self.members(value, &pointer, ["name", "description"]);
            let texts = TranslatedCategory {
                name: self.optional_string(name, &format!("{pointer}/name")),
                description: self.optional_string(description, &format!("{pointer}/description")),
            };
            if let Some(id) = self.category_key(&id, pointer) {
                translated.insert(id, texts);
            }
        }
        Translation {
            name: self.optional_string(name, &format!("{pointer}/name")),
            description: self.optional_string(description, &format!("{pointer}/description")),
            reference: reference.map(|value| {
                let pointer = format!("{pointer}/reference");
                let [name, source] = self.members(value, &pointer, ["name", "source"]);
                TranslatedReference {
                    name: self.optional_string(name, &format!("{pointer}/name")),
                    source: self.optional_string(source, &format!("{pointer}/source")),
                }
            }),
            categories: translated,
        }
    }

    fn optional_string(&mut self, value: Member<'_>, pointer: &str) -> Option<String> {
        self.optional_text(value, pointer).map(Cow::into_owned)
    }

    /// Parses the id of a category that is a member's name.
    fn category_key(&mut self, name: &str, pointer: String) -> Option<CategoryId> {
        CategoryId::parse(name)
            .map_err(|_| self.faults.invalid(pointer, "is no category of the budget"))
            .ok()
    }

    /// Parses an object with known members.
    fn members<'a, const N: usize>(
        &mut self,
        value: &'a RawValue,
        pointer: &str,
        names: [&'static str; N],
    ) -> [Member<'a>; N] {
        let members = parse_known_members(value.get().as_bytes(), pointer, names, &mut self.faults);
        members.unwrap_or_else(|error| {
            self.faults.malformed(pointer, error.detail("an object"));
            [None; N]
        })
    }

    /// Parses an object whose members have any names.
    fn entries<'a>(
        &mut self,
        value: Member<'a>,
        pointer: &str,
        max: usize,
    ) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        let Some(value) = value else { return Vec::new() };
        let entries = parse_any_members(value.get().as_bytes(), pointer, max, &mut self.faults);
        entries.unwrap_or_else(|error| {
            self.faults.malformed(pointer, error.detail("an object"));
            Vec::new()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use runtime::problem::Problem;
    use schemas::{Budget, BudgetId};

    use crate::parse::definition;

    /// Parses a definition of the categories `a` and `b` with more members.
    fn define(members: &str) -> Result<Budget, Problem> {
        let categories = r#"[{"id":"a","name":"A"},{"id":"b","name":"B"}]"#;
        let body = format!(r#"{{"name":"N","categories":{categories},{members}}}"#);
        definition(BudgetId::parse("parks").unwrap(), body.as_bytes())
    }

    #[track_caller]
    fn assert_faults(members: &str, pointers: &[&str]) {
        let problem = define(members).unwrap_err();
        let found: Vec<&str> =
            problem.recorded_faults().iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(found, pointers, "{members}");
    }

    const FULL: &str = r#""description":"One.\nTwo.","language":"en","time_zone":"Europe/Berlin","order":"shuffled",
        "contact":"town@example.org","reference":{"name":"Ours","source":"Town","percent":{"a":33.33,"b":66.67}},
        "translations":{"de":{"name":"Parks","description":"Eins.","reference":{"name":"Unsere"},
        "categories":{"a":{"name":"Bäume","description":"Viele."}}},"pt-BR":{}}"#;

    #[test]
    fn a_presentation_is_stored_as_it_was_sent() {
        let budget = define(FULL).unwrap();
        let mut stored = serde_json::to_value(&budget).unwrap();
        let sent: serde_json::Value = serde_json::from_str(&format!("{{{FULL}}}")).unwrap();
        for (name, value) in sent.as_object().unwrap() {
            assert_eq!(stored[name].take(), *value, "{name}");
        }
        let understood = schemas::StoredBudget::parse(&serde_json::to_vec(&budget).unwrap());
        assert_eq!(understood, schemas::StoredBudget::Understood(budget));
    }

    #[test]
    fn a_presentation_that_says_nothing_is_not_stored() {
        let plain = define(r#""minimum_people":1"#).unwrap();
        assert_eq!(define(r#""order":"fixed","translations":{}"#).unwrap(), plain);
        let stored = serde_json::to_value(&plain).unwrap();
        for member in ["order", "translations", "language", "reference"] {
            assert!(stored.get(member).is_none(), "{member}");
        }
    }

    #[test]
    fn every_fault_of_a_presentation_has_its_pointer() {
        assert_faults(
            r#""description":"\u0007","language":"german","time_zone":"Berlin","order":"random","contact":" ","translations":
            {"de":{"name":"","categories":{"c":{},"a":{"name":"x\ny","more":1}}},"d/e":{},"fr":{"reference":{}}}"#,
            &[
                "/translations/de/categories/a/more",
                "/order",
                "/description",
                "/language",
                "/time_zone",
                "/contact",
                "/translations/d~1e",
                "/translations/de/name",
                "/translations/de/categories/a/name",
                "/translations/de/categories/c",
                "/translations/fr/reference",
            ],
        );
        assert_faults(
            r#""description":1,"translations":[],"reference":{"name":true,"percent":{"a":"1","B":2,"b":100.001}}"#,
            &[
                "/translations",
                "/description",
                "/reference/name",
                "/reference/source",
                "/reference/percent/a",
                "/reference/percent/B",
                "/reference/percent/b",
            ],
        );
    }

    #[test]
    fn a_reference_adds_up_to_exactly_one_hundred() {
        let reference = |percent: &str| {
            format!(r#""reference":{{"name":"Ours","source":"Town","percent":{percent}}}"#)
        };
        for percent in [r#"{"a":100}"#, r#"{"a":0.01,"b":99.99}"#, r#"{"b":1e2}"#] {
            assert!(define(&reference(percent)).is_ok(), "{percent}");
        }
        for percent in ["{}", r#"{"a":99.99}"#, r#"{"a":50,"b":50.01}"#] {
            assert_faults(&reference(percent), &["/reference/percent"]);
        }
        assert_faults(&reference(r#"{"a":50,"c":50}"#), &["/reference/percent/c"]);
        assert_faults(
            &reference(r#"{"a":50,"a":50}"#),
            &["/reference/percent/a", "/reference/percent"],
        );
    }

    #[test]
    fn translations_need_a_language_that_is_none_of_theirs() {
        assert_faults(r#""translations":{"de":{}}"#, &["/language"]);
        assert_faults(r#""language":"de","translations":{"de":{}}"#, &["/translations/de"]);
    }

    #[test]
    fn the_number_of_translations_and_the_size_of_a_definition_are_bounded() {
        let translations = |count: u8, translation: &str| {
            let tag = |number: u8| {
                let letters = [b'a' + number / 26, b'a' + number % 26];
                letters.map(char::from).iter().collect::<String>()
            };
            let entries: Vec<String> =
                (0..count).map(|number| format!(r#""{}":{translation}"#, tag(number))).collect();
            format!(r#""language":"en","translations":{{{}}}"#, entries.join(","))
        };
        assert!(define(&translations(32, "{}")).is_ok());
        assert_faults(&translations(33, "{}"), &["/translations"]);

        let (name, description) = ("\u{1f6b2}".repeat(200), "\u{1f6b2}".repeat(2_000));
        let texts = format!(r#""name":"{name}","description":"{description}""#);
        let whole = format!(r#"{{{texts},"categories":{{"a":{{{texts}}},"b":{{{texts}}}}}}}"#);
        assert!(define(&translations(26, &whole)).is_ok());
        assert_faults(&translations(32, &whole), &[""]);
    }
}
