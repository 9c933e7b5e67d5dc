//! Budget definitions and their rules.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::presentation::{description_fault, name_fault, presentation_faults};
use crate::{
    BudgetId, Category, CategoryId, ClosingFence, MAX_CATEGORIES, MIN_CATEGORIES, PersonSaltState,
    Presentation, PublishStep,
};

/// Maximum of a budget's [`max_people`](Budget::max_people).
pub const MAX_MAX_PEOPLE: u64 = 1_000_000_000;
/// Maximum length of a definition as JSON, in bytes: less than the control topic takes.
pub const MAX_DEFINITION_BYTES: usize = 768 << 10;

/// When results are visible.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultsVisibility {
    /// At any time.
    #[default]
    Live,
    /// Only after the budget has closed.
    AfterClose,
    /// A value that only a newer release knows: results are withheld.
    #[serde(other)]
    Unrecognized,
}

/// Who the person of a submission is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityRule {
    /// Whoever the client names; submissions without a person are rejected.
    #[default]
    Required,
    /// Whoever the client names; a submission without a person counts as a person of its own.
    Optional,
    /// A browser or a session, by a random id that the service makes.
    Anonymous,
    /// The holder of a personal code.
    Code,
    /// Whoever reads a mailbox, by a one-time code that is sent to it.
    Email,
    /// The subject of an identity provider's token.
    Token,
    /// A value that only a newer release knows: submissions are rejected.
    #[serde(other)]
    Unrecognized,
}

impl IdentityRule {
    /// Whether the client names the person, without any proof.
    pub fn is_named_by_client(self) -> bool {
        matches!(self, Self::Required | Self::Optional)
    }
}

/// Whether a budget accepts submissions at a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Openness {
    /// Opens at this time.
    NotYet(Timestamp),
    /// Accepts submissions.
    Open,
    /// Closed at this time.
    Closed(Timestamp),
}

/// The definition of a budget.
///
/// Deserialization ignores unknown members: [`StoredBudget`](crate::StoredBudget) lists those of a stored definition,
/// and ingest rejects those of a request. Serialization writes what everyone may see:
/// [`StoredBudget::document`](crate::StoredBudget::document) is the stored form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// The budget's id.
    pub id: BudgetId,
    /// Display name.
    pub name: String,
    /// Categories, in the order of all lists and totals.
    pub categories: Vec<Category>,
    /// Start of submissions; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<Timestamp>,
    /// End of submissions; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes_at: Option<Timestamp>,
    /// When results are visible.
    #[serde(default)]
    pub results: ResultsVisibility,
    /// Minimum number of people; results are withheld below it.
    #[serde(default = "one")]
    pub minimum_people: u64,
    /// Number of people from which on new people are refused; unlimited if absent. Approximate: ingest decides by the
    /// published number, and the fold counts whatever was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_people: Option<u64>,
    /// How many people must have changed before results move; 1 shows each change. See [`PublishStep`].
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub publish_step: u64,
    /// Who the person of a submission is.
    #[serde(default)]
    pub identity: IdentityRule,
    /// How the pages present it; boxed, since counting passes definitions on without looking at it.
    #[serde(flatten)]
    pub presentation: Box<Presentation>,
    /// Counts the changes of the definition, from 1.
    #[serde(default)]
    pub revision: u64,
    /// Set by the first submission: categories, identity rule and publish step can no longer be changed.
    #[serde(default)]
    pub frozen: bool,
    /// Set once the budget was closed for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<ClosingFence>,
    /// What the keys of its persons are derived from. Everyone may see only when the persons were forgotten.
    #[serde(
        rename = "forgotten_at",
        serialize_with = "PersonSaltState::serialize_public",
        skip_serializing_if = "PersonSaltState::is_kept",
        skip_deserializing
    )]
    pub person_salt: PersonSaltState,
}

fn one() -> u64 {
    1
}

fn is_one(number: &u64) -> bool {
    *number == one()
}

