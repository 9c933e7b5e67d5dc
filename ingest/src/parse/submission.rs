//! Parses one submission: the person, the submission id, and the allocation.

use std::fmt;

use runtime::problem::{Faults, Problem, ProblemKind, member_pointer};
use schemas::{
    Allocation, BASIS_POINTS_PER_PERSON, Budget, IdentityRule, MAX_CATEGORIES, PersonId,
    SubmissionId,
};
use serde::de::{DeserializeSeed, Deserializer, MapAccess};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::json::{
    MemberName, ObjectSeed, ObjectVisitor, json_type, parse_string, parse_whole, repeated_member,
    unknown_member,
};
use super::percentage::{Percent, parse_basis_points};

const PERSON: &str = "/person";
const SUBMISSION_ID: &str = "/submission_id";
const ALLOCATION: &str = "/allocation";

/// A submission, validated against its budget. Its `Debug` output is redacted.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ParsedSubmission {
    /// The person. Absent only if the budget does not require one, or the credentials say who it is.
    pub person: Option<PersonId>,
    /// The submission id, if the client supplied one.
    pub id: Option<SubmissionId>,
    /// How the person splits the budget.
    pub allocation: Allocation,
}

impl fmt::Debug for ParsedSubmission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ParsedSubmission(hidden)")
    }
}

/// Parses a body that is one submission.
///
/// # Errors
/// A problem with every fault of the body.
pub(crate) fn submission(body: &[u8], budget: &Budget) -> Result<ParsedSubmission, Problem> {
    parse(body, SubmissionSeed::naming_the_person(budget))
}

/// Parses a body that is one submission of the person who sends it, whom it need not name.
///
/// # Errors
/// A problem with every fault of the body.
pub(crate) fn own_submission(body: &[u8], budget: &Budget) -> Result<ParsedSubmission, Problem> {
    parse(body, SubmissionSeed { budget, requires_person: false })
}

fn parse(body: &[u8], seed: SubmissionSeed<'_>) -> Result<ParsedSubmission, Problem> {
    parse_whole(body, seed).unwrap_or_else(|error| {
        let mut faults = Faults::default();
        faults.malformed("", error.detail("an object"));
        Err(faults.into_problem(ProblemKind::InvalidAllocation))
    })
}

/// Deserializes one value as a submission. Fails only where the value is not JSON.
#[derive(Clone, Copy)]
pub(super) struct SubmissionSeed<'b> {
    budget: &'b Budget,
    requires_person: bool,
}

impl<'b> SubmissionSeed<'b> {
    /// Takes submissions that name their person, if the budget requires one.
    pub fn naming_the_person(budget: &'b Budget) -> Self {
        Self { budget, requires_person: budget.identity != IdentityRule::Optional }
    }
}

impl<'de> DeserializeSeed<'de> for SubmissionSeed<'_> {
    type Value = Result<ParsedSubmission, Problem>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let mut visitor = SubmissionVisitor {
            budget: self.budget,
            requires_person: self.requires_person,
            faults: Faults::default(),
            person: Field::Missing,
            id: Field::Missing,
            shares: Field::Missing,
            basis_points: [0; MAX_CATEGORIES],
        };
        ObjectSeed(&mut visitor).deserialize(deserializer)?;
        Ok(visitor.finish())
    }
}

/// A member of the body while it is parsed.
enum Field<T> {
    Missing,
    /// Present, with faults that are already noted.
    Invalid,
    Valid(T),
}

impl<T> Field<T> {
    fn valid(self) -> Option<T> {
        match self {
            Self::Valid(value) => Some(value),
            Self::Missing | Self::Invalid => None,
        }
    }

    fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }
}

struct SubmissionVisitor<'b> {
    budget: &'b Budget,
    requires_person: bool,
    faults: Faults,
    person: Field<PersonId>,
    id: Field<SubmissionId>,
    shares: Field<()>,
    /// The shares in the budget's category order, once `shares` is valid.
    basis_points: [u32; MAX_CATEGORIES],
}

impl<'de> ObjectVisitor<'de> for SubmissionVisitor<'_> {
    fn member<M: MapAccess<'de>>(
        &mut self,
        name: MemberName<'de>,
        map: &mut M,
    ) -> Result<(), M::Error> {
        match &*name.0 {
            "allocation" => {
                let repeated = !self.shares.is_missing();
                let mut shares =
                    SharesVisitor::new(self.budget, &mut self.basis_points, &mut self.faults);
                map.next_value_seed(ObjectSeed(&mut shares))?;
                self.shares = shares.finish();
                if repeated {
                    repeated_member(&mut self.faults, "", &name);
                }
            }
            "person" => {
                let value = map.next_value()?;
                if !self.person.is_missing() {
                    repeated_member(&mut self.faults, "", &name);
                }
                self.person = string_field(value, PERSON, &mut self.faults, PersonId::parse);
            }
            "submission_id" => {
                let value = map.next_value()?;
                if !self.id.is_missing() {
                    repeated_member(&mut self.faults, "", &name);
                }
                self.id = string_field(value, SUBMISSION_ID, &mut self.faults, |text| {
                    Uuid::try_parse(text).map(SubmissionId).map_err(|_| "must be a UUID")
                });
            }
            _ => {
                map.next_value::<serde::de::IgnoredAny>()?;
                unknown_member(&mut self.faults, "", &name);
            }
        }
        Ok(())
    }

    fn not_an_object(&mut self, found: &'static str) {
        self.faults.malformed("", format!("must be an object, not {found}"));
        (self.person, self.id, self.shares) = (Field::Invalid, Field::Invalid, Field::Invalid);
    }
}

