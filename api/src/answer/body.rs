//! The JSON forms of an answer.

use jiff::Timestamp;
use schemas::{Budget, CategoryTotals, CombinedTotals};
use serde::Serialize;

use super::Withheld;
use super::numbers::{Decimal, average_percent, median_percent};
use crate::rfc3339::rfc3339;

#[derive(Serialize)]
struct AggregateBody<'a> {
    budget: &'a str,
    name: &'a str,
    people: u64,
    generation: u32,
    version: &'a str,
    /// `null` before the first record.
    updated_at: Option<String>,
    /// `true`, or absent.
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    is_final: Option<bool>,
    /// People who are annulled and would count otherwise. Absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    annulled: Option<u64>,
    categories: Vec<CategoryBody<'a>>,
}

#[derive(Serialize)]
struct CategoryBody<'a> {
    id: &'a str,
    name: &'a str,
    total_basis_points: u64,
    average_percent: Decimal,
    median_percent: Decimal,
    #[serde(skip_serializing_if = "Option::is_none")]
    distribution: Option<&'a [u64]>,
}

/// Serializes an aggregate.
pub(super) fn aggregate(
    budget: &Budget,
    version: &str,
    totals: &CombinedTotals,
    distribution: bool,
) -> serde_json::Result<Vec<u8>> {
    let empty = CategoryTotals::default();
    let mut categories = Vec::with_capacity(budget.categories.len());
    for (index, category) in budget.categories.iter().enumerate() {
        let counted = totals.categories.get(index).unwrap_or(&empty);
        categories.push(CategoryBody {
            id: category.id.as_str(),
            name: &category.name,
            total_basis_points: counted.basis_points,
            average_percent: average_percent(counted.basis_points, totals.people),
            median_percent: median_percent(&counted.people_by_percent),
            distribution: distribution.then_some(&counted.people_by_percent[..]),
        });
    }
    serde_json::to_vec(&AggregateBody {
        budget: budget.id.as_str(),
        name: &budget.name,
        people: totals.people,
        generation: totals.term.generation.0,
        version,
        updated_at: rfc3339(totals.updated_at_ms).filter(|_| totals.updated_at_ms > 0),
        is_final: totals.is_final().then_some(true),
        annulled: Some(totals.annulled).filter(|annulled| *annulled > 0),
        categories,
    })
}

#[derive(Serialize)]
struct WithheldBody<'a> {
    budget: &'a str,
    name: &'a str,
    /// `true`, or absent.
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    is_final: Option<bool>,
    withheld: WithheldReason,
    version: &'a str,
}

#[derive(Serialize)]
struct WithheldReason {
    reason: &'static str,
    until: Option<Timestamp>,
    /// `counting`: the budget has closed, and the last submissions are being counted. Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

/// Serializes a withheld aggregate: no number is shown, not even the count of people.
pub(super) fn withheld(
    budget: &Budget,
    version: &str,
    withheld: Withheld,
    is_final: bool,
) -> serde_json::Result<Vec<u8>> {
    let reason = |reason, until, state| WithheldReason { reason, until, state };
    serde_json::to_vec(&WithheldBody {
        budget: budget.id.as_str(),
        name: &budget.name,
        is_final: is_final.then_some(true),
        withheld: match withheld {
            Withheld::AfterClose(until) => reason("after_close", Some(until), None),
            Withheld::Counting(until) => reason("after_close", Some(until), Some("counting")),
            Withheld::MinimumPeople => reason("minimum_people", None, None),
            Withheld::UnknownRule => reason("unknown_rule", None, None),
        },
        version,
    })
}