/// An error in a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetFault {
    /// JSON pointer to the invalid field.
    pub pointer: String,
    /// What is wrong, for the author of the definition.
    pub detail: String,
}

impl Budget {
    /// Validates a new definition and returns all errors; empty if it is valid.
    ///
    /// Stored definitions may have errors: other releases have other rules.
    pub fn faults(&self) -> Vec<BudgetFault> {
        let mut faults = Vec::new();
        let mut fault =
            |pointer: String, detail: String| faults.push(BudgetFault { pointer, detail });

        if let Some(detail) = name_fault(&self.name) {
            fault("/name".into(), detail);
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
            if let Some(detail) = name_fault(&category.name) {
                fault(format!("/categories/{index}/name"), detail);
            }
            if let Some(detail) = category.description.as_deref().and_then(description_fault) {
                fault(format!("/categories/{index}/description"), detail);
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
        if self.results == ResultsVisibility::AfterClose && self.closes_at.is_none() {
            fault("/closes_at".into(), "is needed when results are shown `after_close`".into());
        }
        if self.minimum_people == 0 {
            fault("/minimum_people".into(), "must be at least 1".into());
        }
        if self.max_people.is_some_and(|cap| !(1..=MAX_MAX_PEOPLE).contains(&cap)) {
            fault("/max_people".into(), format!("must be 1 to {MAX_MAX_PEOPLE}"));
        }
        let steps = u64::from(PublishStep::ONE.get())..=u64::from(PublishStep::MAX.get());
        if !steps.contains(&self.publish_step) {
            let detail = format!("must be {} to {}", steps.start(), steps.end());
            fault("/publish_step".into(), detail);
        }
        presentation_faults(&self.presentation, &self.categories, &mut fault);
        // Serialization cannot fail: a budget holds only strings, numbers and string keys.
        let bytes = serde_json::to_vec(self).map_or(0, |json| json.len());
        if bytes > MAX_DEFINITION_BYTES {
            let detail = format!("must have at most {MAX_DEFINITION_BYTES} bytes, not {bytes}");
            fault(String::new(), detail);
        }
        faults
    }

    /// Whether the budget accepts submissions at `now`. A fence counts more than the clock.
    pub fn openness(&self, now: Timestamp) -> Openness {
        if self.is_fenced() {
            return Openness::Closed(self.closes_at.unwrap_or(now));
        }
        match (self.opens_at, self.closes_at) {
            (Some(opens_at), _) if now < opens_at => Openness::NotYet(opens_at),
            (_, Some(closes_at)) if now >= closes_at => Openness::Closed(closes_at),
            _ => Openness::Open,
        }
    }

    /// Whether no submission is accepted, whatever the time: the budget is closed, or not completely reopened.
    pub fn is_fenced(&self) -> bool {
        self.closing.is_some_and(|fence| !fence.is_open())
    }

    /// The budget's publish step; the nearest one if a newer release allows others.
    pub fn publish_step(&self) -> PublishStep {
        PublishStep::nearest(self.publish_step)
    }

    /// Returns the index of a category in the budget's order.
    pub fn category_index(&self, id: &str) -> Option<usize> {
        self.categories.iter().position(|category| category.id.as_str() == id)
    }

    /// Whether `next` leaves the frozen fields unchanged: ids and order of categories, the identity rule and the
    /// publish step. Names, colours, the presentation and the cap on people may change at any time.
    pub fn keeps_frozen_rules(&self, next: &Budget) -> bool {
        let ids = |budget: &Budget| -> Vec<CategoryId> {
            budget.categories.iter().map(|category| category.id.clone()).collect()
        };
        self.identity == next.identity
            && self.publish_step == next.publish_step
            && ids(self) == ids(next)
    }
}

fn is_color(text: &str) -> bool {
    text.len() == 7
        && text.starts_with('#')
        && text.bytes().skip(1).all(|byte| byte.is_ascii_hexdigit())
}
