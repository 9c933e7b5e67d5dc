//! The JSON and CSV forms of a history.

use std::fmt::Write;

use schemas::{Budget, HistoryStep, HistoryTotals, InstantTotals};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::query::HistoryPage;
use crate::answer::{Decimal, average_percent};
use crate::rfc3339::rfc3339_seconds;

#[derive(Serialize)]
struct HistoryBody<'a> {
    budget: &'a str,
    step: &'static str,
    points: Vec<PointBody<'a>>,
    /// `from` of the next page; `null` on the last one.
    next: Option<String>,
}

#[derive(Serialize)]
struct PointBody<'a> {
    at: String,
    people: u64,
    average_percent: Averages<'a>,
}

/// The averages of all categories, in the budget's order.
struct Averages<'a> {
    budget: &'a Budget,
    totals: &'a HistoryTotals,
}

impl Averages<'_> {
    fn iter(&self) -> impl Iterator<Item = (&str, Decimal)> {
        let average = move |sum: &u64| average_percent(*sum, self.totals.people);
        let averages = self.totals.basis_points.iter().map(average);
        self.budget.categories.iter().map(|category| category.id.as_str()).zip(averages)
    }
}

impl Serialize for Averages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.totals.basis_points.len()))?;
        for (category, average) in self.iter() {
            map.serialize_entry(category, &average)?;
        }
        map.end()
    }
}

fn time(point: &InstantTotals, step: HistoryStep) -> String {
    rfc3339_seconds(point.instant.at_ms(step)).unwrap_or_default()
}

/// Writes the JSON form.
pub(super) fn json(
    budget: &Budget,
    page: &HistoryPage,
    points: &[&InstantTotals],
) -> serde_json::Result<Vec<u8>> {
    let points = points.iter().map(|point| PointBody {
        at: time(point, page.step),
        people: point.totals.people,
        average_percent: Averages { budget, totals: &point.totals },
    });
    serde_json::to_vec(&HistoryBody {
        budget: budget.id.as_str(),
        step: page.step.as_str(),
        points: points.collect(),
        next: page.next.and_then(|next| rfc3339_seconds(next.at_ms(page.step))),
    })
}

/// Writes the CSV form: a column for each category, and a row for each point.
pub(super) fn csv(budget: &Budget, page: &HistoryPage, points: &[&InstantTotals]) -> Vec<u8> {
    let mut text = "at,people".to_owned();
    // Ids are slugs: nothing to quote.
    for category in &budget.categories {
        text.push(',');
        text.push_str(category.id.as_str());
    }
    text.push_str("\r\n");
    for point in points {
        let averages = Averages { budget, totals: &point.totals };
        // Writing to a string cannot fail.
        let _ = write!(text, "{},{}", time(point, page.step), point.totals.people);
        for (_, average) in averages.iter() {
            let _ = write!(text, ",{average}");
        }
        text.push_str("\r\n");
    }
    text.into_bytes()
}
