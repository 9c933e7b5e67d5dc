//! Parses a budget definition that an administrator sends.
//!
//! Not a hot path: a placeholder replaces each member that cannot be parsed, so that the budget's own rules still check
//! the others and every fault is reported at once.

use std::borrow::Cow;

use jiff::Timestamp;
use runtime::problem::{Faults, Problem, ProblemKind};
use schemas::{
    Budget, BudgetId, Category, CategoryId, IdentityRule, ResultsVisibility, parse_rfc3339,
};
use serde_json::value::RawValue;

use super::json::{json_type, parse_known_members, parse_string};

/// The pointer of the shares of a definition's reference.
pub(super) const REFERENCE_SHARES: &str = "/reference/percent";

/// Parses the body of `PUT /v1/budgets/{budget}`. The result's `revision`, `frozen`, `closing` and `person_salt` are
/// placeholders.
///
/// # Errors
/// A problem with every fault of the body.
pub(crate) fn definition(id: BudgetId, body: &[u8]) -> Result<Budget, Problem> {
    let mut faults = Faults::default();
    let names = [
        "name",
        "categories",
        "opens_at",
        "closes_at",
        "results",
        "minimum_people",
        "max_people",
        "publish_step",
        "identity",
        "description",
        "language",
        "translations",
        "time_zone",
        "reference",
        "order",
        "contact",
    ];
    let members = parse_known_members(body, "", names, &mut faults).unwrap_or_else(|error| {
        faults.malformed("", error.detail("an object"));
        [None; 16]
    });
    let [
        name,
        categories,
        opens_at,
        closes_at,
        results,
        minimum_people,
        max_people,
        publish_step,
        identity,
        presentation @ ..,
    ] = members;
    // A body that is not an object has no other faults worth reporting.
    if faults.covers("") {
        return Err(faults.into_problem(ProblemKind::InvalidBudget));
    }
    let mut parser = DefinitionParser { faults, has_unreadable_share: false };
    let budget = Budget {
        id,
        name: parser.text(name, "/name").unwrap_or_else(placeholder),
        categories: parser.categories(categories),
        opens_at: parser.timestamp(opens_at, "/opens_at"),
        closes_at: parser.timestamp(closes_at, "/closes_at"),
        results: parser.choice(
            results,
            "/results",
            [("live", ResultsVisibility::Live), ("after_close", ResultsVisibility::AfterClose)],
        ),
        minimum_people: parser.number_of_people(minimum_people, "/minimum_people").unwrap_or(1),
        max_people: parser.number_of_people(max_people, "/max_people"),
        publish_step: parser.number_of_people(publish_step, "/publish_step").unwrap_or(1),
        identity: parser.choice(
            identity,
            "/identity",
            [
                ("required", IdentityRule::Required),
                ("optional", IdentityRule::Optional),
                ("anonymous", IdentityRule::Anonymous),
                ("code", IdentityRule::Code),
                ("email", IdentityRule::Email),
                ("token", IdentityRule::Token),
            ],
        ),
        presentation: Box::new(parser.presentation(presentation)),
        revision: 0,
        frozen: false,
        closing: None,
        person_salt: Default::default(),
    };
    let DefinitionParser { mut faults, has_unreadable_share } = parser;
    for fault in budget.faults() {
        let is_unknown = has_unreadable_share && fault.pointer == REFERENCE_SHARES;
        if !is_unknown && !faults.covers(&fault.pointer) {
            faults.invalid(fault.pointer, fault.detail);
        }
    }
    if faults.is_empty() {
        Ok(budget)
    } else {
        Err(faults.into_problem(ProblemKind::InvalidBudget))
    }
}

/// Returns a text that breaks no rule, in place of a text that cannot be parsed.
pub(super) fn placeholder() -> String {
    "unreadable".to_owned()
}

pub(super) struct DefinitionParser {
    pub(super) faults: Faults,
    /// Whether a share of the reference cannot be parsed, so that their sum is unknown.
    pub(super) has_unreadable_share: bool,
}

