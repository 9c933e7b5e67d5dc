//! Converts the page's form into a submission, with the same faults as a JSON body of the same content.

use page::form::{FormFault, FormRequest, FormValues};
use page::number::NumberFault;
use runtime::problem::{Faults, Problem, ProblemKind, member_pointer};
use schemas::{BASIS_POINTS_PER_PERSON, Budget, PersonId, SubmissionId};

use super::ParsedSubmission;
use super::percentage::Percent;

const ALLOCATION: &str = "/allocation";
const SUBMISSION_ID: &str = "/submission_id";

/// Converts a form into the submission of a person.
///
/// # Errors
/// A problem with every fault of the form.
pub(crate) fn form(
    form: &FormRequest,
    budget: &Budget,
    person: &PersonId,
) -> Result<ParsedSubmission, Problem> {
    let mut faults = Faults::default();
    let mut seen: Vec<&str> = Vec::with_capacity(form.fields.len());
    for (category, _) in &form.fields {
        if budget.category_index(category).is_none() {
            faults
                .invalid(member_pointer(ALLOCATION, category), "is not a category of this budget");
        } else if seen.contains(&category.as_str()) {
            faults.invalid(member_pointer(ALLOCATION, category), "appears more than once");
        } else {
            seen.push(category);
        }
    }
    let id = submission_id(form, &mut faults);
    match FormValues::of(budget, form).allocation() {
        Ok(allocation) if faults.is_empty() => {
            return Ok(ParsedSubmission { person: Some(person.clone()), id, allocation });
        }
        Ok(_) => {}
        Err(form_faults) => {
            form_faults.into_iter().for_each(|fault| add(&mut faults, budget, fault))
        }
    }
    Err(faults.into_problem(ProblemKind::InvalidAllocation))
}

/// Reads the submission id of a form, if it has one.
pub(crate) fn submission_id(form: &FormRequest, faults: &mut Faults) -> Option<SubmissionId> {
    let id = form.submission_id();
    if form.submission_id.is_some() && id.is_none() {
        faults.malformed(SUBMISSION_ID, "must be a UUID");
    }
    id
}

fn add(faults: &mut Faults, budget: &Budget, fault: FormFault) {
    let sum = match fault {
        FormFault::Field(index, fault) => {
            let id = budget.categories.get(index).map_or("", |category| category.id.as_str());
            let pointer = member_pointer(ALLOCATION, id);
            return match fault {
                NumberFault::NotANumber => faults.malformed(pointer, "must be a number"),
                NumberFault::Range => faults.invalid(pointer, "must be from 0 to 100"),
                NumberFault::Decimals => faults.invalid(pointer, "must have at most two decimals"),
            };
        }
        FormFault::Left(left) => BASIS_POINTS_PER_PERSON.saturating_sub(left.into()),
        FormFault::Over(sum) => sum.into(),
    };
    faults.invalid(ALLOCATION, format!("adds up to {} instead of 100", Percent(sum)));
}