/// Parses a string member.
fn string_field<T, E: fmt::Display>(
    value: &RawValue,
    pointer: &str,
    faults: &mut Faults,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Field<T> {
    match parse_string(value) {
        Err(detail) => faults.malformed(pointer, detail),
        Ok(text) => match parse(&text) {
            Ok(value) => return Field::Valid(value),
            Err(error) => faults.malformed(pointer, error.to_string()),
        },
    }
    Field::Invalid
}

impl SubmissionVisitor<'_> {
    fn finish(mut self) -> Result<ParsedSubmission, Problem> {
        if self.person.is_missing() && self.requires_person {
            self.faults.malformed(PERSON, "is required for this budget");
        }
        if self.shares.is_missing() {
            self.faults.malformed(ALLOCATION, "is required");
        }
        if self.faults.is_empty() && self.shares.valid().is_some() {
            let categories = self.budget.categories.len();
            match Allocation::new(self.basis_points.get(..categories).unwrap_or_default()) {
                Ok(allocation) => {
                    let (person, id) = (self.person.valid(), self.id.valid());
                    return Ok(ParsedSubmission { person, id, allocation });
                }
                Err(error) => self.faults.invalid(ALLOCATION, error.to_string()),
            }
        }
        Err(self.faults.into_problem(ProblemKind::InvalidAllocation))
    }
}

/// Parses the members of an allocation into the budget's category order.
struct SharesVisitor<'b, 'f> {
    budget: &'b Budget,
    basis_points: &'f mut [u32; MAX_CATEGORIES],
    faults: &'f mut Faults,
    /// One bit for each category that has appeared.
    seen: u64,
    /// The next category's index if the members follow the budget's order.
    expected: usize,
    sum: u64,
    /// Whether every share so far is a valid percentage and appeared once. Otherwise the sum has no meaning.
    sum_is_valid: bool,
}

impl<'b, 'f> SharesVisitor<'b, 'f> {
    fn new(
        budget: &'b Budget,
        basis_points: &'f mut [u32; MAX_CATEGORIES],
        faults: &'f mut Faults,
    ) -> Self {
        Self { budget, basis_points, faults, seen: 0, expected: 0, sum: 0, sum_is_valid: true }
    }

    fn category_index(&self, id: &str) -> Option<usize> {
        match self.budget.categories.get(self.expected) {
            Some(category) if category.id.as_str() == id => Some(self.expected),
            _ => self.budget.category_index(id),
        }
    }

    fn parse_share(&mut self, name: &MemberName<'_>, value: &RawValue) -> Option<u16> {
        let number = value.get();
        if !number.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
            let detail = format!("must be a number, not {}", json_type(value));
            self.faults.malformed(member_pointer(ALLOCATION, &name.0), detail);
            return None;
        }
        match parse_basis_points(number) {
            Ok(share) => Some(share),
            Err(fault) => {
                self.faults.invalid(member_pointer(ALLOCATION, &name.0), fault.to_string());
                None
            }
        }
    }

    fn finish(self) -> Field<()> {
        if self.sum_is_valid && self.sum != BASIS_POINTS_PER_PERSON {
            let detail = format!("adds up to {} instead of 100", Percent(self.sum));
            self.faults.invalid(ALLOCATION, detail);
        }
        if self.sum_is_valid { Field::Valid(()) } else { Field::Invalid }
    }
}

impl<'de> ObjectVisitor<'de> for SharesVisitor<'_, '_> {
    fn member<M: MapAccess<'de>>(
        &mut self,
        name: MemberName<'de>,
        map: &mut M,
    ) -> Result<(), M::Error> {
        let share = self.parse_share(&name, map.next_value()?);
        match share {
            // A share of a misspelt category counts too, so that the misspelling is the only fault.
            Some(share) => self.sum += u64::from(share),
            None => self.sum_is_valid = false,
        }
        let Some(index) = self.category_index(&name.0) else {
            let pointer = member_pointer(ALLOCATION, &name.0);
            self.faults.invalid(pointer, "is not a category of this budget");
            return Ok(());
        };
        self.expected = index + 1;
        // A budget has at most MAX_CATEGORIES, 64.
        let bit = 1 << (index % MAX_CATEGORIES);
        if self.seen & bit != 0 {
            let pointer = member_pointer(ALLOCATION, &name.0);
            self.faults.invalid(pointer, "appears more than once");
            self.sum_is_valid = false;
        }
        self.seen |= bit;
        if let (Some(slot), Some(share)) = (self.basis_points.get_mut(index), share) {
            *slot = u32::from(share);
        }
        Ok(())
    }

    fn not_an_object(&mut self, found: &'static str) {
        self.faults.malformed(ALLOCATION, format!("must be an object, not {found}"));
        self.sum_is_valid = false;
    }
}
