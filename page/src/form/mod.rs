//! The form of an allocation: reads its fields, checks them, and applies the tools that need no script.
//!
//! A category's field is `c.{category}`, since a category may be called `do` or `lang`. Values that were typed are kept
//! as they are as long as they are not valid.

use schemas::{Allocation, Budget, MAX_CATEGORIES, SubmissionId};
use uuid::Uuid;

use crate::arithmetic::{self, FixedOverWhole, WHOLE};
use crate::number::{self, NumberFault, NumberFormat};

/// The prefix of a category's field.
pub(crate) const FIELD: &str = "c.";
/// Maximum length of a typed value that is kept, in characters. No valid number needs more.
const TYPED_MAX_CHARS: usize = 64;
/// Maximum number of fields that are kept: more than a budget has categories, so that a longer form is still faulty.
const MAX_FIELDS: usize = 4 * MAX_CATEGORIES;

/// A tool that works without a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Checks the values.
    Check,
    /// Shares what is left over the empty categories, or over all if none is empty.
    Share,
    /// Scales all values to 100 %.
    Scale,
}

impl Tool {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "check" => Some(Self::Check),
            "share" => Some(Self::Share),
            "scale" => Some(Self::Scale),
            _ => None,
        }
    }
}

/// The members of a query or of an urlencoded body that the pages know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormRequest {
    /// Fields of categories, `c.` removed, in order.
    pub fields: Vec<(String, String)>,
    /// `do`.
    pub tool: Option<Tool>,
    /// `lang`.
    pub lang: Option<String>,
    /// `submission_id`.
    pub submission_id: Option<String>,
    /// `fault`: the slug of the problem with which sending failed.
    pub fault: Option<String>,
    /// `receipt`: of a submission.
    pub receipt: Option<String>,
    /// `withdrawn`: the receipt of a withdrawal.
    pub withdrawn: Option<String>,
    /// `code`: a personal code.
    pub code: Option<TypedSecret>,
    /// `email`: an address that a one-time code is sent to.
    pub email: Option<TypedSecret>,
    /// `otp`: a one-time code.
    pub otp: Option<TypedSecret>,
}

/// A code or an address as it was typed. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct TypedSecret(String);

impl TypedSecret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for TypedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TypedSecret(hidden)")
    }
}

impl FormRequest {
    /// Reads a query or an urlencoded body; the first of a repeated member counts. Invalid UTF-8 becomes U+FFFD.
    pub fn parse(encoded: &[u8]) -> Self {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(encoded) {
            if let Some(category) = name.strip_prefix(FIELD) {
                if form.fields.len() < MAX_FIELDS {
                    form.fields
                        .push((category.to_owned(), value.chars().take(TYPED_MAX_CHARS).collect()));
                }
                continue;
            }
            let value = value.into_owned();
            match &*name {
                "do" => form.tool = form.tool.or_else(|| Tool::parse(&value)),
                "lang" => form.lang = form.lang.or(Some(value)),
                "submission_id" => form.submission_id = form.submission_id.or(Some(value)),
                "fault" => form.fault = form.fault.or(Some(value)),
                "receipt" => form.receipt = form.receipt.or(Some(value)),
                "withdrawn" => form.withdrawn = form.withdrawn.or(Some(value)),
                // An empty field is none.
                "code" | "email" | "otp" if value.trim().is_empty() => {}
                "code" => form.code = form.code.or(Some(TypedSecret(value))),
                "email" => form.email = form.email.or(Some(TypedSecret(value))),
                "otp" => form.otp = form.otp.or(Some(TypedSecret(value))),
                _ => {}
            }
        }
        form
    }

    /// Whether the request has values of the form.
    pub fn has_values(&self) -> bool {
        self.tool.is_some() || !self.fields.is_empty()
    }

    /// The submission id, if it is a UUID.
    pub fn submission_id(&self) -> Option<SubmissionId> {
        Uuid::try_parse(self.submission_id.as_deref()?).ok().map(SubmissionId)
    }
}

/// What is wrong with a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormFault {
    /// The field of the category at this index is not a percentage.
    Field(usize, NumberFault),
    /// The values make less than 100 %; this many basis points are left.
    Left(u32),
    /// The values make this many basis points, which is more than 100 %.
    Over(u32),
}

/// The values of a form, one for each category in the budget's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormValues {
    typed: Vec<String>,
}

impl FormValues {
    /// Returns the values of an empty form.
    pub fn empty(budget: &Budget) -> Self {
        Self { typed: vec![String::new(); budget.categories.len()] }
    }

