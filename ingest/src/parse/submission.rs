//! One submission: who, under which name, and how it splits the budget.

use std::fmt;

use runtime::problem::{Faults, Problem, ProblemKind, member_pointer};
use schemas::{
    Allocation, BASIS_POINTS_PER_PERSON, Budget, Identity, MAX_CATEGORIES, PersonName, SubmissionId,
};
use serde::de::{DeserializeSeed, Deserializer, MapAccess};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::json::{
    Members, Name, ReadObject, kind_of, repeated_member, string, unknown_member, whole,
};
use super::percentage::{Percent, basis_points};

const PERSON: &str = "/person";
const SUBMISSION_ID: &str = "/submission_id";
const ALLOCATION: &str = "/allocation";

/// What a body says, checked against its budget.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Draft {
    /// Who says it; absent only where the budget does not ask.
    pub person: Option<PersonName>,
    /// Its name, if the body gives it one.
    pub id: Option<SubmissionId>,
    /// How it splits the budget.
    pub allocation: Allocation,
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Draft(hidden)")
    }
}

/// Reads a body that is one submission.
///
/// # Errors
/// A problem with every fault of the body.
pub(crate) fn submission(body: &[u8], budget: &Budget) -> Result<Draft, Problem> {
    whole(body, ReadDraft(budget)).unwrap_or_else(|error| {
        let mut faults = Faults::default();
        faults.malformed("", error.detail("an object"));
        Err(faults.into_problem(ProblemKind::InvalidAllocation))
    })
}

/// Reads one value as a submission. Fails only where the value is not JSON.
#[derive(Clone, Copy)]
pub(super) struct ReadDraft<'b>(pub &'b Budget);

impl<'de> DeserializeSeed<'de> for ReadDraft<'_> {
    type Value = Result<Draft, Problem>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let mut members = DraftMembers {
            budget: self.0,
            faults: Faults::default(),
            person: Member::Absent,
            id: Member::Absent,
            shares: Member::Absent,
            basis_points: [0; MAX_CATEGORIES],
        };
        ReadObject(&mut members).deserialize(deserializer)?;
        Ok(members.finish())
    }
}

/// How far a member has come.
enum Member<T> {
    Absent,
    /// It was there, and its faults are noted.
    Faulty,
    Good(T),
}

impl<T> Member<T> {
    fn good(self) -> Option<T> {
        match self {
            Self::Good(value) => Some(value),
            Self::Absent | Self::Faulty => None,
        }
    }

    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

struct DraftMembers<'b> {
    budget: &'b Budget,
    faults: Faults,
    person: Member<PersonName>,
    id: Member<SubmissionId>,
    shares: Member<()>,
    /// The shares in the budget's order, once they are good.
    basis_points: [u32; MAX_CATEGORIES],
}

