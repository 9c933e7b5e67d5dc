//! One budget's answer, ready to send: totals with names and averages, rendered as JSON with an ETag.
//!
//! Which tier the totals come from is not known here, only what they guarantee ([`Provenance`]).
//!
//! **The ETag** is `"<version>.r<revision>"`. The version identifies the counted submissions; the revision is the
//! budget's, because a new definition changes names while the numbers stay. The suffix `.distribution` marks the longer
//! form of the same answer. A recount adds a digest of its body, because its positions do not determine its content.
//!
//! **Withheld answers** depend on the budget's definition alone. Body, version and ETag (`"withheld-until-closed.r4"`)
//! are the same whatever is counted: a version counts submissions, and a changed ETag would tell that there was one.

mod body;
mod numbers;
mod rendered;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use runtime::http::digest;
use schemas::{
    AggregateVersion, BASIS_POINTS_PER_PERSON, Budget, BudgetId, CombinedTotals, RecordAddress,
    ResultsVisibility,
};

pub use numbers::{Decimal, average_percent, percent};
pub use rendered::{Rendered, Representation};

/// What totals guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// Committed together with their positions: they count exactly the records before those positions.
    Committed,
    /// Counted from person rows, which are written after the commits and not in order: see
    /// [`crate::tiers::recount`].
    Recounted,
}

/// Why totals are invalid: they are damaged, or do not match the budget's definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The number of categories differs from the budget's.
    #[error("totals have {found} categories, the budget has {wanted}")]
    CategoryCount {
        /// Categories of the totals.
        found: usize,
        /// Categories of the budget.
        wanted: usize,
    },
    /// People, sums and distributions do not match.
    #[error("the sums do not match the number of people")]
    SumMismatch,
    /// The body cannot be serialized.
    #[error("the answer cannot be serialized as JSON")]
    Json,
}

/// Why results are withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// Results are shown once the budget has closed, which it does at this time.
    AfterClose(Timestamp),
    /// Results are shown once every submission that was accepted in time is counted. The budget closed at this time.
    Counting(Timestamp),
    /// Fewer people than the budget's minimum.
    MinimumPeople,
    /// Only a newer release knows when results are shown.
    UnknownRule,
}

/// One budget's answer.
#[derive(Debug)]
pub struct Answer {
    budget: Arc<Budget>,
    totals: Arc<CombinedTotals>,
    provenance: Provenance,
    withheld: Option<Withheld>,
    /// By which content delivery networks purge the budget's answers.
    surrogate_key: HeaderValue,
    plain: Rendered,
    detailed: OnceLock<Rendered>,
    /// The answer as a server-sent event.
    event: OnceLock<Bytes>,
    /// The answer as a message of a WebSocket.
    message: OnceLock<Bytes>,
}

impl Answer {
    /// Renders the answer as of `now`.
    ///
    /// # Errors
    /// When the totals are invalid for this budget.
    pub fn new(
        budget: Arc<Budget>,
        totals: Arc<CombinedTotals>,
        provenance: Provenance,
        now: Timestamp,
    ) -> Result<Self, AnswerError> {
        check(&budget, &totals)?;
        let withheld = withheld(&budget, totals.people, totals.is_final(), now);
        let plain = render(&budget, &totals, provenance, withheld, false)?;
        Ok(Self {
            surrogate_key: surrogate_key(&budget.id),
            budget,
            totals,
            provenance,
            withheld,
            plain,
            detailed: OnceLock::new(),
            event: OnceLock::new(),
            message: OnceLock::new(),
        })
    }

    /// Returns the definition that the answer was rendered with.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Returns the totals.
    pub fn totals(&self) -> &Arc<CombinedTotals> {
        &self.totals
    }

    /// Returns the `Surrogate-Key` of the budget's answers.
    pub fn surrogate_key(&self) -> &HeaderValue {
        &self.surrogate_key
    }

    /// Returns what the totals guarantee.
    pub fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// Returns why the results are withheld, if they are.
    pub fn withheld(&self) -> Option<Withheld> {
        self.withheld
    }

    /// Returns whether the results are withheld.
    pub fn is_withheld(&self) -> bool {
        self.withheld.is_some()
    }

    /// Returns when the reason for which results are withheld changes, if that is a matter of time.
    pub fn shown_from(&self) -> Option<Timestamp> {
        match self.withheld {
            Some(Withheld::AfterClose(until)) => Some(until),
            _ => None,
        }
    }

    /// Returns the version: identifies the counted submissions, and only grows. Not to be shown while the results are
    /// withheld.
    pub fn version(&self) -> AggregateVersion {
        AggregateVersion::of(&self.totals)
    }

    /// Returns the answer as a server-sent event, rendered once for all streams.
    pub fn event(&self, render: impl FnOnce() -> Bytes) -> &Bytes {
        self.event.get_or_init(render)
    }

    /// Returns the answer as a message of a WebSocket, rendered once for all clients.
    pub fn message(&self, render: impl FnOnce() -> Bytes) -> &Bytes {
        self.message.get_or_init(render)
    }