    /// Takes the budget's categories from a request; the first of a repeated field counts, and unknown ones are
    /// ignored.
    pub fn of(budget: &Budget, request: &FormRequest) -> Self {
        let typed = |id: &str| {
            let field = request.fields.iter().find(|(category, _)| category == id);
            field.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        Self {
            typed: budget.categories.iter().map(|category| typed(category.id.as_str())).collect(),
        }
    }

    /// Returns the values of an allocation; a 0 is written.
    pub fn of_shares(shares: &[u16], numbers: &NumberFormat) -> Self {
        Self { typed: shares.iter().map(|share| numbers.percent((*share).into())).collect() }
    }

    /// The values as typed.
    pub fn typed(&self) -> &[String] {
        &self.typed
    }

    fn read(&self) -> Vec<Result<u32, NumberFault>> {
        self.typed.iter().map(|typed| number::read(typed).map(u32::from)).collect()
    }

    /// Reads all values in basis points; `None` if a value is faulty.
    fn basis_points(&self) -> Option<Vec<u32>> {
        self.read().into_iter().collect::<Result<_, _>>().ok()
    }

    /// What is left to give of 100 %, faulty values not counted; negative if the values exceed it.
    pub fn left(&self) -> i64 {
        let valid: Vec<u32> = self.read().into_iter().flatten().collect();
        arithmetic::left(&valid)
    }

    /// Returns every fault. The sum is checked only if all values are valid.
    pub fn faults(&self) -> Vec<FormFault> {
        let fields = (0..).zip(self.read());
        let faults: Vec<FormFault> = fields
            .filter_map(|(index, value)| Some(FormFault::Field(index, value.err()?)))
            .collect();
        if !faults.is_empty() {
            return faults;
        }
        let left = self.left();
        match (u32::try_from(left), u32::try_from(-left)) {
            (Ok(0), _) => Vec::new(),
            (Ok(left), _) => vec![FormFault::Left(left)],
            (Err(_), Ok(over)) => vec![FormFault::Over(WHOLE + over)],
            (Err(_), Err(_)) => Vec::new(),
        }
    }

    /// Returns the allocation.
    ///
    /// # Errors
    /// Every fault of the form.
    pub fn allocation(&self) -> Result<Allocation, Vec<FormFault>> {
        let faults = self.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        Allocation::new(&self.basis_points().unwrap_or_default()).map_err(|_| Vec::new())
    }

    /// Returns the values with valid ones in the language's form. Empty fields stay empty.
    #[must_use]
    pub fn tidied(&self, numbers: &NumberFormat) -> Self {
        let tidy = |typed: &String| match number::read(typed) {
            Ok(value) if !number::is_blank(typed) => numbers.percent(value.into()),
            _ => typed.clone(),
        };
        Self { typed: self.typed.iter().map(tidy).collect() }
    }

    /// Applies a tool.
    ///
    /// # Errors
    /// When a value is faulty; the values stay.
    pub fn apply(&self, tool: Tool, numbers: &NumberFormat) -> Result<Applied, Vec<FormFault>> {
        let values = match (tool, self.basis_points()) {
            (Tool::Check, _) => {
                return Ok(Applied { values: self.tidied(numbers), shared: None, scaled: false });
            }
            (_, None) => return Err(self.faults()),
            (_, Some(values)) => values,
        };
        let mut applied = Applied { values: self.tidied(numbers), shared: None, scaled: false };
        let changed = match tool {
            Tool::Share => {
                let blank: Vec<usize> = (0..values.len())
                    .filter(|index| {
                        self.typed.get(*index).is_some_and(|typed| number::is_blank(typed))
                    })
                    .collect();
                let over = if blank.is_empty() { (0..values.len()).collect() } else { blank };
                let left = u64::try_from(arithmetic::left(&values)).unwrap_or_default();
                applied.shared = Some(Shared { basis_points: left, categories: over.len() });
                arithmetic::share(&values, &over)
            }
            Tool::Scale => {
                applied.scaled = true;
                // Nothing is fixed without a script.
                arithmetic::scale(&values, &[]).unwrap_or_else(|FixedOverWhole| values.clone())
            }
            Tool::Check => values.clone(),
        };
        for ((typed, before), after) in applied.values.typed.iter_mut().zip(&values).zip(&changed) {
            if before != after {
                *typed = numbers.percent((*after).into());
            }
        }
        Ok(applied)
    }
}

/// The result of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The new values.
    pub values: FormValues,
    /// What was shared, if anything should have been.
    pub shared: Option<Shared>,
    /// Whether the values were scaled.
    pub scaled: bool,
}

/// What was shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    /// How much; 0 if nothing was left.
    pub basis_points: u64,
    /// Over how many categories.
    pub categories: usize,
}

/// Builds the query that carries a form's fields and other members; the fields are exactly as they were sent.
pub fn query(fields: &[(String, String)], others: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (category, value) in fields {
        query.append_pair(&format!("{FIELD}{category}"), value);
    }
    for (name, value) in others {
        query.append_pair(name, value);
    }
    query.finish()
}

/// Builds the fields of values, for [`query`] and hidden inputs.
pub fn fields(budget: &Budget, values: &FormValues) -> Vec<(String, String)> {
    let ids = budget.categories.iter().map(|category| category.id.as_str().to_owned());
    ids.zip(values.typed().iter().cloned()).collect()
}

#[cfg(test)]
mod tests;
