//! Parses the allocation of a JSON submission as far as no budget is needed for it.
//!
//! What is wrong in every budget is rejected here, so that a dry run rejects it too. The server checks the rest:
//! whether the budget has the categories.

use std::fmt;

use ingest::parse_basis_points;
use schemas::{BASIS_POINTS_PER_PERSON, CategoryId, MAX_CATEGORIES};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::percent::format_percent;
use crate::import::file::quoted;

/// Returns the categories in ascending order, with their basis points.
///
/// # Errors
/// Why no budget accepts the allocation.
pub fn parse_shares(allocation: &RawValue) -> Result<Vec<(CategoryId, u16)>, String> {
    let Ok(Members(members)) = serde_json::from_str(allocation.get()) else {
        return Err("the allocation is not an object".to_owned());
    };
    if members.len() > MAX_CATEGORIES {
        let found = members.len();
        return Err(format!("has {found} categories, but a budget has at most {MAX_CATEGORIES}"));
    }
    let mut shares = Vec::with_capacity(members.len());
    for (name, value) in members {
        let category = CategoryId::parse(&name)
            .map_err(|fault| format!("{} is not a category id: it {fault}", quoted(&name)))?;
        let number = value.get();
        if !number.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
            return Err(format!("`{category}` is not a number"));
        }
        let share = parse_basis_points(number)
            .map_err(|fault| format!("`{category}` {fault}: {}", quoted(number)))?;
        shares.push((category, share));
    }
    shares.sort();
    if let Some((category, _)) =
        shares.iter().zip(shares.iter().skip(1)).find(|(a, b)| a.0 == b.0).map(|(first, _)| first)
    {
        return Err(format!("`{category}` appears more than once"));
    }
    let sum: u64 = shares.iter().map(|(_, share)| u64::from(*share)).sum();
    if sum != BASIS_POINTS_PER_PERSON {
        return Err(format!("the percentages add up to {} instead of 100", format_percent(sum)));
    }
    Ok(shares)
}

/// The members of a JSON object in document order. A map would silently drop repeated ones.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Vec<(String, u16)>, String> {
        let shares = parse_shares(&RawValue::from_string(json.to_owned()).unwrap())?;
        Ok(shares.into_iter().map(|(category, share)| (category.to_string(), share)).collect())
    }

    #[test]
    fn spelling_and_order_do_not_matter() {
        let expected =
            Ok(vec![("a".to_owned(), 5000), ("b".to_owned(), 5000), ("c".to_owned(), 0)]);
        let spellings = [
            r#"{"a":50,"b":50,"c":0}"#,
            r#"{ "c": -0, "b" : 50.00, "\u0061": 5e1 }"#,
            r#"{"b":0.5E+2,"c":0.000,"a":50.000}"#,
        ];
        for json in spellings {
            assert_eq!(parse(json), expected, "{json}");
        }
    }

    #[test]
    fn what_no_budget_accepts_is_rejected_with_its_reason() {
        let many: Vec<String> = (0..65).map(|number| format!("\"c{number}\":0")).collect();
        let many = format!("{{{}}}", many.join(","));
        let reasons = [
            ("[50,50]", "the allocation is not an object"),
            ("null", "the allocation is not an object"),
            ("{}", "the percentages add up to 0.00 instead of 100"),
            (r#"{"a":50,"b":49.99}"#, "the percentages add up to 99.99 instead of 100"),
            (r#"{"a":50,"b":50,"a":50}"#, "`a` appears more than once"),
            (r#"{"a":50.001,"b":49.999}"#, "`a` must have at most two decimals: `50.001`"),
            (r#"{"a":-1,"b":101}"#, "`a` must not be negative: `-1`"),
            (r#"{"a":"100"}"#, "`a` is not a number"),
            (many.as_str(), "has 65 categories, but a budget has at most 64"),
        ];
        for (json, reason) in reasons {
            assert_eq!(parse(json), Err(reason.to_owned()), "{json}");
        }
        assert!(
            parse(r#"{"A":100}"#).unwrap_err().starts_with("`A` is not a category id: it must")
        );
    }
}
