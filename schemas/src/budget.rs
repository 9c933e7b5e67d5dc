//! A budget's definition: its categories and its rules.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{BudgetId, CategoryId};

/// The fewest categories a budget has.
pub const MIN_CATEGORIES: usize = 2;
/// The most categories a budget has.
pub const MAX_CATEGORIES: usize = 64;

/// The longest name of a budget or category.
pub const NAME_MAX_CHARS: usize = 200;
const DESCRIPTION_MAX_CHARS: usize = 2_000;

/// One thing that money can go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Category {
    /// Its id, unique in the budget.
    pub id: CategoryId,
    /// What people call it.
    pub name: String,
    /// A sentence about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its colour on the page, as `#rrggbb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
}

/// When results may be seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Results {
    /// At any time.
    #[default]
    Live,
    /// Only once the budget has closed.
    AfterClose,
}

/// Whether a submission must name its person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// It must.
    #[default]
    Required,
    /// A submission without one is a person of its own.
    Optional,
}

/// Whether a budget takes submissions at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Openness {
    /// Not yet: it opens then.
    NotYet(Timestamp),
    /// Now.
    Open,
    /// No longer: it closed then.
    Closed(Timestamp),
}

/// A budget as everyone sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Its id.
    pub id: BudgetId,
    /// Its name.
    pub name: String,
    /// Its categories, in the order in which everything lists them.
    pub categories: Vec<Category>,
    /// From when it takes submissions; always, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<Timestamp>,
    /// Until when it takes submissions; for ever, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes_at: Option<Timestamp>,
    /// When results may be seen.
    #[serde(default)]
    pub results: Results,
    /// Results are withheld below this many people.
    #[serde(default = "one")]
    pub minimum_people: u64,
    /// Whether a submission must name its person.
    #[serde(default)]
    pub identity: Identity,
    /// How often the definition has changed; 1 when new.
    #[serde(default)]
    pub revision: u64,
    /// Set by the first submission: categories and identity rule can no longer change.
    #[serde(default)]
    pub frozen: bool,
}

fn one() -> u64 {
    1
}

/// One thing wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetFault {
    /// Where, as a JSON pointer into the definition.
    pub pointer: String,
    /// What, as a sentence for the person who wrote it.
    pub detail: String,
}

impl Budget {
    /// Everything that is wrong with the definition; nothing, if it is sound.
    pub fn faults(&self) -> Vec<BudgetFault> {
        let mut faults = Vec::new();
        let mut fault =
            |pointer: String, detail: String| faults.push(BudgetFault { pointer, detail });

        if !(1..=NAME_MAX_CHARS).contains(&self.name.chars().count()) {
            fault("/name".into(), format!("must have 1 to {NAME_MAX_CHARS} characters"));
        }
        if !(MIN_CATEGORIES..=MAX_CATEGORIES).contains(&self.categories.len()) {
            let found = self.categories.len();
            fault(
                "/categories".into(),
                format!("must be {MIN_CATEGORIES} to {MAX_CATEGORIES} categories, not {found}"),
            );
        }
        let mut seen = BTreeSet::new();
        for (index, category) in self.categories.iter().enumerate() {
            if !seen.insert(&category.id) {
                fault(
                    format!("/categories/{index}/id"),
                    format!("`{}` is there twice", category.id),
                );
            }
            if !(1..=NAME_MAX_CHARS).contains(&category.name.chars().count()) {
                fault(
                    format!("/categories/{index}/name"),
                    format!("must have 1 to {NAME_MAX_CHARS} characters"),
                );
            }
            let description = category.description.as_deref().unwrap_or_default();
            if description.chars().count() > DESCRIPTION_MAX_CHARS {
                fault(
                    format!("/categories/{index}/description"),
                    format!("must have at most {DESCRIPTION_MAX_CHARS} characters"),
                );
            }
            if category.color.as_deref().is_some_and(|color| !is_color(color)) {
                fault(format!("/categories/{index}/color"), "must be like `#1f77b4`".into());
            }
        }
        if let (Some(opens_at), Some(closes_at)) = (self.opens_at, self.closes_at)
            && closes_at <= opens_at
        {
            fault("/closes_at".into(), "must be after `opens_at`".into());
        }
        if self.results == Results::AfterClose && self.closes_at.is_none() {
            fault("/closes_at".into(), "is needed when results are shown `after_close`".into());
        }
        if self.minimum_people == 0 {
            fault("/minimum_people".into(), "must be at least 1".into());
        }
        faults
    }

    /// Whether the budget takes submissions at `now`.
    pub fn openness(&self, now: Timestamp) -> Openness {
        match (self.opens_at, self.closes_at) {
            (Some(opens_at), _) if now < opens_at => Openness::NotYet(opens_at),
            (_, Some(closes_at)) if now >= closes_at => Openness::Closed(closes_at),
            _ => Openness::Open,
        }
    }

    /// Where a category stands in the budget's order.
    pub fn category_index(&self, id: &str) -> Option<usize> {
        self.categories.iter().position(|category| category.id.as_str() == id)
    }

    /// Whether `next` keeps what is frozen: the categories' ids and their order, and the identity rule. Names,
    /// descriptions and colours may change at any time.
    pub fn keeps_frozen_rules(&self, next: &Budget) -> bool {
        let ids = |budget: &Budget| -> Vec<CategoryId> {
            budget.categories.iter().map(|category| category.id.clone()).collect()
        };
        self.identity == next.identity && ids(self) == ids(next)
    }
}

fn is_color(text: &str) -> bool {
    text.len() == 7
        && text.starts_with('#')
        && text.bytes().skip(1).all(|byte| byte.is_ascii_hexdigit())
}