    /// Returns whether the answer must be rendered anew because its budget has closed since.
    pub fn is_outdated(&self, now: impl FnOnce() -> Timestamp) -> bool {
        matches!(self.withheld, Some(Withheld::AfterClose(until)) if now() >= until)
    }

    /// Returns whether the answer is certain to count the record at an address. A recount never is.
    pub fn includes(&self, address: RecordAddress) -> bool {
        self.provenance == Provenance::Committed && self.totals.includes_record(address)
    }

    /// Returns whether the address names a partition that this answer's log does not have.
    pub fn lacks_partition(&self, address: RecordAddress) -> bool {
        let partitions = self.totals.positions.len();
        self.totals.term.log == address.log
            && usize::try_from(address.partition.0).is_ok_and(|number| number >= partitions)
    }

    /// Returns the answer without distributions.
    pub fn plain(&self) -> &Rendered {
        &self.plain
    }

    /// Returns the answer with the distribution of each category; rendered on first use.
    pub fn with_distribution(&self) -> &Rendered {
        self.detailed.get_or_init(|| {
            render(&self.budget, &self.totals, self.provenance, self.withheld, true)
                // Cannot fail: the plain form was rendered from the same values.
                .unwrap_or_else(|_| self.plain.clone())
        })
    }
}

/// Returns the `Surrogate-Key` of a budget's public answers.
pub fn surrogate_key(budget: &BudgetId) -> HeaderValue {
    // A slug is valid in a header.
    HeaderValue::try_from(format!("budget-{budget}")).unwrap_or(HeaderValue::from_static("budgets"))
}

/// Checks the invariants of totals, so that damaged totals are never shown.
fn check(budget: &Budget, totals: &CombinedTotals) -> Result<(), AnswerError> {
    let (found, wanted) = (totals.categories.len(), budget.categories.len());
    if found != wanted && found != 0 {
        return Err(AnswerError::CategoryCount { found, wanted });
    }
    let people = u128::from(totals.people);
    let sum: u128 = totals.categories.iter().map(|c| u128::from(c.basis_points)).sum();
    let everyone_once = totals.categories.iter().all(|category| {
        let counted: u128 = category.people_by_percent.iter().copied().map(u128::from).sum();
        counted == people
    });
    if sum != people * u128::from(BASIS_POINTS_PER_PERSON) || !everyone_once {
        return Err(AnswerError::SumMismatch);
    }
    Ok(())
}

/// Returns why the results of `people` people are withheld at `now`, if they are.
///
/// Whether results after the closing are shown depends on `is_final` alone: the clock only words the reason.
pub fn withheld(budget: &Budget, people: u64, is_final: bool, now: Timestamp) -> Option<Withheld> {
    match (budget.results, budget.closes_at) {
        (ResultsVisibility::AfterClose, Some(until)) if !is_final => {
            let has_closed = budget.is_fenced() || now >= until;
            Some(if has_closed { Withheld::Counting(until) } else { Withheld::AfterClose(until) })
        }
        (ResultsVisibility::Unrecognized, _) => Some(Withheld::UnknownRule),
        _ if people < budget.minimum_people && budget.minimum_people > 1 => {
            Some(Withheld::MinimumPeople)
        }
        _ => None,
    }
}

fn render(
    budget: &Budget,
    totals: &CombinedTotals,
    provenance: Provenance,
    withheld: Option<Withheld>,
    distribution: bool,
) -> Result<Rendered, AnswerError> {
    if let Some(reason) = withheld {
        return render_withheld(budget, reason, totals.is_final());
    }
    let version = AggregateVersion::of(totals).to_string();
    let form = if distribution { ".distribution" } else { "" };
    let body = body::aggregate(budget, &version, totals, distribution);
    let body = body.map_err(|_| AnswerError::Json)?;
    let content = match provenance {
        Provenance::Committed => String::new(),
        Provenance::Recounted => format!(".{}", digest(&body)),
    };
    let etag = format!("\"{version}.r{}{content}{form}\"", budget.revision);
    let etag = HeaderValue::try_from(etag).map_err(|_| AnswerError::Json)?;
    Ok(Rendered::new(body, etag))
}

/// Renders an answer that depends on no submission.
fn render_withheld(
    budget: &Budget,
    reason: Withheld,
    is_final: bool,
) -> Result<Rendered, AnswerError> {
    let form = match reason {
        Withheld::AfterClose(_) => "withheld-until-closed",
        Withheld::Counting(_) => "withheld-counting",
        Withheld::MinimumPeople => "withheld-few-people",
        Withheld::UnknownRule => "withheld-unknown-rule",
    };
    let version = AggregateVersion::LOWEST.to_string();
    let body = body::withheld(budget, &version, reason, is_final).map_err(|_| AnswerError::Json)?;
    let finality = if is_final { ".final" } else { "" };
    let etag = HeaderValue::try_from(format!("\"{form}.r{}{finality}\"", budget.revision));
    Ok(Rendered::new(body, etag.map_err(|_| AnswerError::Json)?))
}

#[cfg(test)]
mod tests;