impl DefinitionParser {
    pub(super) fn required<'a>(
        &mut self,
        value: Option<&'a RawValue>,
        pointer: &str,
    ) -> Option<&'a RawValue> {
        if value.is_none() {
            self.faults.malformed(pointer, "is required");
        }
        value
    }

    pub(super) fn optional_text<'a>(
        &mut self,
        value: Option<&'a RawValue>,
        pointer: &str,
    ) -> Option<Cow<'a, str>> {
        parse_string(value?).map_err(|detail| self.faults.malformed(pointer, detail)).ok()
    }

    pub(super) fn text(&mut self, value: Option<&RawValue>, pointer: &str) -> Option<String> {
        let value = self.required(value, pointer);
        self.optional_text(value, pointer).map(Cow::into_owned)
    }

    fn timestamp(&mut self, value: Option<&RawValue>, pointer: &str) -> Option<Timestamp> {
        let text = self.optional_text(value, pointer)?;
        parse_rfc3339(&text).map_err(|fault| self.faults.invalid(pointer, fault.to_string())).ok()
    }

    pub(super) fn choice<T: Default + Copy, const N: usize>(
        &mut self,
        value: Option<&RawValue>,
        pointer: &str,
        choices: [(&str, T); N],
    ) -> T {
        let Some(text) = self.optional_text(value, pointer) else { return T::default() };
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
        chosen.unwrap_or_else(|| {
            let names = choices.map(|(name, _)| format!("`{name}`")).join(" or ");
            self.faults.invalid(pointer, format!("must be {names}"));
            T::default()
        })
    }

    /// Parses a number of people. `None` if it is left out, or cannot be parsed.
    fn number_of_people(&mut self, value: Option<&RawValue>, pointer: &str) -> Option<u64> {
        let value = value?;
        if json_type(value) != "a number" {
            self.faults.malformed(pointer, format!("must be a number, not {}", json_type(value)));
            return None;
        }
        let parsed = value.get().parse();
        parsed
            .map_err(|_| self.faults.invalid(pointer, "must be a whole number of at least 1"))
            .ok()
    }

    fn categories(&mut self, value: Option<&RawValue>) -> Vec<Category> {
        const POINTER: &str = "/categories";
        let Some(value) = self.required(value, POINTER) else { return Vec::new() };
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(value.get()) else {
            self.faults.malformed(POINTER, format!("must be an array, not {}", json_type(value)));
            return Vec::new();
        };
        items
            .into_iter()
            .enumerate()
            .filter_map(|(index, item)| self.category(index, item))
            .collect()
    }

    fn category(&mut self, index: usize, item: &RawValue) -> Option<Category> {
        let pointer = format!("/categories/{index}");
        let names = ["id", "name", "description", "color"];
        let members = parse_known_members(item.get().as_bytes(), &pointer, names, &mut self.faults);
        let [id, name, description, color] = members.unwrap_or_else(|error| {
            self.faults.malformed(pointer.as_str(), error.detail("an object"));
            [None; 4]
        });
        let id = self.category_id(id, &format!("{pointer}/id"));
        let name = self.text(name, &format!("{pointer}/name")).unwrap_or_else(placeholder);
        let description = self.optional_text(description, &format!("{pointer}/description"));
        let color = self.optional_text(color, &format!("{pointer}/color"));
        Some(Category {
            // A distinct placeholder for each, so that no two ids are equal.
            id: id.or_else(|| CategoryId::parse(&format!("{}-{index}", placeholder())).ok())?,
            name,
            description: description.map(Cow::into_owned),
            color: color.map(Cow::into_owned),
        })
    }

    fn category_id(&mut self, value: Option<&RawValue>, pointer: &str) -> Option<CategoryId> {
        let text = self.text(value, pointer)?;
        CategoryId::parse(&text)
            .map_err(|fault| self.faults.invalid(pointer, fault.to_string()))
            .ok()
    }
}
