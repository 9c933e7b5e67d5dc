//! The data that the page's script reads: JSON in a `<script>` that no browser executes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};
use schemas::{CategoryOrder, IdentityRule, ResultsVisibility};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::assets::Assets;
use crate::texts::Texts;
use crate::view::{BudgetText, BudgetView, CategoryView, Results, Withheld};

#[derive(Serialize)]
struct PageData<'a> {
    budget: BudgetData<'a>,
    state: &'static str,
    /// How the form is sent: by the `script`, by the `form` itself, by the script with a `token`, or `elsewhere`.
    sends: &'static str,
    language: &'static str,
    assets: String,
    texts: Option<&'a RawValue>,
    number_format: NumberFormatData<'a>,
    aggregate: Option<Aggregate<'a>>,
    urls: Urls,
}

#[derive(Serialize)]
struct BudgetData<'a> {
    id: &'a str,
    name: &'a str,
    categories: Vec<CategoryData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<CategoryOrder>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<ReferenceData<'a>>,
    results: ResultsVisibility,
    opens_at: Option<Timestamp>,
    closes_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct CategoryData<'a> {
    id: &'a str,
    #[serde(flatten)]
    name: TextData<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    color: Option<&'a str>,
}

/// Real spending; shares in basis points by category.
#[derive(Serialize)]
struct ReferenceData<'a> {
    #[serde(flatten)]
    name: TextData<'a>,
    source: TextData<'a>,
    shares: BTreeMap<&'a str, u16>,
}

/// A text, and its language where that is not the page's.
#[derive(Serialize)]
struct TextData<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lang: Option<&'a str>,
}

impl<'a> TextData<'a> {
    fn of(text: &'a BudgetText) -> Self {
        Self { name: &text.text, lang: text.language.as_deref() }
    }
}

#[derive(Serialize)]
struct NumberFormatData<'a> {
    decimal: &'a str,
    group: &'a str,
    minimum_grouping: usize,
    digits: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Aggregate<'a> {
    Shown(&'a RawValue),
    Withheld { budget: &'a str, name: &'a str, withheld: WithheldData },
}

#[derive(Serialize)]
struct WithheldData {
    reason: &'static str,
    until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

#[derive(Serialize)]
struct Urls {
    submit: String,
    withdraw: String,
    person: String,
    mine: String,
    aggregate: String,
    /// Live results; where a service has no such route, the script polls.
    stream: String,
}

/// Renders the data of a budget's page. Withheld results have no version here, which would count submissions.
pub(super) fn page_data(budget: &BudgetView, results: &Results, texts: &Texts) -> Markup {
    let numbers = texts.numbers();
    let url = |route: &str| format!("/budgets/{}/{route}", budget.id);
    let data = PageData {
        budget: BudgetData {
            id: &budget.id,
            name: &budget.name.text,
            categories: budget.categories.iter().map(category_data).collect(),
            // The server's order needs no word.
            order: Some(budget.order).filter(|order| *order == CategoryOrder::Shuffled),
            reference: reference_data(budget),
            results: budget.results,
            opens_at: budget.opens_at,
            closes_at: budget.closes_at,
        },
        state: budget.state(),
        sends: match budget.identity {
            IdentityRule::Code | IdentityRule::Email => "form",
            IdentityRule::Token => "token",
            IdentityRule::Unrecognized => "elsewhere",
            _ => "script",
        },
        language: texts.language().tag(),
        assets: Assets::embedded().folder(),
        texts: serde_json::from_str(texts.script()).ok(),
        number_format: NumberFormatData {
            decimal: &numbers.decimal,
            group: &numbers.group,
            minimum_grouping: numbers.minimum_grouping,
            digits: "latn",
        },
        aggregate: aggregate(budget, results),
        urls: Urls {
            submit: url("submit"),
            withdraw: url("withdraw"),
            person: url("person"),
            mine: url("mine"),
            aggregate: format!("/v1/budgets/{}/aggregate", budget.id),
            stream: format!("/v1/budgets/{}/aggregate/stream", budget.id),
        },
    };
    let json = serde_json::to_string(&data).unwrap_or_default();
    html! { script type="application/json" id="page-data" { (PreEscaped(without_tags(&json))) } }
}

fn category_data(category: &CategoryView) -> CategoryData<'_> {
    CategoryData {
        id: &category.id,
        name: TextData::of(&category.name),
        color: category.color.as_deref(),
    }
}

fn reference_data(budget: &BudgetView) -> Option<ReferenceData<'_>> {
    let reference = budget.reference.as_ref()?;
    let ids = budget.categories.iter().map(|category| category.id.as_str());
    Some(ReferenceData {
        name: TextData::of(&reference.name),
        source: TextData::of(&reference.source),
        shares: ids.zip(reference.shares.iter().copied()).collect(),
    })
}

fn aggregate<'a>(budget: &'a BudgetView, results: &'a Results) -> Option<Aggregate<'a>> {
    match results {
        Results::NotYet | Results::Unavailable => None,
        Results::Withheld(withheld) => {
            let (reason, until, state) = match withheld {
                Withheld::AfterClose(until) => ("after_close", Some(*until), None),
                Withheld::Counting => ("after_close", None, Some("counting")),
                Withheld::MinimumPeople => ("minimum_people", None, None),
                Withheld::UnknownRule => ("unknown_rule", None, None),
            };
            let withheld = WithheldData { reason, until, state };
            Some(Aggregate::Withheld { budget: &budget.id, name: &budget.name.text, withheld })
        }
        Results::Shown(shown) => serde_json::from_str(&shown.json).ok().map(Aggregate::Shown),
    }
}

/// Escapes `<`, which JSON has only inside of strings, so that no text ends the script or begins a comment in it.
fn without_tags(json: &str) -> String {
    json.replace('<', "\\u003c")
}