impl<'de> Members<'de> for DraftMembers<'_> {
    fn member<M: MapAccess<'de>>(&mut self, name: Name<'de>, map: &mut M) -> Result<(), M::Error> {
        match &*name.0 {
            "allocation" => {
                let repeated = !self.shares.is_absent();
                let mut shares = Shares::new(self.budget, &mut self.basis_points, &mut self.faults);
                map.next_value_seed(ReadObject(&mut shares))?;
                self.shares = shares.finish();
                if repeated {
                    repeated_member(&mut self.faults, "", &name);
                }
            }
            "person" => {
                let value = map.next_value()?;
                if !self.person.is_absent() {
                    repeated_member(&mut self.faults, "", &name);
                }
                self.person = text_member(value, PERSON, &mut self.faults, PersonName::parse);
            }
            "submission_id" => {
                let value = map.next_value()?;
                if !self.id.is_absent() {
                    repeated_member(&mut self.faults, "", &name);
                }
                self.id = text_member(value, SUBMISSION_ID, &mut self.faults, |text| {
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
        (self.person, self.id, self.shares) = (Member::Faulty, Member::Faulty, Member::Faulty);
    }
}

/// Reads a member that is a text with rules of its own.
fn text_member<T, E: fmt::Display>(
    value: &RawValue,
    pointer: &str,
    faults: &mut Faults,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Member<T> {
    match string(value) {
        Err(detail) => faults.malformed(pointer, detail),
        Ok(text) => match parse(&text) {
            Ok(value) => return Member::Good(value),
            Err(error) => faults.malformed(pointer, error.to_string()),
        },
    }
    Member::Faulty
}

impl DraftMembers<'_> {
    fn finish(mut self) -> Result<Draft, Problem> {
        if self.person.is_absent() && self.budget.identity == Identity::Required {
            self.faults.malformed(PERSON, "is required for this budget");
        }
        if self.shares.is_absent() {
            self.faults.malformed(ALLOCATION, "is required");
        }
        if self.faults.is_empty() && self.shares.good().is_some() {
            let categories = self.budget.categories.len();
            match Allocation::new(self.basis_points.get(..categories).unwrap_or_default()) {
                Ok(allocation) => {
                    let (person, id) = (self.person.good(), self.id.good());
                    return Ok(Draft { person, id, allocation });
                }
                Err(error) => self.faults.invalid(ALLOCATION, error.to_string()),
            }
        }
        Err(self.faults.into_problem(ProblemKind::InvalidAllocation))
    }
}

/// The members of an allocation, into the budget's order.
struct Shares<'b, 'f> {
    budget: &'b Budget,
    basis_points: &'f mut [u32; MAX_CATEGORIES],
    faults: &'f mut Faults,
    /// A bit for each category that was given.
    given: u64,
    /// Where the next member is, if they come in the budget's order.
    expected: usize,
    sum: u64,
    /// Whether every share so far could be read, and is there once, so that the sum means something.
    readable: bool,
}

impl<'b, 'f> Shares<'b, 'f> {
    fn new(
        budget: &'b Budget,
        basis_points: &'f mut [u32; MAX_CATEGORIES],
        faults: &'f mut Faults,
    ) -> Self {
        Self { budget, basis_points, faults, given: 0, expected: 0, sum: 0, readable: true }
    }

    fn category_index(&self, id: &str) -> Option<usize> {
        match self.budget.categories.get(self.expected) {
            Some(category) if category.id.as_str() == id => Some(self.expected),
            _ => self.budget.category_index(id),
        }
    }

    fn share(&mut self, name: &Name<'_>, value: &RawValue) -> Option<u16> {
        let number = value.get();
        if !number.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
            let detail = format!("must be a number, not {}", kind_of(value));
            self.faults.malformed(member_pointer(ALLOCATION, &name.0), detail);
            return None;
        }
        match basis_points(number) {
            Ok(share) => Some(share),
            Err(fault) => {
                self.faults.invalid(member_pointer(ALLOCATION, &name.0), fault.to_string());
                None
            }
        }
    }

    fn finish(self) -> Member<()> {
        if self.readable && self.sum != BASIS_POINTS_PER_PERSON {
            let detail = format!("makes {} instead of 100", Percent(self.sum));
            self.faults.invalid(ALLOCATION, detail);
        }
        if self.readable { Member::Good(()) } else { Member::Faulty }
    }
}

impl<'de> Members<'de> for Shares<'_, '_> {
    fn member<M: MapAccess<'de>>(&mut self, name: Name<'de>, map: &mut M) -> Result<(), M::Error> {
        let share = self.share(&name, map.next_value()?);
        match share {
            // What a misspelt category was given counts for the sum, so that only the spelling is complained of.
            Some(share) => self.sum += u64::from(share),
            None => self.readable = false,
        }
        let Some(index) = self.category_index(&name.0) else {
            let pointer = member_pointer(ALLOCATION, &name.0);
            self.faults.invalid(pointer, "is not a category of this budget");
            return Ok(());
        };
        self.expected = index + 1;
        // A budget has at most 64 categories.
        let bit = 1 << (index % MAX_CATEGORIES);
        if self.given & bit != 0 {
            let pointer = member_pointer(ALLOCATION, &name.0);
            self.faults.invalid(pointer, "is there more than once");
            self.readable = false;
        }
        self.given |= bit;
        if let (Some(place), Some(share)) = (self.basis_points.get_mut(index), share) {
            *place = u32::from(share);
        }
        Ok(())
    }

    fn not_an_object(&mut self, found: &'static str) {
        self.faults.malformed(ALLOCATION, format!("must be an object, not {found}"));
        self.readable = false;
    }
}
