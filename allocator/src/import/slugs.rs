//! Derives budget and category ids (slugs) from names.

use std::collections::BTreeMap;

use schemas::{BudgetId, Category, CategoryId, NAME_MAX_CHARS, SLUG_MAX_BYTES};

/// Derives a budget id from a name. `None` for a name without letters or digits.
pub fn budget_id(name: &str) -> Option<BudgetId> {
    BudgetId::parse(truncate(&slug::slugify(name), SLUG_MAX_BYTES)).ok()
}

/// A category before it has an id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnidentifiedCategory {
    /// The text that the id is derived from.
    pub source: String,
    /// Display name.
    pub name: String,
}

/// Assigns each category a unique id and returns `(source, category)` in ascending order of id.
///
/// The ids do not depend on the order of the input: of several sources with the same slug, the first in sort order gets
/// the slug and the others get a number appended.
pub fn categories(
    unidentified: impl IntoIterator<Item = UnidentifiedCategory>,
) -> Vec<(String, Category)> {
    let mut unidentified: Vec<UnidentifiedCategory> = unidentified.into_iter().collect();
    unidentified.sort();
    let mut by_id = BTreeMap::new();
    for UnidentifiedCategory { source, name } in unidentified {
        let Some(id) = free_id(&source, &by_id) else { continue };
        let name = name.chars().take(NAME_MAX_CHARS).collect();
        let category = Category { id: id.clone(), name, description: None, color: None };
        by_id.insert(id, (source, category));
    }
    by_id.into_values().collect()
}

/// Returns the first of `x`, `x-2`, `x-3`, … that is not taken.
fn free_id<T>(source: &str, taken: &BTreeMap<CategoryId, T>) -> Option<CategoryId> {
    let slug = slug::slugify(source);
    let slug = if slug.is_empty() { "category" } else { slug.as_str() };
    (1..=taken.len() + 1).find_map(|number| {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let stem = truncate(slug, SLUG_MAX_BYTES.saturating_sub(suffix.len()));
        let id = CategoryId::parse(&format!("{stem}{suffix}")).ok()?;
        (!taken.contains_key(&id)).then_some(id)
    })
}

/// Truncates a slug, which is ASCII, to a slug of at most `max_bytes`.
fn truncate(slug: &str, max_bytes: usize) -> &str {
    slug.get(..max_bytes).unwrap_or(slug).trim_end_matches('-')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ids(names: &[&str]) -> Vec<(String, String)> {
        let unidentified = names
            .iter()
            .map(|name| UnidentifiedCategory { source: (*name).into(), name: (*name).into() });
        let pair = |(source, category): (String, Category)| (source, category.id.to_string());
        categories(unidentified).into_iter().map(pair).collect()
    }

    #[test]
    fn names_become_readable_slugs_in_ascending_order() {
        let expected =
            [("M/16/IX", "m-16-ix"), ("public space", "public-space"), ("Zieleń", "zielen")];
        let expected = expected.map(|(name, id)| (name.to_owned(), id.to_owned()));
        assert_eq!(ids(&["public space", "Zieleń", "M/16/IX"]), expected);
    }

    #[test]
    fn names_with_the_same_slug_get_numbers_in_sort_order() {
        let expected = [("A b", "a-b"), ("a  b", "a-b-2"), ("a b", "a-b-3"), ("???", "category")];
        let expected = expected.map(|(name, id)| (name.to_owned(), id.to_owned()));
        assert_eq!(ids(&["a b", "???", "A b", "a  b"]), expected);
        assert_eq!(ids(&["a  b", "A b", "a b", "???"]), expected);
    }

    #[test]
    fn a_budget_id_is_derived_from_place_and_year() {
        assert_eq!(budget_id("Katowice 2022").unwrap().as_str(), "katowice-2022");
        assert_eq!(budget_id("Łódź, 2020").unwrap().as_str(), "lodz-2020");
        assert_eq!(budget_id("–"), None);
    }

    proptest! {
        #[test]
        fn every_name_gets_a_unique_id(names in prop::collection::btree_set(".{0,80}", 0..40)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let ids: BTreeSet<String> = ids(&names).into_iter().map(|(_, id)| id).collect();
            prop_assert_eq!(ids.len(), names.len());
        }
    }
}
