//! Names as people write them, to slugs.

use std::collections::BTreeMap;

use schemas::{BudgetId, Category, CategoryId, NAME_MAX_CHARS, SLUG_MAX_BYTES};

/// The budget id that a name suggests; `None` for a name without a letter or digit.
pub fn budget_id(name: &str) -> Option<BudgetId> {
    BudgetId::parse(cut(&slug::slugify(name), SLUG_MAX_BYTES)).ok()
}

/// What a budget has of one of its categories before the category has an id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// What the id is made of.
    pub source: String,
    /// What people call it.
    pub name: String,
}

/// Categories with ids of their own, in ascending order of id, each with what it was made of. The same names give the
/// same ids, in whatever order they come: of names with one slug the first by name gets it, the others a number too.
pub fn categories(named: impl IntoIterator<Item = Named>) -> Vec<(String, Category)> {
    let mut named: Vec<Named> = named.into_iter().collect();
    named.sort();
    let mut made = BTreeMap::new();
    for Named { source, name } in named {
        let Some(id) = free_id(&source, &made) else { continue };
        let name = name.chars().take(NAME_MAX_CHARS).collect();
        let category = Category { id: id.clone(), name, description: None, color: None };
        made.insert(id, (source, category));
    }
    made.into_values().collect()
}

/// The first of `x`, `x-2`, `x-3`, … that is not taken.
fn free_id<T>(source: &str, taken: &BTreeMap<CategoryId, T>) -> Option<CategoryId> {
    let slug = slug::slugify(source);
    let slug = if slug.is_empty() { "category" } else { slug.as_str() };
    (1..=taken.len() + 1).find_map(|number| {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let stem = cut(slug, SLUG_MAX_BYTES.saturating_sub(suffix.len()));
        let id = CategoryId::parse(&format!("{stem}{suffix}")).ok()?;
        (!taken.contains_key(&id)).then_some(id)
    })
}

/// At most so many bytes of a slug, which is ASCII, still a slug.
fn cut(slug: &str, bytes: usize) -> &str {
    slug.get(..bytes).unwrap_or(slug).trim_end_matches('-')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ids(names: &[&str]) -> Vec<(String, String)> {
        let named = names.iter().map(|name| Named { source: (*name).into(), name: (*name).into() });
        let pair = |(source, category): (String, Category)| (source, category.id.to_string());
        categories(named).into_iter().map(pair).collect()
    }

    #[test]
    fn names_become_readable_slugs_in_ascending_order() {
        let expected =
            [("M/16/IX", "m-16-ix"), ("public space", "public-space"), ("Zieleń", "zielen")];
        let expected = expected.map(|(name, id)| (name.to_owned(), id.to_owned()));
        assert_eq!(ids(&["public space", "Zieleń", "M/16/IX"]), expected);
    }

    #[test]
    fn names_with_one_slug_get_numbers_by_name_and_not_by_place() {
        let expected = [("A b", "a-b"), ("a  b", "a-b-2"), ("a b", "a-b-3"), ("???", "category")];
        let expected = expected.map(|(name, id)| (name.to_owned(), id.to_owned()));
        assert_eq!(ids(&["a b", "???", "A b", "a  b"]), expected);
        assert_eq!(ids(&["a  b", "A b", "a b", "???"]), expected);
    }

    #[test]
    fn a_budget_is_named_after_its_place_and_year() {
        assert_eq!(budget_id("Katowice 2022").unwrap().as_str(), "katowice-2022");
        assert_eq!(budget_id("Łódź, 2020").unwrap().as_str(), "lodz-2020");
        assert_eq!(budget_id("–"), None);
    }

    proptest! {
        #[test]
        fn every_name_gets_an_id_of_its_own(names in prop::collection::btree_set(".{0,80}", 0..40)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let ids: BTreeSet<String> = ids(&names).into_iter().map(|(_, id)| id).collect();
            prop_assert_eq!(ids.len(), names.len());
        }
    }
}
