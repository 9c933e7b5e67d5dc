//! What a read asks for in its query and headers, with every fault at once.

use axum::extract::Query;
use http::{HeaderMap, Uri};
use runtime::problem::{Fault, Problem, ProblemKind};

use crate::consistency::{self, AT_LEAST, AtLeast, CONSISTENCY_TOKEN, PREFER};

/// Budgets in one request: as many as fit a page, few enough for one fetch.
const BUDGETS_MAX: usize = 50;

/// What a read asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ReadRequest {
    /// Which submission must be counted.
    pub at_least: Option<AtLeast>,
    /// Whether distributions are wanted.
    pub distribution: bool,
    /// The budgets named in the query, each once, in order.
    pub budgets: Vec<String>,
}

impl ReadRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// A problem that names every fault.
    pub fn of(headers: &HeaderMap, uri: &Uri) -> Result<Self, Problem> {
        let query = uri.query().unwrap_or_default();
        // Most reads ask for nothing special.
        if query.is_empty()
            && !headers.contains_key(CONSISTENCY_TOKEN)
            && !headers.contains_key(PREFER)
        {
            return Ok(Self::default());
        }
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            return Err(Problem::new(ProblemKind::Malformed).detail("the query cannot be read"));
        };
        let mut read = Self::default();
        let mut faults = Vec::new();
        let mut receipt = None;
        for (name, value) in pairs {
            match name.as_str() {
                "budget" if !read.budgets.contains(&value) && read.budgets.len() <= BUDGETS_MAX => {
                    read.budgets.push(value);
                }
                "include" if value == "distribution" => read.distribution = true,
                "include" => faults.push(fault("include", "must be `distribution`")),
                AT_LEAST => receipt = Some(value),
                _ => {}
            }
        }
        if read.budgets.len() > BUDGETS_MAX {
            let detail = format!("must be at most {BUDGETS_MAX} budgets");
            faults.push(fault("budget", &detail));
        }
        read.at_least = consistency::parse(headers, receipt.as_deref(), &mut faults);
        if faults.is_empty() {
            Ok(read)
        } else {
            Err(Problem::new(ProblemKind::Malformed)
                .detail("the request's headers or query cannot be read")
                .faults(faults))
        }
    }
}

fn fault(parameter: &str, detail: &str) -> Fault {
    Fault { pointer: parameter.to_owned(), detail: detail.to_owned() }
}
