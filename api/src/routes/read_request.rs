//! Parses the query and headers of a read, and reports every fault at once.

use axum::extract::Query;
use http::{HeaderMap, Uri};
use runtime::problem::{FieldFault, Problem, ProblemKind};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use crate::consistency::{self, AT_LEAST, AtLeast, CONSISTENCY_TOKEN, PREFER};
use crate::parameters::optional_text;

/// Maximum budgets per request: enough for a page, few enough for one fetch.
const MAX_BUDGETS: usize = 50;

/// The parameters of a read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ReadRequest {
    /// The submission that must be counted.
    pub at_least: Option<AtLeast>,
    /// Whether to include distributions.
    pub distribution: bool,
    /// The budgets of the query, without duplicates, in order.
    pub budgets: Vec<String>,
}

/// The budgets are left out: most reads name theirs in the path.
impl IntoParams for ReadRequest {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let include = optional_text(
            "include",
            ParameterIn::Query,
            "`distribution` adds 101 counts for each category: people by whole percent",
            |text| text.pattern(Some("^distribution$")),
        );
        [vec![include], AtLeast::into_params(place)].concat()
    }
}

impl ReadRequest {
    /// Parses a request.
    ///
    /// # Errors
    /// A problem that names every fault.
    pub fn parse(headers: &HeaderMap, uri: &Uri) -> Result<Self, Problem> {
        let query = uri.query().unwrap_or_default();
        // Fast path: most reads have no parameters.
        if query.is_empty()
            && !headers.contains_key(CONSISTENCY_TOKEN)
            && !headers.contains_key(PREFER)
        {
            return Ok(Self::default());
        }
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            return Err(Problem::new(ProblemKind::Malformed).detail("the query is malformed"));
        };
        let mut read = Self::default();
        let mut faults = Vec::new();
        let mut receipt = None;
        for (name, value) in pairs {
            match name.as_str() {
                "budget" if !read.budgets.contains(&value) && read.budgets.len() <= MAX_BUDGETS => {
                    read.budgets.push(value);
                }
                "include" if value == "distribution" => read.distribution = true,
                // Once: a query may repeat it thousands of times.
                "include"
                    if !faults.iter().any(|known: &FieldFault| known.pointer == "include") =>
                {
                    faults.push(fault("include", "must be `distribution`"));
                }
                AT_LEAST => receipt = Some(value),
                _ => {}
            }
        }
        if read.budgets.len() > MAX_BUDGETS {
            let detail = format!("must be at most {MAX_BUDGETS} budgets");
            faults.push(fault("budget", &detail));
        }
        read.at_least = consistency::parse(headers, receipt.as_deref(), &mut faults);
        if faults.is_empty() {
            Ok(read)
        } else {
            Err(Problem::new(ProblemKind::Malformed)
                .detail("the request's headers or query are malformed")
                .faults(faults))
        }
    }
}

fn fault(parameter: &str, detail: &str) -> FieldFault {
    FieldFault { pointer: parameter.to_owned(), detail: detail.to_owned() }
}
